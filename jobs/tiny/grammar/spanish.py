"""Spanish: un, una and uno, ordinals with "primer" and "tercer", hours with their articles."""

from grammar.meaning import Clock, Date, Grammar, Price, Value, words

SMALL = words(
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete "
    "dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro veinticinco veintiséis veintisiete "
    "veintiocho veintinueve"
)
TENS = words("_ diez veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa")
HUNDREDS = words(
    "_ ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos"
)
ORDINALS = words("_ primero segundo tercero cuarto quinto sexto séptimo octavo noveno")
TENTHS = words("_ décimo vigésimo trigésimo cuadragésimo quincuagésimo sexagésimo septuagésimo octogésimo nonagésimo")
MONTHS = words("_ enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre")
PARTS = {"morning": "de la mañana", "afternoon": "de la tarde", "evening": "de la noche"}
CITIES = {
    "berlin": "Berlín",
    "paris": "París",
    "london": "Londres",
    "rome": "Roma",
    "madrid": "Madrid",
    "lisbon": "Lisboa",
    "amsterdam": "Ámsterdam",
    "vienna": "Viena",
    "moscow": "Moscú",
    "seoul": "Seúl",
    "beijing": "Pekín",
    "tokyo": "Tokio",
    "new_york": "Nueva York",
    "barcelona": "Barcelona",
}
# With the article, with "a", and "closed" in its gender.
LANDMARKS = {
    "airport": ("el aeropuerto", "al aeropuerto", "cerrado"),
    "station": ("la estación", "a la estación", "cerrada"),
    "museum": ("el museo", "al museo", "cerrado"),
    "hotel": ("el hotel", "al hotel", "cerrado"),
    "hospital": ("el hospital", "al hospital", "cerrado"),
    "bank": ("el banco", "al banco", "cerrado"),
    "post_office": ("la oficina de correos", "a la oficina de correos", "cerrada"),
    "market": ("el mercado", "al mercado", "cerrado"),
    "beach": ("la playa", "a la playa", "cerrada"),
    "castle": ("el castillo", "al castillo", "cerrado"),
    "cathedral": ("la catedral", "a la catedral", "cerrada"),
    "university": ("la universidad", "a la universidad", "cerrada"),
    "pharmacy": ("la farmacia", "a la farmacia", "cerrada"),
}
FRAMES = {
    "number": "{k}.",
    "ordinal": "El {o:ordinal}.",
    "date": "El {d}.",
    "time": "{t}.",
    "price": "{p}.",
    "floor": "Mi habitación está en el {o:ordinal_m} piso.",
    "street": "Tome la {o:ordinal_f} calle a la izquierda.",
    "trip_day": "Hoy es el {o:ordinal_m} día de nuestro viaje.",
    "chapter": "Estoy leyendo el {o:ordinal_m} capítulo.",
    "row": "Nuestros asientos están en la {o:ordinal_f} fila.",
    "stop": "Por favor, bájese en la {o:ordinal_f} parada.",
    "birthday": "Hoy es mi {o:ordinal_m} cumpleaños.",
    "today": "Hoy es {d}.",
    "born": "Nací el {d}.",
    "concert": "El concierto es el {d}.",
    "arrive": "Llegamos el {d}.",
    "full": "El hotel está completo el {d}.",
    "holiday": "Mis vacaciones empiezan el {d}.",
    "tickets": "Quisiera {n:m} billetes, por favor.",
    "nights": "Nos gustaría quedarnos {n:f} noches.",
    "table": "Una mesa para {n:f} personas, por favor.",
    "bus_in": "El autobús sale en {n:m} minutos.",
    "from_here": "Está a {n:m} kilómetros de aquí.",
    "stay": "Me quedo aquí {n:m} días.",
    "journey": "El viaje dura {n:f} horas.",
    "bottles": "Por favor, tráiganos {n:f} botellas de agua.",
    "rooms": "Necesitamos {n:f} habitaciones.",
    "stamps": "Necesito {n:m} sellos.",
    "suitcases": "Tenemos {n:f} maletas.",
    "my_room": "Mi número de habitación es el {k}.",
    "gate": "Por favor, diríjase a la puerta {k}.",
    "platform": "El tren sale del andén {k}.",
    "take_bus": "Tome el autobús número {k}.",
    "my_seat": "Mi número de asiento es el {k}.",
    "page": "Por favor, abra el libro por la página {k}.",
    "flight": "El vuelo {k} lleva retraso.",
    "exit": "Por favor, tome la salida {k}.",
    "code": "El código es {k}.",
    "order": "Su número de pedido es el {k}.",
    "it_is": "{t:is}.",
    "train_at": "El tren sale {t:at}.",
    "wake": "Por favor, despiérteme {t:at}.",
    "opens": "El museo abre {t:at}.",
    "closes": "El banco cierra {t:at}.",
    "breakfast": "El desayuno empieza {t:at}.",
    "meet_at": "Encontrémonos {t:at}.",
    "our_flight": "Nuestro vuelo llega {t:at}.",
    "taxi_at": "Necesito un taxi {t:at}.",
    "ticket_costs": "El billete cuesta {p}.",
    "that_is": "{p:is}, por favor.",
    "only_have": "Solo tengo {p}.",
    "per_night": "La habitación cuesta {p} por noche.",
    "paid": "Pagué {p} por el libro.",
    "dinner": "La cena cuesta {p}.",
    "where": "¿Dónde está {l}?",
    "go_to": "Quisiera ir {x:to}.",
    "how_far": "¿A qué distancia está {x}?",
    "get_to": "¿Cómo llego {x:to}?",
    "closed": "{l} está {l:closed} hoy.",
    "brother": "Mi hermano vive en {c}.",
    "taxi_to": "Un taxi {x:to}, por favor.",
    "bus_to": "Este autobús va {x:to}.",
    "waiting": "Estoy esperando en {l}.",
    "train_to_at": "El tren a {c} sale {t:at}.",
    "ticket_to_costs": "Un billete a {c} cuesta {p}.",
    "tickets_to": "Quisiera {n:m} billetes a {c}, por favor.",
    "flight_from": "El vuelo de {c} llega {t:at}.",
    "train_to_platform": "El tren a {c} sale del andén {k}.",
    "taxi_costs": "Un taxi {l:to} cuesta {p}.",
    "room_costs": "La habitación {k} cuesta {p}.",
    "kilometers_to": "Hay {n:m} kilómetros hasta {x}.",
    "bus_to_in": "El autobús {x:to} sale en {n:m} minutos.",
}


