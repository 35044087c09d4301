import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "jobs" / "tiny"))
from grammar.meaning import Clock, Date, Place, Price, Value
from sentences import LANGUAGES, sentence_of

CODES = ("de", "fr", "nl", "it", "es", "pt", "ko", "ru", "zh")


def said(language: str, value: Value, form: str = "") -> str:
    return LANGUAGES[language].say(value, form)


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        (
            Date(3, 5, 1984),
            {
                "de": "der dritte Mai neunzehnhundertvierundachtzig",
                "fr": "le trois mai mille neuf cent quatre-vingt-quatre",
                "nl": "drie mei negentienhonderdvierentachtig",
                "it": "il tre maggio millenovecentottantaquattro",
                "es": "tres de mayo de mil novecientos ochenta y cuatro",
                "pt": "três de maio de mil novecentos e oitenta e quatro",
                "ko": "천구백팔십사 년 오월 삼 일",
                "ru": "третье мая тысяча девятьсот восемьдесят четвёртого года",
                "zh": "一九八四年五月三日",
            },
        ),
        (
            Date(1, 10, 1900),
            {
                "de": "der erste Oktober neunzehnhundert",
                "fr": "le premier octobre mille neuf cent",
                "nl": "één oktober negentienhonderd",
                "it": "il primo ottobre millenovecento",
                "es": "uno de octubre de mil novecientos",
                "pt": "primeiro de outubro de mil e novecentos",
                "ko": "천구백 년 시월 일 일",
                "ru": "первое октября тысяча девятисотого года",
                "zh": "一九零零年十月一日",
            },
        ),
        (
            Date(11, 6, 2008),
            {
                "de": "der elfte Juni zweitausendacht",
                "fr": "le onze juin deux mille huit",
                "nl": "elf juni tweeduizend acht",
                "it": "l'undici giugno duemilaotto",
                "es": "once de junio de dos mil ocho",
                "pt": "onze de junho de dois mil e oito",
                "ko": "이천팔 년 유월 십일 일",
                "ru": "одиннадцатое июня две тысячи восьмого года",
                "zh": "二零零八年六月十一日",
            },
        ),
    ],
)
def test_dates_by_hand(date: Date, expected: dict[str, str]) -> None:
    assert {language: said(language, date) for language in CODES} == expected


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (
            Clock(7, 30, quarters=True),
            "halb acht, sept heures et demie, half acht, le sette e mezza, las siete y media",
        ),
        (Clock(7, 30, quarters=True), "pt sete e meia, ko 일곱 시 반, ru половина восьмого, zh 七点半"),
        (Clock(12, 45, quarters=True), "Viertel vor eins, une heure moins le quart, kwart voor één"),
        (Clock(12, 45, quarters=True), "l'una meno un quarto, la una menos cuarto, pt quinze para a uma"),
        (Clock(12, 45, quarters=True), "ko 열두 시 사십오 분, ru без четверти час, zh 十二点三刻"),
        (Clock(2, 15, quarters=True), "Viertel nach zwei, deux heures et quart, kwart over twee, le due e un quarto"),
        (Clock(2, 15, quarters=True), "las dos y cuarto, pt duas e quinze, ru четверть третьего, zh 两点一刻"),
        (Clock(1, 0), "ein Uhr, une heure, één uur, l'una, la una, pt uma hora, ko 한 시, ru час, zh 一点"),
        (Clock(7, 5, part="morning"), "sieben Uhr fünf morgens, sept heures cinq du matin, zeven uur vijf 's ochtends"),
        (Clock(7, 5, part="morning"), "le sette e cinque del mattino, las siete y cinco de la mañana"),
        (Clock(7, 5, part="morning"), "pt sete e cinco da manhã, ko 오전 일곱 시 오 분, zh 早上七点零五分"),
        (Clock(8, 21, part="evening"), "huit heures vingt et une du soir, ru восемь часов двадцать одна минута вечера"),
        (Clock(2, 42), "zwei Uhr zweiundvierzig, ru два часа сорок две минуты, zh 两点四十二分, ko 두 시 사십이 분"),
    ],
)
def test_times_by_hand(time: Clock, expected: str) -> None:
    every = {said(language, time) for language in CODES}
    assert {re.sub(r"^(pt|ko|ru|zh) ", "", each) for each in expected.split(", ")} <= every


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        (
            Price(1, 1, "euro"),
            {
                "de": "ein Euro und ein Cent",
                "fr": "un euro et un centime",
                "nl": "één euro en één cent",
                "it": "un euro e un centesimo",
                "es": "un euro con un céntimo",
                "pt": "um euro e um cêntimo",
                "ko": "일 유로 일 센트",
                "ru": "один евро один цент",
                "zh": "一欧元一欧分",
            },
        ),
        (
            Price(21, 2, "dollar"),
            {
                "de": "einundzwanzig Dollar und zwei Cent",
                "fr": "vingt et un dollars et deux cents",
                "nl": "eenentwintig dollar en twee cent",
                "it": "ventuno dollari e due centesimi",
                "es": "veintiún dólares con dos centavos",
                "pt": "vinte e um dólares e dois centavos",
                "ko": "이십일 달러 이 센트",
                "ru": "двадцать один доллар два цента",
                "zh": "二十一美元两美分",
            },
        ),
        (
            Price(1200, 0, "dollar"),
            {
                "de": "eintausendzweihundert Dollar",
                "fr": "mille deux cents dollars",
                "nl": "duizend tweehonderd dollar",
                "it": "milleduecento dollari",
                "es": "mil doscientos dólares",
                "pt": "mil e duzentos dólares",
                "ko": "천이백 달러",
                "ru": "тысяча двести долларов",
                "zh": "一千二百美元",
            },
        ),
    ],
)
def test_prices_by_hand(price: Price, expected: dict[str, str]) -> None:
    assert {language: said(language, price) for language in CODES} == expected


