import re
import sys
from pathlib import Path

import pytest
from num2words import num2words

sys.path.append(str(Path(__file__).parents[1] / "jobs" / "tiny"))
from grammar import chinese, dutch, english, french, german, italian, korean, portuguese, russian_numbers, spanish
from sentences import LANGUAGES

CARDINALS = {
    "en": english.cardinal,
    "de": german.cardinal,
    "fr": french.cardinal,
    "nl": dutch.cardinal,
    "it": italian.cardinal,
    "es": spanish.cardinal,
    "pt": portuguese.cardinal,
    "ko": korean.sino,
    "ru": russian_numbers.cardinal,
    "zh": chinese.cardinal,
}


# Written by hand, for the numbers where a language is not regular.
@pytest.mark.parametrize(
    ("language", "numbers"),
    [
        ("en", {0: "zero", 12: "twelve", 40: "forty", 115: "one hundred fifteen", 9042: "nine thousand forty-two"}),
        ("de", {1: "eins", 16: "sechzehn", 17: "siebzehn", 21: "einundzwanzig", 30: "dreißig", 71: "einundsiebzig"}),
        (
            "de",
            {101: "einhunderteins", 1021: "eintausendeinundzwanzig", 6667: "sechstausendsechshundertsiebenundsechzig"},
        ),
        ("fr", {21: "vingt et un", 70: "soixante-dix", 71: "soixante et onze", 80: "quatre-vingts"}),
        ("fr", {81: "quatre-vingt-un", 91: "quatre-vingt-onze", 99: "quatre-vingt-dix-neuf", 200: "deux cents"}),
        ("fr", {201: "deux cent un", 1000: "mille", 3000: "trois mille", 1280: "mille deux cent quatre-vingts"}),
        ("nl", {1: "één", 21: "eenentwintig", 22: "tweeëntwintig", 33: "drieëndertig", 80: "tachtig"}),
        ("nl", {101: "honderdeen", 1001: "duizend een", 2322: "tweeduizend driehonderdtweeëntwintig"}),
        ("it", {21: "ventuno", 23: "ventitré", 28: "ventotto", 108: "centotto", 180: "centottanta", 101: "centouno"}),
        ("it", {103: "centotré", 113: "centotredici", 1000: "mille", 2000: "duemila", 2023: "duemilaventitré"}),
        ("es", {16: "dieciséis", 21: "veintiuno", 22: "veintidós", 26: "veintiséis", 31: "treinta y uno"}),
        ("es", {100: "cien", 101: "ciento uno", 500: "quinientos", 700: "setecientos", 1900: "mil novecientos"}),
        ("pt", {14: "catorze", 16: "dezesseis", 21: "vinte e um", 100: "cem", 101: "cento e um", 1100: "mil e cem"}),
        ("pt", {1101: "mil cento e um", 2005: "dois mil e cinco", 1984: "mil novecentos e oitenta e quatro"}),
        (
            "ko",
            {0: "영", 10: "십", 11: "십일", 100: "백", 111: "백십일", 1000: "천", 1984: "천구백팔십사", 6006: "육천육"},
        ),
        ("ru", {0: "ноль", 11: "одиннадцать", 40: "сорок", 90: "девяносто", 200: "двести", 500: "пятьсот"}),
        ("ru", {1000: "тысяча", 2002: "две тысячи два", 4001: "четыре тысячи один", 5600: "пять тысяч шестьсот"}),
        ("zh", {2: "二", 10: "十", 12: "十二", 20: "二十", 101: "一百零一", 110: "一百一十", 112: "一百一十二"}),
        ("zh", {200: "二百", 1000: "一千", 1005: "一千零五", 1050: "一千零五十", 2000: "两千", 2200: "两千二百"}),
    ],
)
def test_numbers_by_hand(language: str, numbers: dict[int, str]) -> None:
    assert {number: CARDINALS[language](number) for number in numbers} == numbers


# num2words where it is right. It writes Dutch thousands without their space and with accents inside words, "mil, " in
# Brazil, "centodicotto" and "centoventitre" in Italian, "одна тысяча" for plain "тысяча"; it has no Chinese.
@pytest.mark.parametrize("language", [code for code in CARDINALS if code != "zh"])
def test_numbers_are_what_num2words_says(language: str) -> None:
    def expected(number: int) -> str:
        text = str(num2words(number, lang={"pt": "pt_BR"}.get(language, language)))
        match language:
            case "en":
                return text.replace(",", "").replace(" and ", " ")
            case "nl":
                spaced = re.sub(r"duizend(?=.)", "duizend ", text)
                return spaced if number == 1 else spaced.replace("éé", "ee")
            case "pt":
                return text.replace(",", "")
            case "it":
                return re.sub("(?<=.)tre$", "tré", text.replace("dicotto", "diciotto"))
            case "ru":
                return text.removeprefix("одна ") if number >= 1000 else text
        return text

    for number in [*range(1200), *range(1200, 10_000, 7)]:
        assert CARDINALS[language](number) == expected(number)


