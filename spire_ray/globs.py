"""CORPUS as a name: one place, or a glob (`*`, `?`, `[a-z]`, `**`) or braces (`{000..127}`, `{dev,test}`) for many."""

import itertools
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from fsspec.spec import AbstractFileSystem

from spire_ray.errors import UserError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_SPECIAL = re.compile(r"[*?\[{]")
MAX_NAMES = 1_000_000


def places(fs: AbstractFileSystem, path: str, corpus: str) -> tuple[str, list[Mapping[str, Any]]]:
    """The folder that ids are relative to, and fsspec's infos of what `path` names, in the order of names.

    What lies there under the very name is meant by it, whatever signs are in it; then the folder is the place itself,
    or that of a file. Else it is the part before the first sign. UserError when nothing is there.
    """
    path = path.rstrip("/") or "/"
    try:
        info = fs.info(path)
    except FileNotFoundError:
        if not _SPECIAL.search(path):
            raise UserError(f"corpus {corpus} does not exist") from None
    else:
        return (path if info["type"] == "directory" else posixpath.dirname(path)), [info]
    found: dict[str, Mapping[str, Any]] = {}
    for name in braces(path):
        matched = fs.glob(name, detail=True) if _SPECIAL.search(name) else {name: _info(fs, name, corpus)}
        found |= {str(place).rstrip("/"): info for place, info in matched.items()}
    if not found:
        raise UserError(f"corpus {corpus}: nothing there matches")
    root = path[: _SPECIAL.search(path).start()].rpartition("/")[0]  # type: ignore[union-attr]  # or it is no glob
    return root, [found[name] for name in sorted(found)]


def _info(fs: AbstractFileSystem, name: str, corpus: str) -> Mapping[str, Any]:
    try:
        info: Mapping[str, Any] = fs.info(name)
    except FileNotFoundError:
        raise UserError(f"corpus {corpus}: {name} does not exist") from None
    return info


def braces(text: str) -> list[str]:
    """Every name that `text` stands for, as a shell would write them out; braces inside braces are not read."""
    parts: list[list[str]] = []
    for index, part in enumerate(_BRACES.split(text)):
        if index % 2 == 0:
            parts.append([part])
        elif match := _RANGE.fullmatch(part):
            parts.append(_numbers(match[1], match[2]))
        else:
            parts.append(part.split(",") if "," in part else [f"{{{part}}}"])
    count = 1
    for part_names in parts:
        count *= len(part_names)
    if count > MAX_NAMES:
        raise UserError(f"{text} stands for {count} names, at most {MAX_NAMES:,}")
    return ["".join(chosen) for chosen in itertools.product(*parts)]


def _numbers(first: str, last: str) -> list[str]:
    width = max(len(first), len(last)) if "0" in (first[:1], last[:1]) and max(len(first), len(last)) > 1 else 0
    low, high = int(first), int(last)
    if abs(high - low) > MAX_NAMES:
        raise UserError(f"{{{first}..{last}}} stands for more than {MAX_NAMES:,} names")
    step = 1 if low <= high else -1
    return [f"{number:0{width}}" for number in range(low, high + step, step)]
