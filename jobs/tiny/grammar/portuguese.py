"""Portuguese of Brazil: "e" between the parts of a number, um and uma, hours with "às", dates with "no dia"."""

from grammar.meaning import Clock, Date, Grammar, Price, Value, words

SMALL = words(
    "zero um dois três quatro cinco seis sete oito nove dez onze doze treze catorze quinze dezesseis dezessete dezoito "
    "dezenove"
)
TENS = words("_ dez vinte trinta quarenta cinquenta sessenta setenta oitenta noventa")
HUNDREDS = words("_ cento duzentos trezentos quatrocentos quinhentos seiscentos setecentos oitocentos novecentos")
ORDINALS = words("_ primeiro segundo terceiro quarto quinto sexto sétimo oitavo nono")
TENTHS = words("_ décimo vigésimo trigésimo quadragésimo quinquagésimo sexagésimo septuagésimo octogésimo nonagésimo")
MONTHS = words("_ janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro")
PARTS = {"morning": "da manhã", "afternoon": "da tarde", "evening": "da noite"}
CITIES = {
    "berlin": "Berlim",
    "paris": "Paris",
    "london": "Londres",
    "rome": "Roma",
    "madrid": "Madri",
    "lisbon": "Lisboa",
    "amsterdam": "Amsterdã",
    "vienna": "Viena",
    "moscow": "Moscou",
    "seoul": "Seul",
    "beijing": "Pequim",
    "tokyo": "Tóquio",
    "new_york": "Nova York",
    "barcelona": "Barcelona",
}
# The gender and the noun.
LANDMARKS = {
    "airport": ("o", "aeroporto"),
    "station": ("a", "estação de trem"),
    "museum": ("o", "museu"),
    "hotel": ("o", "hotel"),
    "hospital": ("o", "hospital"),
    "bank": ("o", "banco"),
    "post_office": ("a", "agência dos correios"),
    "market": ("o", "mercado"),
    "beach": ("a", "praia"),
    "castle": ("o", "castelo"),
    "cathedral": ("a", "catedral"),
    "university": ("a", "universidade"),
    "pharmacy": ("a", "farmácia"),
}
FRAMES = {
    "number": "{k}.",
    "ordinal": "O {o:ordinal}.",
    "date": "{d}.",
    "time": "{t}.",
    "price": "{p}.",
    "floor": "Meu quarto fica no {o:ordinal} andar.",
    "street": "Pegue a {o:ordinal_f} rua à esquerda.",
    "trip_day": "Hoje é o {o:ordinal} dia da nossa viagem.",
    "chapter": "Estou lendo o {o:ordinal} capítulo.",
    "row": "Nossos lugares ficam na {o:ordinal_f} fileira.",
    "stop": "Por favor, desça na {o:ordinal_f} parada.",
    "birthday": "Hoje é meu {o:ordinal} aniversário.",
    "today": "Hoje é {d}.",
    "born": "Nasci no dia {d}.",
    "concert": "O concerto é no dia {d}.",
    "arrive": "Chegamos no dia {d}.",
    "full": "O hotel está lotado no dia {d}.",
    "holiday": "Minhas férias começam no dia {d}.",
    "tickets": "Eu gostaria de {n:f} passagens, por favor.",
    "nights": "Gostaríamos de ficar {n:f} noites.",
    "table": "Uma mesa para {n:f} pessoas, por favor.",
    "bus_in": "O ônibus sai em {n} minutos.",
    "from_here": "Fica a {n} quilômetros daqui.",
    "stay": "Vou ficar aqui por {n} dias.",
    "journey": "A viagem dura {n:f} horas.",
    "bottles": "Por favor, traga-nos {n:f} garrafas de água.",
    "rooms": "Precisamos de {n} quartos.",
    "stamps": "Preciso de {n} selos.",
    "suitcases": "Temos {n:f} malas.",
    "my_room": "O número do meu quarto é {k}.",
    "gate": "Por favor, dirija-se ao portão {k}.",
    "platform": "O trem sai da plataforma {k}.",
    "take_bus": "Pegue o ônibus número {k}.",
    "my_seat": "O número do meu assento é {k}.",
    "page": "Por favor, abra o livro na página {k}.",
    "flight": "O voo {k} está atrasado.",
    "exit": "Por favor, pegue a saída {k}.",
    "code": "O código é {k}.",
    "order": "O número do seu pedido é {k}.",
    "it_is": "{t:is}.",
    "train_at": "O trem sai {t:at}.",
    "wake": "Por favor, me acorde {t:at}.",
    "opens": "O museu abre {t:at}.",
    "closes": "O banco fecha {t:at}.",
    "breakfast": "O café da manhã começa {t:at}.",
    "meet_at": "Vamos nos encontrar {t:at}.",
    "our_flight": "Nosso voo chega {t:at}.",
    "taxi_at": "Preciso de um táxi {t:at}.",
    "ticket_costs": "A passagem custa {p}.",
    "that_is": "{p:is}, por favor.",
    "only_have": "Eu só tenho {p}.",
    "per_night": "O quarto custa {p} por noite.",
    "paid": "Paguei {p} pelo livro.",
    "dinner": "O jantar custa {p}.",
    "where": "Onde fica {l}?",
    "go_to": "Eu gostaria de ir para {x}.",
    "how_far": "Qual é a distância até {x}?",
    "get_to": "Como chego {x:to}?",
    "closed": "{l} está {l:closed} hoje.",
    "brother": "Meu irmão mora em {c}.",
    "taxi_to": "Um táxi para {x}, por favor.",
    "bus_to": "Este ônibus vai para {x}.",
    "waiting": "Estou esperando {l:at}.",
    "train_to_at": "O trem para {c} sai {t:at}.",
    "ticket_to_costs": "Uma passagem para {c} custa {p}.",
    "tickets_to": "Eu gostaria de {n:f} passagens para {c}, por favor.",
    "flight_from": "O voo de {c} chega {t:at}.",
    "train_to_platform": "O trem para {c} sai da plataforma {k}.",
    "taxi_costs": "Um táxi para {l} custa {p}.",
    "room_costs": "O quarto {k} custa {p}.",
    "kilometers_to": "São {n} quilômetros até {x}.",
    "bus_to_in": "O ônibus para {x} sai em {n} minutos.",
}


