"""English: what is spoken, and so the transcripts. Numbers are said as in America, without "and"."""

from grammar.meaning import Clock, Date, Grammar, Price, Value, words

SMALL = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
TENS = words("_ ten twenty thirty forty fifty sixty seventy eighty ninety")
MONTHS = words("_ January February March April May June July August September October November December")
ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
PARTS = {"morning": "in the morning", "afternoon": "in the afternoon", "evening": "in the evening"}
PLACES = {
    "berlin": "Berlin",
    "paris": "Paris",
    "london": "London",
    "rome": "Rome",
    "madrid": "Madrid",
    "lisbon": "Lisbon",
    "amsterdam": "Amsterdam",
    "vienna": "Vienna",
    "moscow": "Moscow",
    "seoul": "Seoul",
    "beijing": "Beijing",
    "tokyo": "Tokyo",
    "new_york": "New York",
    "barcelona": "Barcelona",
    "airport": "the airport",
    "station": "the train station",
    "museum": "the museum",
    "hotel": "the hotel",
    "hospital": "the hospital",
    "bank": "the bank",
    "post_office": "the post office",
    "market": "the market",
    "beach": "the beach",
    "castle": "the castle",
    "cathedral": "the cathedral",
    "university": "the university",
    "pharmacy": "the pharmacy",
}
FRAMES = {
    "number": "{k}.",
    "ordinal": "The {o:ordinal}.",
    "date": "{d}.",
    "time": "{t}.",
    "price": "{p}.",
    # Ordinals in sentences.
    "floor": "My room is on the {o:ordinal} floor.",
    "street": "Take the {o:ordinal} street on the left.",
    "trip_day": "Today is the {o:ordinal} day of our trip.",
    "chapter": "I am reading the {o:ordinal} chapter.",
    "row": "Our seats are in the {o:ordinal} row.",
    "stop": "Please get off at the {o:ordinal} stop.",
    "birthday": "Today is my {o:ordinal} birthday.",
    # Dates in sentences.
    "today": "Today is {d}.",
    "born": "I was born on {d}.",
    "concert": "The concert is on {d}.",
    "arrive": "We arrive on {d}.",
    "full": "The hotel is full on {d}.",
    "holiday": "My vacation starts on {d}.",
    # Counted things.
    "tickets": "I would like {n} tickets, please.",
    "nights": "We would like to stay for {n} nights.",
    "table": "A table for {n} people, please.",
    "bus_in": "The bus leaves in {n} minutes.",
    "from_here": "It is {n} kilometers from here.",
    "stay": "I am staying here for {n} days.",
    "journey": "The journey takes {n} hours.",
    "bottles": "Please bring us {n} bottles of water.",
    "rooms": "We need {n} rooms.",
    "stamps": "I need {n} stamps.",
    "suitcases": "We have {n} suitcases.",
    # Numbers that name a thing.
    "my_room": "My room number is {k}.",
    "gate": "Please go to gate {k}.",
    "platform": "The train leaves from platform {k}.",
    "take_bus": "Take bus number {k}.",
    "my_seat": "My seat number is {k}.",
    "page": "Please open the book to page {k}.",
    "flight": "Flight {k} is delayed.",
    "exit": "Please take exit {k}.",
    "code": "The code is {k}.",
    "order": "Your order number is {k}.",
    # Times.
    "it_is": "It is {t}.",
    "train_at": "The train leaves at {t}.",
    "wake": "Please wake me up at {t}.",
    "opens": "The museum opens at {t}.",
    "closes": "The bank closes at {t}.",
    "breakfast": "Breakfast starts at {t}.",
    "meet_at": "Let us meet at {t}.",
    "our_flight": "Our flight arrives at {t}.",
    "taxi_at": "I need a taxi at {t}.",
    # Prices.
    "ticket_costs": "The ticket costs {p}.",
    "that_is": "That is {p}, please.",
    "only_have": "I only have {p}.",
    "per_night": "The room costs {p} per night.",
    "paid": "I paid {p} for the book.",
    "dinner": "Dinner costs {p}.",
    # Places.
    "where": "Where is {l}?",
    "go_to": "I would like to go to {x}.",
    "how_far": "How far is it to {x}?",
    "get_to": "How do I get to {x}?",
    "closed": "{l} is closed today.",
    "brother": "My brother lives in {c}.",
    "taxi_to": "A taxi to {x}, please.",
    "bus_to": "This bus goes to {x}.",
    "waiting": "I am waiting at {l}.",
    # Two slots.
    "train_to_at": "The train to {c} leaves at {t}.",
    "ticket_to_costs": "A ticket to {c} costs {p}.",
    "tickets_to": "I would like {n} tickets to {c}, please.",
    "flight_from": "The flight from {c} arrives at {t}.",
    "train_to_platform": "The train to {c} leaves from platform {k}.",
    "taxi_costs": "A taxi to {l} costs {p}.",
    "room_costs": "Room {k} costs {p}.",
    "kilometers_to": "It is {n} kilometers to {x}.",
    "bus_to_in": "The bus to {x} leaves in {n} minutes.",
}


def say(value: Value, form: str) -> str:
    """The words for a value. Forms: "" or "ordinal" (of a number)."""
    match value:
        case int():
            return ordinal(value) if form == "ordinal" else cardinal(value)
        case Clock():
            return clock(value)
        case Date():
            said = f"the {ordinal(value.day)} of {MONTHS[value.month]}"
            return said if value.year is None else f"{said} {year(value.year)}"
        case Price():
            return price(value)
        case str():
            return PLACES[value]


def cardinal(number: int) -> str:
    """0 to 9999 in words: 4207 is "four thousand two hundred seven"."""
    if number < 20:
        return SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return TENS[tens] + (f"-{SMALL[ones]}" if ones else "")
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    head, rest = divmod(number, size)
    return f"{SMALL[head]} {name}" + (f" {cardinal(rest)}" if rest else "")


def ordinal(number: int) -> str:
    """1 to 9999 as an ordinal: 42 is "forty-second"."""
    said = cardinal(number)
    cut = max(said.rfind(" "), said.rfind("-")) + 1
    head, last = said[:cut], said[cut:]
    if last in ORDINALS:
        return head + ORDINALS[last]
    return head + (f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th")


def year(number: int) -> str:
    """1100 to 2099 as a year is said: "nineteen eighty-four", "nineteen oh five", "two thousand nine"."""
    century, rest = divmod(number, 100)
    if 2000 <= number < 2010:
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def clock(time: Clock) -> str:
    """As "quarter to eight in the evening", "seven oh five", "three o'clock"."""
    hour, after = SMALL[time.hour], SMALL[time.hour % 12 + 1]
    if time.quarters:
        said = {15: f"quarter past {hour}", 30: f"half past {hour}", 45: f"quarter to {after}"}[time.minute]
    elif time.minute == 0:
        said = f"{hour} o'clock"
    else:
        said = f"{hour} {'oh ' if time.minute < 10 else ''}{cardinal(time.minute)}"
    return said if time.part is None else f"{said} {PARTS[time.part]}"


def price(value: Price) -> str:
    """As "forty-two dollars and fifty cents"."""
    said = f"{cardinal(value.amount)} {value.currency}{'' if value.amount == 1 else 's'}"
    if value.cents == 0:
        return said
    return f"{said} and {cardinal(value.cents)} cent{'' if value.cents == 1 else 's'}"


GRAMMAR = Grammar(FRAMES, say)
