"""Italian: numbers as one word with their elisions and accents, articles elided before vowels, hours with articles."""

from grammar.meaning import Clock, Date, Grammar, Price, Value, words

SMALL = words(
    "zero uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici "
    "diciassette diciotto diciannove"
)
TENS = words("_ dieci venti trenta quaranta cinquanta sessanta settanta ottanta novanta")
ORDINALS = words("_ primo secondo terzo quarto quinto sesto settimo ottavo nono decimo")
MONTHS = [
    "_",
    "gennaio",
    "febbraio",
    "marzo",
    "aprile",
    "maggio",
    "giugno",
    "luglio",
    "agosto",
    "settembre",
    "ottobre",
    "novembre",
    "dicembre",
]
PARTS = {"morning": "del mattino", "afternoon": "del pomeriggio", "evening": "di sera"}
# An article with a preposition: before a consonant, before a vowel, and the ending of what follows.
ARTICLES = {
    "il": ("il ", "l'", "o"),
    "al": ("al ", "all'", "o"),
    "la": ("la ", "l'", "a"),
    "alla": ("alla ", "all'", "a"),
    "nella": ("nella ", "nell'", "a"),
    "m": ("", "", "o"),
}
CITIES = {
    "berlin": "Berlino",
    "paris": "Parigi",
    "london": "Londra",
    "rome": "Roma",
    "madrid": "Madrid",
    "lisbon": "Lisbona",
    "amsterdam": "Amsterdam",
    "vienna": "Vienna",
    "moscow": "Mosca",
    "seoul": "Seul",
    "beijing": "Pechino",
    "tokyo": "Tokyo",
    "new_york": "New York",
    "barcelona": "Barcellona",
}
# With the article, with "a", and "closed" in its gender.
LANDMARKS = {
    "airport": ("l'aeroporto", "all'aeroporto", "chiuso"),
    "station": ("la stazione", "alla stazione", "chiusa"),
    "museum": ("il museo", "al museo", "chiuso"),
    "hotel": ("l'hotel", "all'hotel", "chiuso"),
    "hospital": ("l'ospedale", "all'ospedale", "chiuso"),
    "bank": ("la banca", "alla banca", "chiusa"),
    "post_office": ("l'ufficio postale", "all'ufficio postale", "chiuso"),
    "market": ("il mercato", "al mercato", "chiuso"),
    "beach": ("la spiaggia", "alla spiaggia", "chiusa"),
    "castle": ("il castello", "al castello", "chiuso"),
    "cathedral": ("la cattedrale", "alla cattedrale", "chiusa"),
    "university": ("l'università", "all'università", "chiusa"),
    "pharmacy": ("la farmacia", "alla farmacia", "chiusa"),
}
FRAMES = {
    "number": "{k}.",
    "ordinal": "{o:il}.",
    "date": "{d}.",
    "time": "{t}.",
    "price": "{p}.",
    "floor": "La mia camera è {o:al} piano.",
    "street": "Prenda {o:la} strada a sinistra.",
    "trip_day": "Oggi è {o:il} giorno del nostro viaggio.",
    "chapter": "Sto leggendo {o:il} capitolo.",
    "row": "I nostri posti sono {o:nella} fila.",
    "stop": "Scenda {o:alla} fermata, per favore.",
    "birthday": "Oggi è il mio {o:m} compleanno.",
    "today": "Oggi è {d}.",
    "born": "Sono nato {d}.",
    "concert": "Il concerto è {d}.",
    "arrive": "Arriviamo {d}.",
    "full": "L'hotel è al completo {d}.",
    "holiday": "Le mie vacanze iniziano {d}.",
    "tickets": "Vorrei {n} biglietti, per favore.",
    "nights": "Vorremmo restare per {n} notti.",
    "table": "Un tavolo per {n} persone, per favore.",
    "bus_in": "L'autobus parte tra {n} minuti.",
    "from_here": "È a {n} chilometri da qui.",
    "stay": "Resto qui per {n} giorni.",
    "journey": "Il viaggio dura {n} ore.",
    "bottles": "Ci porti {n} bottiglie d'acqua, per favore.",
    "rooms": "Abbiamo bisogno di {n} camere.",
    "stamps": "Ho bisogno di {n} francobolli.",
    "suitcases": "Abbiamo {n} valigie.",
    "my_room": "Il mio numero di camera è {k}.",
    "gate": "Vada al gate {k}, per favore.",
    "platform": "Il treno parte dal binario {k}.",
    "take_bus": "Prenda l'autobus numero {k}.",
    "my_seat": "Il mio numero di posto è {k}.",
    "page": "Apra il libro a pagina {k}, per favore.",
    "flight": "Il volo {k} è in ritardo.",
    "exit": "Prenda l'uscita {k}, per favore.",
    "code": "Il codice è {k}.",
    "order": "Il numero del suo ordine è {k}.",
    "it_is": "{t:is}.",
    "train_at": "Il treno parte {t:at}.",
    "wake": "Mi svegli {t:at}, per favore.",
    "opens": "Il museo apre {t:at}.",
    "closes": "La banca chiude {t:at}.",
    "breakfast": "La colazione inizia {t:at}.",
    "meet_at": "Incontriamoci {t:at}.",
    "our_flight": "Il nostro volo arriva {t:at}.",
    "taxi_at": "Ho bisogno di un taxi {t:at}.",
    "ticket_costs": "Il biglietto costa {p}.",
    "that_is": "{p:is}, per favore.",
    "only_have": "Ho solo {p}.",
    "per_night": "La camera costa {p} a notte.",
    "paid": "Ho pagato il libro {p}.",
    "dinner": "La cena costa {p}.",
    "where": "Dov'è {l}?",
    "go_to": "Vorrei andare {x:to}.",
    "how_far": "Quanto dista {x}?",
    "get_to": "Come arrivo {x:to}?",
    "closed": "{l} oggi è {l:closed}.",
    "brother": "Mio fratello vive {c:to}.",
    "taxi_to": "Un taxi per {x}, per favore.",
    "bus_to": "Questo autobus va {x:to}.",
    "waiting": "Sto aspettando {l:to}.",
    "train_to_at": "Il treno per {c} parte {t:at}.",
    "ticket_to_costs": "Un biglietto per {c} costa {p}.",
    "tickets_to": "Vorrei {n} biglietti per {c}, per favore.",
    "flight_from": "Il volo da {c} arriva {t:at}.",
    "train_to_platform": "Il treno per {c} parte dal binario {k}.",
    "taxi_costs": "Un taxi per {l} costa {p}.",
    "room_costs": "La camera {k} costa {p}.",
    "kilometers_to": "Ci sono {n} chilometri fino {x:to}.",
    "bus_to_in": "L'autobus per {x} parte tra {n} minuti.",
}