def test_chinese_numbers_are_read_back() -> None:
    def value(text: str) -> int:
        total, digit = 0, 0
        for character in text:
            if character in "十百千":
                total += (digit or 1) * {"十": 10, "百": 100, "千": 1000}[character]
                digit = 0
            else:
                digit = "零一二三四五六七八九".find(character.replace("两", "二"))
        return total + digit

    assert [value(chinese.cardinal(number)) for number in range(10_000)] == list(range(10_000))


@pytest.mark.parametrize(
    ("language", "form", "ordinals"),
    [
        ("en", "ordinal", {1: "first", 12: "twelfth", 20: "twentieth", 33: "thirty-third", 100: "one hundredth"}),
        ("de", "e", {1: "erste", 3: "dritte", 7: "siebte", 8: "achte", 19: "neunzehnte", 20: "zwanzigste"}),
        ("de", "en", {1: "ersten", 31: "einunddreißigsten", 100: "hundertsten"}),
        ("fr", "ordinal", {1: "premier", 5: "cinquième", 9: "neuvième", 21: "vingt et unième", 80: "quatre-vingtième"}),
        ("fr", "ordinal_f", {1: "première", 4: "quatrième", 71: "soixante et onzième", 100: "centième"}),
        ("nl", "ordinal", {1: "eerste", 3: "derde", 8: "achtste", 13: "dertiende", 22: "tweeëntwintigste"}),
        ("it", "il", {1: "il primo", 8: "l'ottavo", 11: "l'undicesimo", 23: "il ventitreesimo", 80: "l'ottantesimo"}),
        ("it", "nella", {1: "nella prima", 8: "nell'ottava", 26: "nella ventiseiesima", 100: "nella centesima"}),
        ("es", "ordinal", {11: "undécimo", 13: "decimotercero", 18: "decimoctavo", 42: "cuadragésimo segundo"}),
        ("es", "ordinal_m", {1: "primer", 2: "segundo", 3: "tercer", 21: "vigésimo primer", 13: "decimotercer"}),
        ("es", "ordinal_f", {1: "primera", 12: "duodécima", 33: "trigésima tercera"}),
        ("pt", "ordinal", {9: "nono", 10: "décimo", 11: "décimo primeiro", 54: "quinquagésimo quarto"}),
        ("pt", "ordinal_f", {12: "décima segunda", 100: "centésima"}),
        ("ko", "nth", {1: "첫", 2: "두", 20: "스무", 21: "스물한", 99: "아흔아홉", 100: "백"}),
        ("ru", "m", {1: "первый", 2: "второй", 3: "третий", 40: "сороковой", 23: "двадцать третий", 100: "сотый"}),
        ("ru", "m_gen", {3: "третьего", 1984: "тысяча девятьсот восемьдесят четвёртого", 2000: "двухтысячного"}),
        (
            "ru",
            "m_gen",
            {1900: "тысяча девятисотого", 2010: "две тысячи десятого", 1840: "тысяча восемьсот сорокового"},
        ),
        ("ru", "f_acc", {3: "третью", 6: "шестую"}),
        ("ru", "m_prep", {3: "третьем", 12: "двенадцатом"}),
    ],
)
def test_ordinals_by_hand(language: str, form: str, ordinals: dict[int, str]) -> None:
    say = english.say if language == "en" else LANGUAGES[language].say
    assert {number: say(number, form) for number in ordinals} == ordinals


# num2words' ordinals where they are right: its Spanish forties begin with "quadr", French 80 is "quatre-vingtsième".
@pytest.mark.parametrize(
    ("language", "form"),
    [("en", "ordinal"), ("de", "e"), ("fr", "ordinal"), ("nl", "ordinal"), ("it", "m"), ("ru", "m")],
)
def test_ordinals_are_what_num2words_says(language: str, form: str) -> None:
    say = english.say if language == "en" else LANGUAGES[language].say
    for number in range(1, 100):
        expected = num2words(number, lang=language, to="ordinal").replace("vingtsième", "vingtième")
        assert say(number, form) == expected
