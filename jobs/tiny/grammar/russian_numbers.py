"""Russian numerals: cardinals by gender and case, nouns after them, ordinals declined."""

from typing import Literal, NamedTuple

from grammar.meaning import words

SMALL = words(
    "ноль один два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать тринадцать четырнадцать "
    "пятнадцать шестнадцать семнадцать восемнадцать девятнадцать"
)
TENS = words("_ десять двадцать тридцать сорок пятьдесят шестьдесят семьдесят восемьдесят девяносто")
HUNDREDS = words("_ сто двести триста четыреста пятьсот шестьсот семьсот восемьсот девятьсот")
# Ordinals without their endings; третий is declined apart.
STEMS = {
    1: "перв",
    2: "втор",
    4: "четвёрт",
    5: "пят",
    6: "шест",
    7: "седьм",
    8: "восьм",
    9: "девят",
    40: "сороков",
    50: "пятидесят",
    60: "шестидесят",
    70: "семидесят",
    80: "восьмидесят",
    90: "девяност",
    100: "сот",
    200: "двухсот",
    300: "трёхсот",
    400: "четырёхсот",
    500: "пятисот",
    600: "шестисот",
    700: "семисот",
    800: "восьмисот",
    900: "девятисот",
    1000: "тысячн",
    2000: "двухтысячн",
}
STRESSED = (2, 6, 7, 8, 40)  # "второй", not "вторый"
# Gender and case: the ending of an ordinal, and that of третий after its stem "трет".
ENDINGS = {
    "m": ("ый", "ий"),
    "n": ("ое", "ье"),
    "m_gen": ("ого", "ьего"),
    "m_prep": ("ом", "ьем"),
    "f_acc": ("ую", "ью"),
    "f_prep": ("ой", "ьей"),
}


class Noun(NamedTuple):
    """A noun as it stands after 1, in the nominative and the accusative, after 2 to 4, and after 5 and more."""

    gender: Literal["m", "f"]
    one: str
    one_accusative: str
    few: str
    many: str


NOUNS = {
    "ticket": Noun("m", "билет", "билет", "билета", "билетов"),
    "night": Noun("f", "ночь", "ночь", "ночи", "ночей"),
    "minute": Noun("f", "минута", "минуту", "минуты", "минут"),
    "kilometer": Noun("m", "километр", "километр", "километра", "километров"),
    "day": Noun("m", "день", "день", "дня", "дней"),
    "hour": Noun("m", "час", "час", "часа", "часов"),
    "bottle": Noun("f", "бутылка", "бутылку", "бутылки", "бутылок"),
    "room": Noun("m", "номер", "номер", "номера", "номеров"),
    "stamp": Noun("f", "марка", "марку", "марки", "марок"),
    "suitcase": Noun("m", "чемодан", "чемодан", "чемодана", "чемоданов"),
    "dollar": Noun("m", "доллар", "доллар", "доллара", "долларов"),
    "euro": Noun("m", "евро", "евро", "евро", "евро"),
    "cent": Noun("m", "цент", "цент", "цента", "центов"),
}


def cardinal(number: int, gender: Literal["m", "f"] = "m", *, accusative: bool = False) -> str:
    """0 to 9999; 1 and 2 by gender: "одна", in the accusative "одну", and 1000 is then "тысячу"."""
    if number < 20:
        if gender == "f" and number in (1, 2):
            return ("одну" if accusative else "одна") if number == 1 else "две"
        return SMALL[number]
    if number < 1000:
        head, rest = divmod(number, 10 if number < 100 else 100)
        said = (TENS if number < 100 else HUNDREDS)[head]
    else:
        head, rest = divmod(number, 1000)
        said = {1: "тысячу" if accusative else "тысяча", 2: "две тысячи", 3: "три тысячи", 4: "четыре тысячи"}.get(
            head, f"{SMALL[head]} тысяч"
        )
    return said + (f" {cardinal(rest, gender, accusative=accusative)}" if rest else "")


def counted(number: int, noun: Noun, *, accusative: bool = False) -> str:
    """A number of things that are not alive: "двадцать одна минута", "две минуты", "пять минут"."""
    said = cardinal(number, noun.gender, accusative=accusative)
    last = 0 if number % 100 in range(11, 20) else number % 10
    if last == 1:
        return f"{said} {noun.one_accusative if accusative else noun.one}"
    return f"{said} {noun.few if last in (2, 3, 4) else noun.many}"


def people(number: int) -> str:
    """2 to 99 people in the accusative: "двух человек", "пять человек", "двадцать одного", "двадцать два человека"."""
    if number in (2, 3, 4):
        return f"{('двух', 'трёх', 'четырёх')[number - 2]} человек"
    last = 0 if number % 100 in range(11, 20) else number % 10
    if last == 1:
        return f"{cardinal(number - 1)} одного человека"
    return f"{cardinal(number)} {'человека' if last in (2, 3, 4) else 'человек'}"


def ordinal(number: int, form: str) -> str:
    """1 to 2099 in a gender and case of ENDINGS; only the last word is declined: "две тысячи пятого"."""
    # The part that is declined: 5 of 2005, 80 of 1980, 900 of 1900.
    last = (
        number % 100
        if 0 < number % 100 < 20
        else next(number % size for size in (10, 100, 1000, 9999) if number % size)
    )
    head = f"{cardinal(number - last)} " if number > last else ""
    hard, soft = ENDINGS[form]
    if last == 3:
        return f"{head}трет{soft}"
    stem = STEMS[last] if last in STEMS else cardinal(last)[:-1]  # двенадцат, двадцат
    return head + stem + ("ой" if form == "m" and last in STRESSED else hard)