def say(value: Value, form: str) -> str:
    """The words for a value.

    Forms: of a number "" or a key of ARTICLES for its ordinal; of a time "", "at" or "is"; of a price "" or "is";
    of a place "", "to" or "closed".
    """
    match value:
        case int():
            return ordinal(value, form) if form else cardinal(value)
        case Clock():
            return clock(value, form)
        case Date():
            day = "primo" if value.day == 1 else cardinal(value.day)
            said = f"{_with_article('il', day)} {MONTHS[value.month]}"
            return said if value.year is None else f"{said} {cardinal(value.year)}"
        case Price():
            return ("" if not form else "è " if value.amount == 1 else "sono ") + price(value)
        case str():
            if value in CITIES:
                name = CITIES[value]
                return {"": "", "to": "ad " if name[0] == "A" else "a "}[form] + name
            return LANDMARKS[value][("", "to", "closed").index(form)]


def cardinal(number: int) -> str:
    """0 to 9999: 28 is "ventotto", 2123 "duemilacentoventitré"."""
    said = _joined(number)
    return f"{said[:-1]}é" if number > 3 and number % 10 == 3 and number % 100 != 13 else said


def _joined(number: int) -> str:
    if number < 20:
        return SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return (TENS[tens][:-1] if ones in (1, 8) else TENS[tens]) + (SMALL[ones] if ones else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        said = ("" if hundreds == 1 else SMALL[hundreds]) + ("cent" if rest == 8 or rest // 10 == 8 else "cento")
        return said + (_joined(rest) if rest else "")
    thousands, rest = divmod(number, 1000)
    return ("mille" if thousands == 1 else f"{SMALL[thousands]}mila") + (_joined(rest) if rest else "")


def ordinal(number: int, article: str) -> str:
    """1 to 100 after an article of ARTICLES: "il ventitreesimo", "nell'ottava"."""
    if number <= 10:
        said = ORDINALS[number]
    else:
        stem = _joined(number)
        keeps = number > 20 and number % 10 in (3, 6)  # ventitreesimo, ventiseiesimo
        said = f"{stem if keeps else stem[:-1]}esimo"
    return _with_article(article, said[:-1] + ARTICLES[article][2])


def _with_article(article: str, word: str) -> str:
    before_consonant, before_vowel, _ = ARTICLES[article]
    return (before_vowel if word[0] in "aeiou" else before_consonant) + word


def clock(time: Clock, form: str) -> str:
    """As "le sette e un quarto", "all'una e cinque di sera", "sono le otto meno un quarto"."""
    hour = time.hour % 12 + 1 if time.quarters and time.minute == 45 else time.hour
    articles = {"": ("l'", "le "), "at": ("all'", "alle "), "is": ("è l'", "sono le ")}[form]
    said = f"{articles[0]}una" if hour == 1 else articles[1] + SMALL[hour]
    if time.quarters:
        said += {15: " e un quarto", 30: " e mezza", 45: " meno un quarto"}[time.minute]
    elif time.minute:
        said += f" e {cardinal(time.minute)}"
    return said if time.part is None else f"{said} {PARTS[time.part]}"


def price(value: Price) -> str:
    """As "quarantadue dollari e cinquanta centesimi"; euro has no plural."""
    one = value.amount == 1
    name = "euro" if value.currency == "euro" else "dollaro" if one else "dollari"
    said = f"{'un' if one else cardinal(value.amount)} {name}"
    if value.cents:
        said += " e un centesimo" if value.cents == 1 else f" e {cardinal(value.cents)} centesimi"
    return said


GRAMMAR = Grammar(FRAMES, say)
