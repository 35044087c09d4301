"""Russian: nouns and numerals that agree, ordinals declined, "половина восьмого" for half past seven.

Words for numerals are in russian_numbers.py.
"""

from grammar.meaning import Clock, Date, Grammar, Price, Value, words
from grammar.russian_numbers import NOUNS, cardinal, counted, ordinal, people

MONTHS = words("_ января февраля марта апреля мая июня июля августа сентября октября ноября декабря")
PARTS = {"morning": "утра", "afternoon": "дня", "evening": "вечера"}
# Nominative, where to, where, as far as, and where from (cities) or "closed" (landmarks).
PLACES = {
    "berlin": ("Берлин", "в Берлин", "в Берлине", "до Берлина", "из Берлина"),
    "paris": ("Париж", "в Париж", "в Париже", "до Парижа", "из Парижа"),
    "london": ("Лондон", "в Лондон", "в Лондоне", "до Лондона", "из Лондона"),
    "rome": ("Рим", "в Рим", "в Риме", "до Рима", "из Рима"),
    "madrid": ("Мадрид", "в Мадрид", "в Мадриде", "до Мадрида", "из Мадрида"),
    "lisbon": ("Лиссабон", "в Лиссабон", "в Лиссабоне", "до Лиссабона", "из Лиссабона"),
    "amsterdam": ("Амстердам", "в Амстердам", "в Амстердаме", "до Амстердама", "из Амстердама"),
    "vienna": ("Вена", "в Вену", "в Вене", "до Вены", "из Вены"),
    "moscow": ("Москва", "в Москву", "в Москве", "до Москвы", "из Москвы"),
    "seoul": ("Сеул", "в Сеул", "в Сеуле", "до Сеула", "из Сеула"),
    "beijing": ("Пекин", "в Пекин", "в Пекине", "до Пекина", "из Пекина"),
    "tokyo": ("Токио", "в Токио", "в Токио", "до Токио", "из Токио"),
    "new_york": ("Нью-Йорк", "в Нью-Йорк", "в Нью-Йорке", "до Нью-Йорка", "из Нью-Йорка"),
    "barcelona": ("Барселона", "в Барселону", "в Барселоне", "до Барселоны", "из Барселоны"),
    "airport": ("аэропорт", "в аэропорт", "в аэропорту", "до аэропорта", "закрыт"),
    "station": ("вокзал", "на вокзал", "на вокзале", "до вокзала", "закрыт"),
    "museum": ("музей", "в музей", "в музее", "до музея", "закрыт"),
    "hotel": ("отель", "в отель", "в отеле", "до отеля", "закрыт"),
    "hospital": ("больница", "в больницу", "в больнице", "до больницы", "закрыта"),
    "bank": ("банк", "в банк", "в банке", "до банка", "закрыт"),
    "post_office": ("почта", "на почту", "на почте", "до почты", "закрыта"),
    "market": ("рынок", "на рынок", "на рынке", "до рынка", "закрыт"),
    "beach": ("пляж", "на пляж", "на пляже", "до пляжа", "закрыт"),
    "castle": ("замок", "в замок", "в замке", "до замка", "закрыт"),
    "cathedral": ("собор", "в собор", "в соборе", "до собора", "закрыт"),
    "university": ("университет", "в университет", "в университете", "до университета", "закрыт"),
    "pharmacy": ("аптека", "в аптеку", "в аптеке", "до аптеки", "закрыта"),
}
FRAMES = {
    "number": "{k}.",
    "ordinal": "{o:m}.",
    "date": "{d}.",
    "time": "{t}.",
    "price": "{p}.",
    "floor": "Мой номер находится на {o:m_prep} этаже.",
    "street": "Сверните на {o:f_acc} улицу слева.",
    "trip_day": "Сегодня {o:m} день нашей поездки.",
    "chapter": "Я читаю {o:f_acc} главу.",
    "row": "Наши места в {o:m_prep} ряду.",
    "stop": "Выходите, пожалуйста, на {o:f_prep} остановке.",
    "birthday": "Сегодня мой {o:m} день рождения.",
    "today": "Сегодня {d}.",
    "born": "Я родился {d:gen}.",
    "concert": "Концерт состоится {d:gen}.",
    "arrive": "Мы приезжаем {d:gen}.",
    "full": "В отеле нет мест {d:gen}.",
    "holiday": "Мой отпуск начинается {d:gen}.",
    "tickets": "Дайте, пожалуйста, {n:ticket}.",
    "nights": "Мы хотели бы остаться на {n:night}.",
    "table": "Столик на {n:people}, пожалуйста.",
    "bus_in": "Автобус отправляется через {n:minute}.",
    "from_here": "Отсюда {n:kilometer}.",
    "stay": "Я останусь здесь на {n:day}.",
    "journey": "Поездка займёт {n:hour}.",
    "bottles": "Принесите нам, пожалуйста, {n:bottle} воды.",
    "rooms": "Нам {n:need} {n:room}.",
    "stamps": "Дайте мне, пожалуйста, {n:stamp}.",
    "suitcases": "У нас {n:suitcase}.",
    "my_room": "Номер моей комнаты — {k}.",
    "gate": "Пройдите, пожалуйста, к выходу номер {k}.",
    "platform": "Поезд отправляется с платформы номер {k}.",
    "take_bus": "Садитесь на автобус номер {k}.",
    "my_seat": "Номер моего места — {k}.",
    "page": "Откройте, пожалуйста, книгу на странице {k}.",
    "flight": "Рейс номер {k} задерживается.",
    "exit": "Сверните, пожалуйста, на съезд номер {k}.",
    "code": "Код — {k}.",
    "order": "Номер вашего заказа — {k}.",
    "it_is": "Сейчас {t}.",
    "train_at": "Поезд отправляется {t:at}.",
    "wake": "Разбудите меня, пожалуйста, {t:at}.",
    "opens": "Музей открывается {t:at}.",
    "closes": "Банк закрывается {t:at}.",
    "breakfast": "Завтрак начинается {t:at}.",
    "meet_at": "Давайте встретимся {t:at}.",
    "our_flight": "Наш рейс прибывает {t:at}.",
    "taxi_at": "Мне нужно такси {t:at}.",
    "ticket_costs": "Билет стоит {p:acc}.",
    "that_is": "С вас {p}, пожалуйста.",
    "only_have": "У меня только {p}.",
    "per_night": "Номер стоит {p:acc} за ночь.",
    "paid": "Я заплатил за книгу {p:acc}.",
    "dinner": "Ужин стоит {p:acc}.",
    "where": "Где находится {l}?",
    "go_to": "Я хотел бы поехать {x:to}.",
    "how_far": "Как далеко {x:till}?",
    "get_to": "Как мне добраться {x:till}?",
    "closed": "{l} сегодня {l:closed}.",
    "brother": "Мой брат живёт {c:at}.",
    "taxi_to": "Такси {x:till}, пожалуйста.",
    "bus_to": "Этот автобус идёт {x:to}.",
    "waiting": "Я жду {l:at}.",
    "train_to_at": "Поезд {c:to} отправляется {t:at}.",
    "ticket_to_costs": "Билет {c:to} стоит {p:acc}.",
    "tickets_to": "Дайте, пожалуйста, {n:ticket} {c:to}.",
    "flight_from": "Рейс {c:from} прибывает {t:at}.",
    "train_to_platform": "Поезд {c:to} отправляется с платформы номер {k}.",
    "taxi_costs": "Такси {l:till} стоит {p:acc}.",
    "room_costs": "Номер {k} стоит {p:acc}.",
    "kilometers_to": "{x:till} {n:kilometer}.",
    "bus_to_in": "Автобус {x:to} отправляется через {n:minute}.",
}


