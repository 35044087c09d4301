"""What can be said in spire-tiny's domain, apart from any language: numbers, dates, clock times, prices and places."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NewType

Place = NewType("Place", str)  # a key of every language's table of places
Part = Literal["morning", "afternoon", "evening"]
Currency = Literal["dollar", "euro"]


@dataclass(frozen=True)
class Clock:
    """A time of day on a twelve-hour clock."""

    hour: int  # 1 to 12
    minute: int  # 0 to 59
    quarters: bool = False  # said as "half past", "quarter past" or "quarter to"; minute is then 15, 30 or 45
    part: Part | None = None


@dataclass(frozen=True)
class Date:
    """A day of a year, or of any year."""

    day: int  # 1 to 31
    month: int  # 1 to 12
    year: int | None = None


@dataclass(frozen=True)
class Price:
    """So many of a currency, and perhaps its hundredths."""

    amount: int  # 1 to 9999
    cents: int  # 0 to 99; 0 is not said
    currency: Currency


def words(text: str) -> list[str]:
    """A table of words, written as a line."""
    return text.split()


def capitalised(text: str) -> str:
    """`text` with its first letter as a capital."""
    return text[0].upper() + text[1:]


Value = int | Clock | Date | Price | Place


@dataclass(frozen=True)
class Grammar:
    """One language of the domain.

    frames: a sentence for each key of `frames.FRAMES`, with slots `{name}` or `{name:form}`.
    say: the words for a value in a form. Forms are the language's own: a case, a gender, a counted noun.
    begin: how a sentence begins.
    """

    frames: Mapping[str, str]
    say: Callable[[Value, str], str]
    begin: Callable[[str], str] = capitalised
