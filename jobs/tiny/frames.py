"""Which values the slots of each sentence frame take, and how often each kind of sentence is drawn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from grammar.meaning import Clock, Currency, Date, Part, Place, Price, Value, words

Kind = Literal["number", "ordinal", "date", "time", "price", "travel"]
Draw = Callable[[Random], Value]

CITIES = [
    Place(key)
    for key in words(
        "berlin paris london rome madrid lisbon amsterdam vienna moscow seoul beijing tokyo new_york barcelona"
    )
]
LANDMARKS = [
    Place(key)
    for key in words(
        "airport station museum hotel hospital bank post_office market beach castle cathedral university pharmacy"
    )
]
DAYS_IN_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
# Hours for which every language says the same part of the day: "seven in the evening" is the afternoon in Spain, and
# ten o'clock is night in Korea.
HOURS: Mapping[Part | None, range] = {
    None: range(1, 13),
    "morning": range(6, 11),
    "afternoon": range(1, 5),
    "evening": range(8, 10),
}
_PARTS: list[Part | None] = [None, None, None, "morning", "afternoon", "evening"]


@dataclass(frozen=True)
class Frame:
    """A sentence with slots. `slots` names what draws the value of each."""

    kind: Kind
    slots: Mapping[str, Draw]


def upto(most: int, least: int = 1) -> Draw:
    """A number from `least` to `most`."""
    return lambda random: random.randint(least, most)


def count(most: int) -> Draw:
    """How many there are of something: 2 to `most`, half of them under 20, and neither 101 nor 201 and so on.

    For "two hundred and one kilometres" German and Dutch have several forms and no rule that settles one.
    """

    def drawn(random: Random) -> int:
        number = 101
        while number > 100 and number % 100 == 1:
            number = random.randint(2, min(most, 19) if random.random() < 0.5 else most)
        return number

    return drawn


def cardinal(random: Random) -> int:
    """0 to 9999, each number of digits often enough to be learnt."""
    return random.randint(*random.choices([(0, 99), (100, 999), (1000, 9999)], [15, 35, 50])[0])


def clock(random: Random) -> Clock:
    """Any minute; the full hour, the half and the quarters more often; a part of the day half of the time."""
    part: Part | None = random.choice(_PARTS)
    hour = random.choice(HOURS[part])
    chance = random.random()
    if chance < 0.2:
        return Clock(hour, 0, part=part)
    if chance < 0.4:
        return Clock(hour, random.choice((15, 30, 45)), quarters=True, part=part)
    return Clock(hour, random.randint(1, 59), part=part)


def date(random: Random) -> Date:
    """A day of a year from 1800 to 2049 (seven of eight after 1900), or without a year."""
    month = random.randint(1, 12)
    day = random.randint(1, DAYS_IN_MONTH[month - 1])
    chance = random.random()
    if chance < 0.4:
        return Date(day, month)
    year = random.randint(1800, 1899) if chance < 0.475 else random.randint(1900, 2049)
    return Date(min(day, 28) if month == 2 else day, month, year)


def dated(random: Random) -> Date:
    """A day with its year."""
    while True:
        value = date(random)
        if value.year is not None:
            return value


def undated(random: Random) -> Date:
    """A day without a year."""
    value = date(random)
    return Date(value.day, value.month)


def price(random: Random) -> Price:
    """1 to 9999, half of them with cents. No 101, 201 and so on, whose noun German cannot settle."""
    amount = 101
    while amount > 100 and amount % 100 == 1:
        amount = random.randint(*random.choices([(1, 99), (100, 999), (1000, 9999)], [55, 30, 15])[0])
    cents = random.choice((0, 0, random.randint(1, 99), 5 * random.randint(1, 19)))
    currency: Currency = random.choice(("dollar", "euro"))
    return Price(amount, cents, currency)


def city(random: Random) -> Place:
    """A city."""
    return random.choice(CITIES)


def landmark(random: Random) -> Place:
    """A building or a part of a town."""
    return random.choice(LANDMARKS)


def place(random: Random) -> Place:
    """A city or a landmark."""
    return random.choice(CITIES + LANDMARKS)


_BARE: dict[str, tuple[Kind, dict[str, Draw]]] = {
    "number": ("number", {"k": cardinal}),
    "ordinal": ("ordinal", {"o": upto(100)}),
    "date": ("date", {"d": date}),
    "time": ("time", {"t": clock}),
    "price": ("price", {"p": price}),
    "floor": ("ordinal", {"o": upto(60)}),
    "street": ("ordinal", {"o": upto(40)}),
    "trip_day": ("ordinal", {"o": upto(100)}),
    "chapter": ("ordinal", {"o": upto(100)}),
    "row": ("ordinal", {"o": upto(100)}),
    "stop": ("ordinal", {"o": upto(60)}),
    "birthday": ("ordinal", {"o": upto(100)}),
    "today": ("date", {"d": date}),
    "born": ("date", {"d": dated}),
    "it_is": ("time", {"t": clock}),
    "that_is": ("price", {"p": price}),
}
_TRAVEL: dict[str, dict[str, Draw]] = {
    "concert": {"d": undated},
    "arrive": {"d": undated},
    "full": {"d": undated},
    "holiday": {"d": undated},
    "tickets": {"n": count(99)},
    "nights": {"n": count(40)},
    "table": {"n": count(40)},
    "bus_in": {"n": count(99)},
    "from_here": {"n": count(999)},
    "stay": {"n": count(99)},
    "journey": {"n": count(60)},
    "bottles": {"n": count(60)},
    "rooms": {"n": count(60)},
    "stamps": {"n": count(99)},
    "suitcases": {"n": count(40)},
    "my_room": {"k": upto(999)},
    "gate": {"k": upto(99)},
    "platform": {"k": upto(40)},
    "take_bus": {"k": upto(999)},
    "my_seat": {"k": upto(400)},
    "page": {"k": upto(999)},
    "flight": {"k": upto(9999, 100)},
    "exit": {"k": upto(99)},
    "code": {"k": upto(9999, 1000)},
    "order": {"k": upto(9999, 1000)},
    "train_at": {"t": clock},
    "wake": {"t": clock},
    "opens": {"t": clock},
    "closes": {"t": clock},
    "breakfast": {"t": clock},
    "meet_at": {"t": clock},
    "our_flight": {"t": clock},
    "taxi_at": {"t": clock},
    "ticket_costs": {"p": price},
    "only_have": {"p": price},
    "per_night": {"p": price},
    "paid": {"p": price},
    "dinner": {"p": price},
    "where": {"l": landmark},
    "go_to": {"x": place},
    "how_far": {"x": place},
    "get_to": {"x": place},
    "closed": {"l": landmark},
    "brother": {"c": city},
    "taxi_to": {"x": place},
    "bus_to": {"x": place},
    "waiting": {"l": landmark},
    "train_to_at": {"c": city, "t": clock},
    "ticket_to_costs": {"c": city, "p": price},
    "tickets_to": {"n": count(99), "c": city},
    "flight_from": {"c": city, "t": clock},
    "train_to_platform": {"c": city, "k": upto(40)},
    "taxi_costs": {"l": landmark, "p": price},
    "room_costs": {"k": upto(999), "p": price},
    "kilometers_to": {"n": count(999), "x": place},
    "bus_to_in": {"x": place, "n": count(99)},
}
FRAMES: dict[str, Frame] = {key: Frame(kind, slots) for key, (kind, slots) in _BARE.items()}
FRAMES |= {key: Frame("travel", slots) for key, slots in _TRAVEL.items()}
