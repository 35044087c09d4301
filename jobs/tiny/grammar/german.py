"""German: cardinals as one word, "halb acht" for half past seven, dates and ordinals declined."""

from grammar.meaning import Clock, Date, Grammar, Price, Value, words

SMALL = words(
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn "
    "achtzehn neunzehn"
)
TENS = words("_ zehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")
IRREGULAR = {1: "erst", 3: "dritt", 7: "siebt", 8: "acht", 100: "hundertst"}
MONTHS = words("_ Januar Februar März April Mai Juni Juli August September Oktober November Dezember")
PARTS = {"morning": "morgens", "afternoon": "nachmittags", "evening": "abends"}
CITIES = {
    "berlin": "Berlin",
    "paris": "Paris",
    "london": "London",
    "rome": "Rom",
    "madrid": "Madrid",
    "lisbon": "Lissabon",
    "amsterdam": "Amsterdam",
    "vienna": "Wien",
    "moscow": "Moskau",
    "seoul": "Seoul",
    "beijing": "Peking",
    "tokyo": "Tokio",
    "new_york": "New York",
    "barcelona": "Barcelona",
}
# Nominative, where to, where.
LANDMARKS = {
    "airport": ("der Flughafen", "zum Flughafen", "am Flughafen"),
    "station": ("der Bahnhof", "zum Bahnhof", "am Bahnhof"),
    "museum": ("das Museum", "zum Museum", "im Museum"),
    "hotel": ("das Hotel", "zum Hotel", "im Hotel"),
    "hospital": ("das Krankenhaus", "zum Krankenhaus", "im Krankenhaus"),
    "bank": ("die Bank", "zur Bank", "in der Bank"),
    "post_office": ("die Post", "zur Post", "in der Post"),
    "market": ("der Markt", "zum Markt", "auf dem Markt"),
    "beach": ("der Strand", "zum Strand", "am Strand"),
    "castle": ("das Schloss", "zum Schloss", "am Schloss"),
    "cathedral": ("die Kathedrale", "zur Kathedrale", "an der Kathedrale"),
    "university": ("die Universität", "zur Universität", "an der Universität"),
    "pharmacy": ("die Apotheke", "zur Apotheke", "in der Apotheke"),
}
FRAMES = {
    "number": "{k}.",
    "ordinal": "Der {o:noun}.",
    "date": "{d}.",
    "time": "{t}.",
    "price": "{p}.",
    "floor": "Mein Zimmer ist im {o:en} Stock.",
    "street": "Nehmen Sie die {o:e} Straße links.",
    "trip_day": "Heute ist der {o:e} Tag unserer Reise.",
    "chapter": "Ich lese das {o:e} Kapitel.",
    "row": "Unsere Plätze sind in der {o:en} Reihe.",
    "stop": "Bitte steigen Sie an der {o:en} Haltestelle aus.",
    "birthday": "Heute ist mein {o:er} Geburtstag.",
    "today": "Heute ist {d}.",
    "born": "Ich wurde {d:on} geboren.",
    "concert": "Das Konzert ist {d:on}.",
    "arrive": "Wir kommen {d:on} an.",
    "full": "Das Hotel ist {d:on} ausgebucht.",
    "holiday": "Mein Urlaub beginnt {d:on}.",
    "tickets": "Ich hätte gern {n} Fahrkarten, bitte.",
    "nights": "Wir möchten {n} Nächte bleiben.",
    "table": "Einen Tisch für {n} Personen, bitte.",
    "bus_in": "Der Bus fährt in {n} Minuten ab.",
    "from_here": "Es sind {n} Kilometer von hier.",
    "stay": "Ich bleibe {n} Tage hier.",
    "journey": "Die Fahrt dauert {n} Stunden.",
    "bottles": "Bitte bringen Sie uns {n} Flaschen Wasser.",
    "rooms": "Wir brauchen {n} Zimmer.",
    "stamps": "Ich brauche {n} Briefmarken.",
    "suitcases": "Wir haben {n} Koffer.",
    "my_room": "Meine Zimmernummer ist {k}.",
    "gate": "Bitte gehen Sie zum Flugsteig {k}.",
    "platform": "Der Zug fährt von Gleis {k} ab.",
    "take_bus": "Nehmen Sie den Bus Nummer {k}.",
    "my_seat": "Meine Platznummer ist {k}.",
    "page": "Bitte schlagen Sie das Buch auf Seite {k} auf.",
    "flight": "Flug {k} hat Verspätung.",
    "exit": "Bitte nehmen Sie die Ausfahrt {k}.",
    "code": "Der Code lautet {k}.",
    "order": "Ihre Bestellnummer ist {k}.",
    "it_is": "Es ist {t}.",
    "train_at": "Der Zug fährt um {t} ab.",
    "wake": "Bitte wecken Sie mich um {t}.",
    "opens": "Das Museum öffnet um {t}.",
    "closes": "Die Bank schließt um {t}.",
    "breakfast": "Das Frühstück beginnt um {t}.",
    "meet_at": "Treffen wir uns um {t}.",
    "our_flight": "Unser Flug kommt um {t} an.",
    "taxi_at": "Ich brauche um {t} ein Taxi.",
    "ticket_costs": "Die Fahrkarte kostet {p:acc}.",
    "that_is": "Das macht {p:acc}, bitte.",
    "only_have": "Ich habe nur {p:acc}.",
    "per_night": "Das Zimmer kostet {p:acc} pro Nacht.",
    "paid": "Ich habe {p:acc} für das Buch bezahlt.",
    "dinner": "Das Abendessen kostet {p:acc}.",
    "where": "Wo ist {l}?",
    "go_to": "Ich möchte {x:to} fahren.",
    "how_far": "Wie weit ist es bis {x:to}?",
    "get_to": "Wie komme ich {x:to}?",
    "closed": "{l} ist heute geschlossen.",
    "brother": "Mein Bruder wohnt in {c}.",
    "taxi_to": "Ein Taxi {x:to}, bitte.",
    "bus_to": "Dieser Bus fährt {x:to}.",
    "waiting": "Ich warte {l:at}.",
    "train_to_at": "Der Zug {c:to} fährt um {t} ab.",
    "ticket_to_costs": "Eine Fahrkarte {c:to} kostet {p:acc}.",
    "tickets_to": "Ich hätte gern {n} Fahrkarten {c:to}, bitte.",
    "flight_from": "Der Flug aus {c} kommt um {t} an.",
    "train_to_platform": "Der Zug {c:to} fährt von Gleis {k} ab.",
    "taxi_costs": "Ein Taxi {l:to} kostet {p:acc}.",
    "room_costs": "Zimmer {k} kostet {p:acc}.",
    "kilometers_to": "Es sind {n} Kilometer bis {x:to}.",
    "bus_to_in": "Der Bus {x:to} fährt in {n} Minuten ab.",
}


