"""French: soixante-dix and quatre-vingts, feminine minutes, numbers that name a thing without the plural's s."""

from grammar.meaning import Clock, Date, Grammar, Price, Value, words

SMALL = words(
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept dix-huit "
    "dix-neuf"
)
TENS = words("_ dix vingt trente quarante cinquante soixante soixante quatre-vingt quatre-vingt")
MONTHS = words("_ janvier février mars avril mai juin juillet août septembre octobre novembre décembre")
PARTS = {"morning": "du matin", "afternoon": "de l'après-midi", "evening": "du soir"}
CITIES = {
    "berlin": "Berlin",
    "paris": "Paris",
    "london": "Londres",
    "rome": "Rome",
    "madrid": "Madrid",
    "lisbon": "Lisbonne",
    "amsterdam": "Amsterdam",
    "vienna": "Vienne",
    "moscow": "Moscou",
    "seoul": "Séoul",
    "beijing": "Pékin",
    "tokyo": "Tokyo",
    "new_york": "New York",
    "barcelona": "Barcelone",
}
# With the article, with "à", and "closed" in its gender.
LANDMARKS = {
    "airport": ("l'aéroport", "à l'aéroport", "fermé"),
    "station": ("la gare", "à la gare", "fermée"),
    "museum": ("le musée", "au musée", "fermé"),
    "hotel": ("l'hôtel", "à l'hôtel", "fermé"),
    "hospital": ("l'hôpital", "à l'hôpital", "fermé"),
    "bank": ("la banque", "à la banque", "fermée"),
    "post_office": ("la poste", "à la poste", "fermée"),
    "market": ("le marché", "au marché", "fermé"),
    "beach": ("la plage", "à la plage", "fermée"),
    "castle": ("le château", "au château", "fermé"),
    "cathedral": ("la cathédrale", "à la cathédrale", "fermée"),
    "university": ("l'université", "à l'université", "fermée"),
    "pharmacy": ("la pharmacie", "à la pharmacie", "fermée"),
}
FRAMES = {
    "number": "{k}.",
    "ordinal": "Le {o:ordinal}.",
    "date": "{d}.",
    "time": "{t}.",
    "price": "{p}.",
    "floor": "Ma chambre est au {o:ordinal} étage.",
    "street": "Prenez la {o:ordinal_f} rue à gauche.",
    "trip_day": "Aujourd'hui, c'est le {o:ordinal} jour de notre voyage.",
    "chapter": "Je lis le {o:ordinal} chapitre.",
    "row": "Nos places sont au {o:ordinal} rang.",
    "stop": "Veuillez descendre au {o:ordinal} arrêt.",
    "birthday": "Aujourd'hui, c'est mon {o:ordinal} anniversaire.",
    "today": "Aujourd'hui, nous sommes {d}.",
    "born": "Je suis né {d}.",
    "concert": "Le concert a lieu {d}.",
    "arrive": "Nous arrivons {d}.",
    "full": "L'hôtel est complet {d}.",
    "holiday": "Mes vacances commencent {d}.",
    "tickets": "Je voudrais {n} billets, s'il vous plaît.",
    "nights": "Nous voudrions rester {n:f} nuits.",
    "table": "Une table pour {n:f} personnes, s'il vous plaît.",
    "bus_in": "Le bus part dans {n:f} minutes.",
    "from_here": "C'est à {n} kilomètres d'ici.",
    "stay": "Je reste ici pendant {n} jours.",
    "journey": "Le trajet dure {n:f} heures.",
    "bottles": "Apportez-nous {n:f} bouteilles d'eau, s'il vous plaît.",
    "rooms": "Nous avons besoin de {n:f} chambres.",
    "stamps": "J'ai besoin de {n} timbres.",
    "suitcases": "Nous avons {n:f} valises.",
    "my_room": "Ma chambre porte le numéro {k:label}.",
    "gate": "Veuillez vous rendre à la porte {k:label}.",
    "platform": "Le train part du quai {k:label}.",
    "take_bus": "Prenez le bus numéro {k:label}.",
    "my_seat": "Ma place porte le numéro {k:label}.",
    "page": "Veuillez ouvrir le livre à la page {k:label}.",
    "flight": "Le vol {k:label} est retardé.",
    "exit": "Prenez la sortie {k:label}, s'il vous plaît.",
    "code": "Le code est {k}.",
    "order": "Votre commande porte le numéro {k:label}.",
    "it_is": "Il est {t}.",
    "train_at": "Le train part à {t}.",
    "wake": "Réveillez-moi à {t}, s'il vous plaît.",
    "opens": "Le musée ouvre à {t}.",
    "closes": "La banque ferme à {t}.",
    "breakfast": "Le petit déjeuner commence à {t}.",
    "meet_at": "Retrouvons-nous à {t}.",
    "our_flight": "Notre vol arrive à {t}.",
    "taxi_at": "J'ai besoin d'un taxi à {t}.",
    "ticket_costs": "Le billet coûte {p}.",
    "that_is": "Ça fait {p}, s'il vous plaît.",
    "only_have": "Je n'ai que {p}.",
    "per_night": "La chambre coûte {p} par nuit.",
    "paid": "J'ai payé le livre {p}.",
    "dinner": "Le dîner coûte {p}.",
    "where": "Où est {l} ?",
    "go_to": "Je voudrais aller {x:to}.",
    "how_far": "Quelle est la distance jusqu'{x:to} ?",
    "get_to": "Comment puis-je aller {x:to} ?",
    "closed": "{l} est {l:closed} aujourd'hui.",
    "brother": "Mon frère habite {c:to}.",
    "taxi_to": "Un taxi pour {x}, s'il vous plaît.",
    "bus_to": "Ce bus va {x:to}.",
    "waiting": "J'attends {l:to}.",
    "train_to_at": "Le train pour {c} part à {t}.",
    "ticket_to_costs": "Un billet pour {c} coûte {p}.",
    "tickets_to": "Je voudrais {n} billets pour {c}, s'il vous plaît.",
    "flight_from": "Le vol en provenance {c:from} arrive à {t}.",
    "train_to_platform": "Le train pour {c} part du quai {k:label}.",
    "taxi_costs": "Un taxi pour {l} coûte {p}.",
    "room_costs": "La chambre {k:label} coûte {p}.",
    "kilometers_to": "Il y a {n} kilomètres jusqu'{x:to}.",
    "bus_to_in": "Le bus pour {x} part dans {n:f} minutes.",
}