def say(value: Value, form: str) -> str:
    """The words for a value.

    Forms: of a number "" (before a masculine noun too), "f" before a feminine one, "ordinal", "ordinal_f"; of a time
    "", "at" or "is"; of a price "" or "is"; of a place "", "to", "at" or "closed".
    """
    match value:
        case int():
            return ordinal(value, form) if form.startswith("ordinal") else cardinal(value, form)
        case Clock():
            return clock(value, form)
        case Date():
            day = "primeiro" if value.day == 1 else cardinal(value.day)
            said = f"{day} de {MONTHS[value.month]}"
            return said if value.year is None else f"{said} de {cardinal(value.year)}"
        case Price():
            return ("" if not form else "é " if value.amount == 1 else "são ") + price(value)
        case str():
            return place(value, form)


def place(key: str, form: str) -> str:
    """As "o museu", "ao museu", "no museu", and "fechado" in its gender."""
    if key in CITIES:
        return ("a " if form == "to" else "") + CITIES[key]
    gender, noun = LANDMARKS[key]
    if form == "closed":
        return f"fechad{gender}"
    article = {"": gender, "to": "ao" if gender == "o" else "à", "at": f"n{gender}"}[form]
    return f"{article} {noun}"


def cardinal(number: int, form: str = "") -> str:
    """0 to 9999; `form` "f" before a feminine noun: "vinte e duas", "duzentas e uma"."""
    said = _plain(number)
    if form != "f":
        return said
    said = " ".join({"um": "uma", "dois": "duas"}.get(word, word) for word in said.split())
    return said.replace("entos", "entas")


def _plain(number: int) -> str:
    if number < 20:
        return SMALL[number]
    if number == 100:
        return "cem"
    if number < 1000:
        tables, size = (TENS, 10) if number < 100 else (HUNDREDS, 100)
        head, rest = divmod(number, size)
        return tables[head] + (f" e {_plain(rest)}" if rest else "")
    thousands, rest = divmod(number, 1000)
    said = "mil" if thousands == 1 else f"{SMALL[thousands]} mil"
    if rest == 0:
        return said
    # "mil e cem", "mil e um", but "mil cento e um".
    return f"{said} {'e ' if rest < 100 or rest % 100 == 0 else ''}{_plain(rest)}"


def ordinal(number: int, form: str) -> str:
    """1 to 100: "vigésimo terceiro", "vigésima terceira"."""
    tens, ones = divmod(number, 10)
    if number == 100:
        said = "centésimo"
    else:
        said = " ".join(word for word in (TENTHS[tens] if tens else "", ORDINALS[ones] if ones else "") if word)
    return " ".join(f"{word[:-1]}a" for word in said.split()) if form == "ordinal_f" else said


def clock(time: Clock, form: str) -> str:
    """As "sete e meia", "à uma e cinco da tarde", "são quinze para as oito"."""
    hour, after = cardinal(time.hour, "f"), cardinal(time.hour % 12 + 1, "f")
    if time.quarters and time.minute == 45:
        said = f"quinze para {'a' if after == 'uma' else 'as'} {after}"
    elif time.minute:
        said = f"{hour} e {'meia' if time.quarters and time.minute == 30 else cardinal(time.minute)}"
    else:
        said = f"{hour} hora{'' if time.hour == 1 else 's'}"
    one = said.startswith("uma ")
    said = {"": "", "at": "à " if one else "às ", "is": "é " if one else "são "}[form] + said
    return said if time.part is None else f"{said} {PARTS[time.part]}"


def price(value: Price) -> str:
    """As "quarenta e dois dólares e cinquenta centavos"; a euro has cêntimos."""
    one, more, hundredth = (
        ("dólar", "dólares", "centavo") if value.currency == "dollar" else ("euro", "euros", "cêntimo")
    )
    said = f"{cardinal(value.amount)} {one if value.amount == 1 else more}"
    if value.cents:
        said += f" e {cardinal(value.cents)} {hundredth}{'' if value.cents == 1 else 's'}"
    return said


GRAMMAR = Grammar(FRAMES, say)