def say(value: Value, form: str) -> str:
    """The words for a value.

    Forms: of a number "" (the nominative), a key of NOUNS (counted, in the accusative), "people", "need", or a key of
    ENDINGS for its ordinal; of a date "" or "gen"; of a time "" or "at"; of a price "" or "acc"; of a place "", "to",
    "at", "till", "from" or "closed".
    """
    match value:
        case int():
            return _number(value, form)
        case Clock():
            return clock(value, at=form == "at")
        case Date():
            said = f"{ordinal(value.day, 'm_gen' if form else 'n')} {MONTHS[value.month]}"
            return said if value.year is None else f"{said} {ordinal(value.year, 'm_gen')} года"
        case Price():
            return price(value, accusative=form == "acc")
        case str():
            return PLACES[value][{"": 0, "to": 1, "at": 2, "till": 3, "from": 4, "closed": 4}[form]]


def _number(number: int, form: str) -> str:
    if form == "":
        return cardinal(number)
    if form == "people":
        return people(number)
    if form == "need":  # with what follows in the nominative, which for a masculine thing is the accusative
        return "нужен" if number % 10 == 1 and number % 100 != 11 else "нужно"
    return counted(number, NOUNS[form], accusative=True) if form in NOUNS else ordinal(number, form)


def clock(time: Clock, *, at: bool) -> str:
    """As "семь часов сорок одна минута утра", "в половине восьмого", "без четверти восемь"; `at`: when something is."""
    hour, after = time.hour, time.hour % 12 + 1
    if time.quarters and time.minute == 45:
        said = f"без четверти {'час' if after == 1 else cardinal(after)}"
    elif time.quarters:
        begun = {15: "в четверть" if at else "четверть", 30: "в половине" if at else "половина"}[time.minute]
        said = f"{begun} {ordinal(after, 'm_gen')}"
    else:
        said = ("в " if at else "") + ("час" if hour == 1 else counted(hour, NOUNS["hour"]))
        said += f" {counted(time.minute, NOUNS['minute'], accusative=at)}" if time.minute else ""
    return said if time.part is None else f"{said} {PARTS[time.part]}"


def price(value: Price, *, accusative: bool) -> str:
    """As "сорок два доллара пятьдесят центов", in the accusative "тысячу долларов"."""
    said = counted(value.amount, NOUNS[value.currency], accusative=accusative)
    return said + (f" {counted(value.cents, NOUNS['cent'])}" if value.cents else "")


GRAMMAR = Grammar(FRAMES, say)