def say(value: Value, form: str) -> str:
    """The words for a value.

    Forms: of a number, "" or an ordinal's ending "e", "en", "er" or "noun"; of a date "" (the subject) or "on"; of a
    price "" or "acc"; of a place "", "to" or "at".
    """
    match value:
        case int():
            if form == "noun":
                return ordinal(value, "e").capitalize()
            return ordinal(value, form) if form else cardinal(value)
        case Clock():
            return clock(value)
        case Date():
            said = f"{'am' if form else 'der'} {ordinal(value.day, 'en' if form else 'e')} {MONTHS[value.month]}"
            return said if value.year is None else f"{said} {year(value.year)}"
        case Price():
            return price(value, "einen" if form else "ein")
        case str():
            if value in CITIES:
                return {"": "", "to": "nach ", "at": "in "}[form] + CITIES[value]
            return LANDMARKS[value][("", "to", "at").index(form)]


def cardinal(number: int) -> str:
    """0 to 9999: 4207 is "viertausendzweihundertsieben"."""
    if number < 20:
        return SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return f"{_joined(ones)}und{TENS[tens]}" if ones else TENS[tens]
    size, name = (1000, "tausend") if number >= 1000 else (100, "hundert")
    head, rest = divmod(number, size)
    return _joined(head) + name + (cardinal(rest) if rest else "")


def _joined(digit: int) -> str:
    return "ein" if digit == 1 else SMALL[digit]


def ordinal(number: int, ending: str) -> str:
    """1 to 100 with a weak or strong ending: 42 is "zweiundvierzigste"."""
    stem = IRREGULAR.get(number) or cardinal(number) + ("t" if number < 20 else "st")
    return stem + ending


def year(number: int) -> str:
    """1100 to 2099: "neunzehnhundertvierundachtzig", "zweitausendfünf"."""
    if number >= 2000:
        return cardinal(number)
    century, rest = divmod(number, 100)
    return f"{cardinal(century)}hundert" + (cardinal(rest) if rest else "")


def clock(time: Clock) -> str:
    """As "Viertel nach sieben", "halb acht", "sieben Uhr fünf morgens"."""
    after = SMALL[time.hour % 12 + 1]
    if time.quarters:
        said = {15: f"Viertel nach {SMALL[time.hour]}", 30: f"halb {after}", 45: f"Viertel vor {after}"}[time.minute]
    else:
        said = f"{_joined(time.hour)} Uhr" + (f" {cardinal(time.minute)}" if time.minute else "")
    return said if time.part is None else f"{said} {PARTS[time.part]}"


def price(value: Price, one: str) -> str:
    """As "zweiundvierzig Dollar und fünfzig Cent"; `one` is what stands for 1."""
    said = f"{one if value.amount == 1 else cardinal(value.amount)} {value.currency.capitalize()}"
    if value.cents:
        said += f" und {one if value.cents == 1 else cardinal(value.cents)} Cent"
    return said


GRAMMAR = Grammar(FRAMES, say)