def say(value: Value, form: str) -> str:
    """The words for a value.

    Forms: of a number "" (before a masculine noun too), "f" before a feminine one, "label" after the thing it names,
    "ordinal", "ordinal_f"; of a place "", "to", "from" and "closed".
    """
    match value:
        case int():
            return _number(value, form)
        case Clock():
            return clock(value)
        case Date():
            day = "premier" if value.day == 1 else cardinal(value.day)
            said = f"le {day} {MONTHS[value.month]}"
            return said if value.year is None else f"{said} {label(value.year)}"
        case Price():
            return price(value)
        case str():
            if value in CITIES:
                name = CITIES[value]
                return {"": "", "to": "à ", "from": "d'" if name[0] == "A" else "de "}[form] + name
            return LANDMARKS[value][("", "to", "closed").index(form)]


def _number(number: int, form: str) -> str:
    match form:
        case "f":
            return feminine(number)
        case "label":
            return label(number)
        case "ordinal" | "ordinal_f":
            return ordinal(number, feminine=form == "ordinal_f")
        case _:
            return cardinal(number)


def cardinal(number: int) -> str:
    """0 to 9999: 91 is "quatre-vingt-onze", 280 "deux cent quatre-vingts"."""
    if number < 20:
        return SMALL[number]
    if number < 100:
        return _tens(number)
    size, name = (1000, "mille") if number >= 1000 else (100, "cent")
    head, rest = divmod(number, size)
    said = name if head == 1 else f"{SMALL[head]} {name}"
    if rest:
        return f"{said} {cardinal(rest)}"
    return f"{said}s" if size == 100 and head > 1 else said


def _tens(number: int) -> str:
    tens, ones = divmod(number, 10)
    if tens in (7, 9):
        ones += 10
    if ones == 0:
        return TENS[tens] + ("s" if tens == 8 else "")
    return TENS[tens] + (" et " if ones in (1, 11) and tens < 8 else "-") + SMALL[ones]


def feminine(number: int) -> str:
    """As `cardinal`, before a feminine noun: "vingt et une"."""
    said = cardinal(number)
    return f"{said}e" if number % 10 == 1 and number % 100 not in (11, 71, 91) else said


def label(number: int) -> str:
    """As `cardinal`, after the noun it names or as a year, where vingt and cent take no s: "page quatre-vingt"."""
    said = cardinal(number)
    return said[:-1] if said.endswith(("vingts", "cents")) else said


def ordinal(number: int, *, feminine: bool = False) -> str:
    """1 to 100: 42 is "quarante-deuxième"."""
    if number == 1:
        return "première" if feminine else "premier"
    stem = label(number)
    if stem.endswith("cinq"):
        return f"{stem}uième"
    if stem.endswith("neuf"):
        return f"{stem[:-1]}vième"
    return f"{stem.removesuffix('e')}ième"


def clock(time: Clock) -> str:
    """As "sept heures et quart", "huit heures moins le quart", "une heure vingt et une du soir"."""
    if time.quarters and time.minute == 45:
        said = f"{_hours(time.hour % 12 + 1)} moins le quart"
    elif time.quarters:
        said = f"{_hours(time.hour)} et {'quart' if time.minute == 15 else 'demie'}"
    else:
        said = _hours(time.hour) + (f" {feminine(time.minute)}" if time.minute else "")
    return said if time.part is None else f"{said} {PARTS[time.part]}"


def _hours(hour: int) -> str:
    return f"{feminine(hour)} heure{'' if hour == 1 else 's'}"


def price(value: Price) -> str:
    """As "quarante-deux euros et cinquante centimes"; a dollar has cents."""
    said = f"{cardinal(value.amount)} {value.currency}{'' if value.amount == 1 else 's'}"
    if value.cents:
        hundredth = "cent" if value.currency == "dollar" else "centime"
        said += f" et {cardinal(value.cents)} {hundredth}{'' if value.cents == 1 else 's'}"
    return said


GRAMMAR = Grammar(FRAMES, say)
