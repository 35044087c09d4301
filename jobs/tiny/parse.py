"""From an English sentence of the domain to its translations: the inverse of `sentences.draw`."""

import re
from functools import cache

from frames import CITIES, LANDMARKS
from grammar import english
from grammar.meaning import Clock, Date, Part, Price, Value
from sentences import SLOT, Sentence, sentence_of

_PARTS: list[Part | None] = [None, "morning", "afternoon", "evening"]


def parse(text: str) -> Sentence:
    """The sentence of the domain that is written `text`, with its translations. ValueError for any other text."""
    for key, pattern in _patterns().items():
        match = pattern.fullmatch(text)
        values = {name: _value(name, said) for name, said in match.groupdict().items()} if match else {}
        known = {name: value for name, value in values.items() if value is not None}
        if match and len(known) == len(values):
            return sentence_of(key, known)
    raise ValueError(f"{text!r} is no sentence of the domain")


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    found = {}
    for key, template in english.FRAMES.items():
        texts, names = SLOT.split(template)[::3], SLOT.split(template)[1::3]
        slots = [f"(?P<{name}>.+)" for name in names]
        found[key] = re.compile("".join(map("".join, zip(map(re.escape, texts), [*slots, ""], strict=True))))
    return found


def _value(name: str, said: str) -> Value | None:
    """What the words in slot `name` mean; at the start of a sentence they have a capital."""
    read = {"d": _date, "p": _price}.get(name)
    for each in (said, said[0].lower() + said[1:]):
        value = read(each) if read else _table("k" if name == "n" else name).get(each)
        if value is not None:
            return value
    return None


@cache
def _table(name: str) -> dict[str, Value]:
    """Every value slot `name` can have, by its English."""
    if name == "k":
        return {english.cardinal(number): number for number in range(10_000)}
    if name == "o":
        return {english.ordinal(number): number for number in range(1, 101)}
    if name == "t":
        clocks = [Clock(hour, minute, part=part) for hour in range(1, 13) for minute in range(60) for part in _PARTS]
        clocks += [Clock(each.hour, each.minute, True, each.part) for each in clocks if each.minute in (15, 30, 45)]
        return {english.clock(each): each for each in clocks}
    places = {"c": CITIES, "l": LANDMARKS, "x": CITIES + LANDMARKS}[name]
    return {english.PLACES[each]: each for each in places}


@cache
def _years() -> dict[str | None, int | None]:
    return {None: None} | {english.year(number): number for number in range(1100, 2100)}


def _date(said: str) -> Date | None:
    match = re.fullmatch(r"the (\S+) of (\w+)(?: (.+))?", said)
    if match is None or match[2] not in english.MONTHS or match[3] not in _years():
        return None
    day = _table("o").get(match[1])
    return Date(day, english.MONTHS.index(match[2]), _years()[match[3]]) if isinstance(day, int) else None


def _price(said: str) -> Price | None:
    match = re.fullmatch(r"(.+?) (dollar|euro)s?(?: and (.+) cents?)?", said)
    if match is None:
        return None
    amount, cents = _table("k").get(match[1]), _table("k").get(match[3]) if match[3] else 0
    if not isinstance(amount, int) or not isinstance(cents, int):
        return None
    return Price(amount, cents, "dollar" if match[2] == "dollar" else "euro")
