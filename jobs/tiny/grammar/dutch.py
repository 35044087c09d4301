"""Dutch: a space after duizend, a trema in tweeëntwintig, dates with cardinals, "half acht" for half past seven."""

from grammar.meaning import Clock, Date, Grammar, Price, Value, words

SMALL = words(
    "nul een twee drie vier vijf zes zeven acht negen tien elf twaalf dertien veertien vijftien zestien zeventien "
    "achttien negentien"
)
TENS = words("_ tien twintig dertig veertig vijftig zestig zeventig tachtig negentig")
IRREGULAR = {1: "eerste", 3: "derde", 8: "achtste"}
MONTHS = words("_ januari februari maart april mei juni juli augustus september oktober november december")
PARTS = {"morning": "'s ochtends", "afternoon": "'s middags", "evening": "'s avonds"}
CITIES = {
    "berlin": "Berlijn",
    "paris": "Parijs",
    "london": "Londen",
    "rome": "Rome",
    "madrid": "Madrid",
    "lisbon": "Lissabon",
    "amsterdam": "Amsterdam",
    "vienna": "Wenen",
    "moscow": "Moskou",
    "seoul": "Seoel",
    "beijing": "Peking",
    "tokyo": "Tokio",
    "new_york": "New York",
    "barcelona": "Barcelona",
}
# With the article, and where somebody waits.
LANDMARKS = {
    "airport": ("het vliegveld", "op het vliegveld"),
    "station": ("het station", "op het station"),
    "museum": ("het museum", "in het museum"),
    "hotel": ("het hotel", "in het hotel"),
    "hospital": ("het ziekenhuis", "in het ziekenhuis"),
    "bank": ("de bank", "bij de bank"),
    "post_office": ("het postkantoor", "bij het postkantoor"),
    "market": ("de markt", "op de markt"),
    "beach": ("het strand", "op het strand"),
    "castle": ("het kasteel", "bij het kasteel"),
    "cathedral": ("de kathedraal", "bij de kathedraal"),
    "university": ("de universiteit", "bij de universiteit"),
    "pharmacy": ("de apotheek", "bij de apotheek"),
}
FRAMES = {
    "number": "{k}.",
    "ordinal": "De {o:ordinal}.",
    "date": "{d}.",
    "time": "{t}.",
    "price": "{p}.",
    "floor": "Mijn kamer is op de {o:ordinal} verdieping.",
    "street": "Neem de {o:ordinal} straat links.",
    "trip_day": "Vandaag is de {o:ordinal} dag van onze reis.",
    "chapter": "Ik lees het {o:ordinal} hoofdstuk.",
    "row": "Onze plaatsen zijn op de {o:ordinal} rij.",
    "stop": "Stap alstublieft uit bij de {o:ordinal} halte.",
    "birthday": "Vandaag is mijn {o:ordinal} verjaardag.",
    "today": "Vandaag is het {d}.",
    "born": "Ik ben geboren op {d}.",
    "concert": "Het concert is op {d}.",
    "arrive": "We komen aan op {d}.",
    "full": "Het hotel is op {d} volgeboekt.",
    "holiday": "Mijn vakantie begint op {d}.",
    "tickets": "Ik wil graag {n} kaartjes, alstublieft.",
    "nights": "We willen graag {n} nachten blijven.",
    "table": "Een tafel voor {n} personen, alstublieft.",
    "bus_in": "De bus vertrekt over {n} minuten.",
    "from_here": "Het is {n} kilometer hiervandaan.",
    "stay": "Ik blijf hier {n} dagen.",
    "journey": "De reis duurt {n} uur.",
    "bottles": "Breng ons alstublieft {n} flessen water.",
    "rooms": "We hebben {n} kamers nodig.",
    "stamps": "Ik heb {n} postzegels nodig.",
    "suitcases": "We hebben {n} koffers.",
    "my_room": "Mijn kamernummer is {k}.",
    "gate": "Ga alstublieft naar gate {k}.",
    "platform": "De trein vertrekt vanaf spoor {k}.",
    "take_bus": "Neem bus nummer {k}.",
    "my_seat": "Mijn stoelnummer is {k}.",
    "page": "Sla het boek alstublieft open op bladzijde {k}.",
    "flight": "Vlucht {k} heeft vertraging.",
    "exit": "Neem alstublieft afslag {k}.",
    "code": "De code is {k}.",
    "order": "Uw bestelnummer is {k}.",
    "it_is": "Het is {t}.",
    "train_at": "De trein vertrekt om {t}.",
    "wake": "Maak me alstublieft om {t} wakker.",
    "opens": "Het museum gaat om {t} open.",
    "closes": "De bank sluit om {t}.",
    "breakfast": "Het ontbijt begint om {t}.",
    "meet_at": "Laten we om {t} afspreken.",
    "our_flight": "Onze vlucht komt om {t} aan.",
    "taxi_at": "Ik heb om {t} een taxi nodig.",
    "ticket_costs": "Het kaartje kost {p}.",
    "that_is": "Dat is {p}, alstublieft.",
    "only_have": "Ik heb maar {p}.",
    "per_night": "De kamer kost {p} per nacht.",
    "paid": "Ik heb {p} voor het boek betaald.",
    "dinner": "Het avondeten kost {p}.",
    "where": "Waar is {l}?",
    "go_to": "Ik wil graag naar {x}.",
    "how_far": "Hoe ver is het naar {x}?",
    "get_to": "Hoe kom ik {x:reach}?",
    "closed": "{l} is vandaag gesloten.",
    "brother": "Mijn broer woont in {c}.",
    "taxi_to": "Een taxi naar {x}, alstublieft.",
    "bus_to": "Deze bus gaat naar {x}.",
    "waiting": "Ik wacht {l:at}.",
    "train_to_at": "De trein naar {c} vertrekt om {t}.",
    "ticket_to_costs": "Een kaartje naar {c} kost {p}.",
    "tickets_to": "Ik wil graag {n} kaartjes naar {c}, alstublieft.",
    "flight_from": "De vlucht uit {c} komt om {t} aan.",
    "train_to_platform": "De trein naar {c} vertrekt vanaf spoor {k}.",
    "taxi_costs": "Een taxi naar {l} kost {p}.",
    "room_costs": "Kamer {k} kost {p}.",
    "kilometers_to": "Het is {n} kilometer naar {x}.",
    "bus_to_in": "De bus naar {x} vertrekt over {n} minuten.",
}