@pytest.mark.parametrize(
    ("language", "key", "values", "expected"),
    [
        ("de", "price", {"p": Price(1, 0, "dollar")}, "Ein Dollar."),
        ("nl", "price", {"p": Price(1, 0, "dollar")}, "Eén dollar."),
        ("de", "ticket_costs", {"p": Price(1, 0, "dollar")}, "Die Fahrkarte kostet einen Dollar."),
        ("ru", "ticket_costs", {"p": Price(1500, 0, "euro")}, "Билет стоит тысячу пятьсот евро."),
        ("es", "that_is", {"p": Price(1, 0, "euro")}, "Es un euro, por favor."),
        ("pt", "that_is", {"p": Price(1, 0, "euro")}, "É um euro, por favor."),
        ("it", "that_is", {"p": Price(2, 0, "euro")}, "Sono due euro, per favore."),
        ("ru", "that_is", {"p": Price(2, 0, "euro")}, "С вас два евро, пожалуйста."),
        ("fr", "bus_in", {"n": 21}, "Le bus part dans vingt et une minutes."),
        ("es", "bus_in", {"n": 21}, "El autobús sale en veintiún minutos."),
        ("ru", "bus_in", {"n": 21}, "Автобус отправляется через двадцать одну минуту."),
        ("pt", "nights", {"n": 22}, "Gostaríamos de ficar vinte e duas noites."),
        ("es", "nights", {"n": 22}, "Nos gustaría quedarnos veintidós noches."),
        ("es", "nights", {"n": 31}, "Nos gustaría quedarnos treinta y una noches."),
        ("ru", "nights", {"n": 31}, "Мы хотели бы остаться на тридцать одну ночь."),
        ("ru", "table", {"n": 3}, "Столик на трёх человек, пожалуйста."),
        ("ko", "table", {"n": 3}, "세 명 자리 부탁합니다."),
        ("ru", "table", {"n": 21}, "Столик на двадцать одного человека, пожалуйста."),
        ("zh", "table", {"n": 2}, "请给我们一张两人的桌子。"),
        ("ru", "table", {"n": 2}, "Столик на двух человек, пожалуйста."),
        ("ko", "tickets", {"n": 20}, "표 스무 장 주세요."),
        ("ru", "tickets", {"n": 20}, "Дайте, пожалуйста, двадцать билетов."),
        ("ru", "rooms", {"n": 31}, "Нам нужен тридцать один номер."),
        ("zh", "rooms", {"n": 31}, "我们需要三十一个房间。"),
        ("fr", "page", {"k": 80}, "Veuillez ouvrir le livre à la page quatre-vingt."),
        ("it", "it_is", {"t": Clock(1, 5)}, "È l'una e cinque."),
        ("es", "it_is", {"t": Clock(1, 5)}, "Es la una y cinco."),
        ("pt", "it_is", {"t": Clock(1, 5)}, "É uma e cinco."),
        ("ru", "it_is", {"t": Clock(1, 1)}, "Сейчас час одна минута."),
        ("fr", "it_is", {"t": Clock(1, 1)}, "Il est une heure une."),
        ("ru", "train_at", {"t": Clock(1, 21)}, "Поезд отправляется в час двадцать одну минуту."),
        ("it", "train_at", {"t": Clock(1, 0)}, "Il treno parte all'una."),
        ("pt", "train_at", {"t": Clock(1, 0)}, "O trem sai à uma hora."),
        ("ru", "train_at", {"t": Clock(7, 30, quarters=True)}, "Поезд отправляется в половине восьмого."),
        ("nl", "time", {"t": Clock(1, 0)}, "Eén uur."),
        ("de", "time", {"t": Clock(1, 0)}, "Ein Uhr."),
        ("es", "time", {"t": Clock(1, 0)}, "La una."),
        ("de", "birthday", {"o": 3}, "Heute ist mein dritter Geburtstag."),
        ("es", "birthday", {"o": 3}, "Hoy es mi tercer cumpleaños."),
        ("ru", "floor", {"o": 3}, "Мой номер находится на третьем этаже."),
        ("it", "floor", {"o": 3}, "La mia camera è al terzo piano."),
        ("de", "get_to", {"x": Place("museum")}, "Wie komme ich zum Museum?"),
        ("pt", "get_to", {"x": Place("museum")}, "Como chego ao museu?"),
        ("nl", "get_to", {"x": Place("museum")}, "Hoe kom ik bij het museum?"),
        ("de", "get_to", {"x": Place("rome")}, "Wie komme ich nach Rom?"),
        ("nl", "get_to", {"x": Place("rome")}, "Hoe kom ik in Rome?"),
        ("ru", "get_to", {"x": Place("rome")}, "Как мне добраться до Рима?"),
        (
            "fr",
            "flight_from",
            {"c": Place("amsterdam"), "t": Clock(2, 0)},
            "Le vol en provenance d'Amsterdam arrive à deux heures.",
        ),
        ("fr", "closed", {"l": Place("beach")}, "La plage est fermée aujourd'hui."),
        ("ko", "closed", {"l": Place("beach")}, "해변은 오늘 문을 닫았습니다."),
        ("ru", "closed", {"l": Place("beach")}, "Пляж сегодня закрыт."),
    ],
)
def test_sentences_by_hand(language: str, key: str, values: dict[str, Value], expected: str) -> None:
    assert sentence_of(key, values).translations[language] == expected
