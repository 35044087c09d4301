"""HTML and SVG as text: everything that is not markup already is escaped."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: Any) -> Markup:
    """An element with its children in order, but for None.

    Attributes: `_` at the end of a name is dropped and within it is `-`; True is a bare attribute, None and False none.
    """
    told = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        told += f" {attribute}" if value is True else f' {attribute}="{escape(str(value))}"'
    if name in ("meta", "rect", "path", "line"):
        return Markup(f"<{name}{told}/>")
    return Markup(f"<{name}{told}>{joined(*children)}</{name}>")


def joined(*children: object) -> Markup:
    """Markup and escaped text one after the other."""
    kept = (child for child in children if child is not None)
    return Markup("".join(child if isinstance(child, Markup) else escape(str(child)) for child in kept))


def section(title: str, *children: object) -> Markup:
    """A part of the page under its title."""
    return tag("section", tag("h2", title), *children)


def card(title: str, *children: object) -> Markup:
    """A framed part of a section."""
    return tag("div", tag("h3", title), *children, class_="card")


def facts(values: Mapping[str, object]) -> Markup:
    """Names and what they are."""
    return tag("dl", *(joined(tag("dt", name), tag("dd", value)) for name, value in values.items()))


def meter(share: float) -> Markup:
    """A share between 0 and 1 as a bar."""
    drawn = [tag("rect", width=100, height=10), tag("rect", width=f"{100 * share:.2f}", height=10, class_="bar")]
    return tag("svg", *drawn, viewBox="0 0 100 10", preserveAspectRatio="none", class_="meter", aria_hidden="true")


def table(
    names: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[int] = (), none: str = ""
) -> Markup:
    """Rows under `names`; the columns `numbers` are to the right, the first names its row. Without rows: `none`."""
    kind = ["number" if column in numbers else None for column in range(len(names))]
    body = [tag("tr", tag("th", row[0], scope="row"), *map(_cell, row[1:], kind[1:])) for row in rows]
    if not body:
        return tag("p", none, class_="soft")
    head = tag("tr", *(tag("th", name, scope="col", class_=kind[n]) for n, name in enumerate(names)))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="scroll")


def _cell(value: object, kind: str | None) -> Markup:
    return tag("td", value, class_=kind or ("wide" if isinstance(value, Markup) else None))