def say(value: Value, form: str) -> str:
    """The words for a value.

    Forms: of a number "", "m" or "f" before a noun, "ordinal", "ordinal_m" before a noun, "ordinal_f"; of a time "",
    "at" or "is"; of a price "" or "is"; of a place "", "to" or "closed".
    """
    match value:
        case int():
            return ordinal(value, form) if form.startswith("ordinal") else cardinal(value, form)
        case Clock():
            return clock(value, form)
        case Date():
            said = f"{cardinal(value.day)} de {MONTHS[value.month]}"
            return said if value.year is None else f"{said} de {cardinal(value.year)}"
        case Price():
            return ("" if not form else "es " if value.amount == 1 else "son ") + price(value)
        case str():
            if value in CITIES:
                return ("a " if form == "to" else "") + CITIES[value]
            return LANDMARKS[value][("", "to", "closed").index(form)]


def cardinal(number: int, form: str = "") -> str:
    """0 to 9999; `form` "m" or "f" before a noun: "veintiuno", "veintiún", "veintiuna"; "doscientas"."""
    said = _plain(number)
    if form == "f":
        said = said.replace("cientos", "cientas").replace("quinientos", "quinientas")
    if number % 10 != 1 or number % 100 == 11 or not form:
        return said
    if form == "f":
        return f"{said[:-1]}a"
    return f"{said[:-4]}iún" if said.endswith("iuno") else said[:-1]


def _plain(number: int) -> str:
    if number < 30:
        return SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return TENS[tens] + (f" y {SMALL[ones]}" if ones else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return "cien" if number == 100 else HUNDREDS[hundreds] + (f" {_plain(rest)}" if rest else "")
    thousands, rest = divmod(number, 1000)
    said = "mil" if thousands == 1 else f"{SMALL[thousands]} mil"
    return said + (f" {_plain(rest)}" if rest else "")


def ordinal(number: int, form: str) -> str:
    """1 to 100: "vigésimo tercero", before a noun "vigésimo tercer" and "vigésima tercera"."""
    said = _ordinal(number)
    if form == "ordinal_f":
        # Written as one word below twenty, and then only its end is declined.
        return " ".join(f"{word[:-1]}a" for word in said.split())
    if form == "ordinal_m" and said.endswith(("primero", "tercero")):
        return said[:-1]
    return said


def _ordinal(number: int) -> str:
    tens, ones = divmod(number, 10)
    if number == 100:
        return "centésimo"
    if tens == 0:
        return ORDINALS[ones]
    if number in (11, 12):
        return ("undécimo", "duodécimo")[number - 11]
    if tens == 1 and ones:
        return f"decimo{ORDINALS[ones]}".replace("oo", "o")  # decimoctavo
    return TENTHS[tens] + (f" {ORDINALS[ones]}" if ones else "")


def clock(time: Clock, form: str) -> str:
    """As "las siete y cuarto", "a la una y cinco de la tarde", "son las ocho menos cuarto"."""
    hour = time.hour % 12 + 1 if time.quarters and time.minute == 45 else time.hour
    one, more = {"": ("", ""), "at": ("a ", "a "), "is": ("es ", "son ")}[form]
    said = f"{one}la una" if hour == 1 else f"{more}las {SMALL[hour]}"
    if time.quarters:
        said += {15: " y cuarto", 30: " y media", 45: " menos cuarto"}[time.minute]
    elif time.minute:
        said += f" y {cardinal(time.minute)}"
    return said if time.part is None else f"{said} {PARTS[time.part]}"


def price(value: Price) -> str:
    """As "cuarenta y dos dólares con cincuenta centavos"; a euro has céntimos."""
    one, more, hundredth = (
        ("dólar", "dólares", "centavo") if value.currency == "dollar" else ("euro", "euros", "céntimo")
    )
    said = f"{cardinal(value.amount, 'm')} {one if value.amount == 1 else more}"
    if value.cents:
        said += f" con {cardinal(value.cents, 'm')} {hundredth}{'' if value.cents == 1 else 's'}"
    return said


GRAMMAR = Grammar(FRAMES, say)