def say(value: Value, form: str) -> str:
    """The words for a value. Forms: of a number "" or "ordinal"; of a place "", "at" or "reach"."""
    match value:
        case int():
            return ordinal(value) if form == "ordinal" else cardinal(value)
        case Clock():
            return clock(value)
        case Date():
            said = f"{cardinal(value.day)} {MONTHS[value.month]}"
            return said if value.year is None else f"{said} {year(value.year)}"
        case Price():
            return price(value)
        case str():
            if value in CITIES:
                return f"in {CITIES[value]}" if form == "reach" else CITIES[value]
            named, at = LANDMARKS[value]
            return at if form == "at" else f"bij {named}" if form == "reach" else named


def cardinal(number: int) -> str:
    """0 to 9999: 1 alone is "één", 4222 "vierduizend tweehonderdtweeëntwintig"."""
    return "één" if number == 1 else _joined(number)


def _joined(number: int) -> str:
    if number < 20:
        return SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return (f"{SMALL[ones]}{'ën' if ones in (2, 3) else 'en'}" if ones else "") + TENS[tens]
    size, name, space = (1000, "duizend", " ") if number >= 1000 else (100, "honderd", "")
    head, rest = divmod(number, size)
    return (SMALL[head] if head > 1 else "") + name + (space + _joined(rest) if rest else "")


def ordinal(number: int) -> str:
    """1 to 100: 42 is "tweeënveertigste"."""
    return IRREGULAR.get(number) or _joined(number) + ("de" if number < 20 else "ste")


def year(number: int) -> str:
    """1100 to 2099: "negentienhonderdvierentachtig", "tweeduizend vijf"."""
    if number >= 2000:
        return cardinal(number)
    century, rest = divmod(number, 100)
    return f"{SMALL[century]}honderd" + (_joined(rest) if rest else "")


def clock(time: Clock) -> str:
    """As "kwart over zeven", "half acht", "zeven uur vijf 's ochtends"."""
    hour, after = cardinal(time.hour), cardinal(time.hour % 12 + 1)
    if time.quarters:
        said = {15: f"kwart over {hour}", 30: f"half {after}", 45: f"kwart voor {after}"}[time.minute]
    else:
        said = f"{hour} uur" + (f" {cardinal(time.minute)}" if time.minute else "")
    return said if time.part is None else f"{said} {PARTS[time.part]}"


def price(value: Price) -> str:
    """As "tweeënveertig dollar en vijftig cent"."""
    said = f"{cardinal(value.amount)} {value.currency}"
    return said + (f" en {cardinal(value.cents)} cent" if value.cents else "")


def begin(text: str) -> str:
    """`text` with a capital: "Eén", because a Dutch capital has no accent of its own."""
    return "Eén" + text[3:] if text.startswith("één") else text[0].upper() + text[1:]


GRAMMAR = Grammar(FRAMES, say, begin)
