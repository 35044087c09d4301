"""Settings that decide values, frozen: their fingerprint, and the refusal of others on the same OUT, field by field."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from spire_ray.errors import UserError
from spire_ray.store import Store

FINGERPRINT = "spire_ray.fingerprint"  # key in the Parquet metadata of a part


def fingerprint(settings: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the settings as canonical JSON: sorted keys, no spaces, UTF-8."""
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def freeze(store: Store, key: str, settings: Mapping[str, Any], recorded: Mapping[str, Any] | None = None) -> str:
    """Put `settings` at `key` (units.json, text.json) unless they lie there; their fingerprint.

    `recorded` is written beside them and not compared: where the weights lay. UserError naming each field, when other
    settings lie there.
    """
    asked = plain(settings)
    mark = fingerprint(asked)
    fields = {"settings": asked, "recorded": dict(recorded or {}), "fingerprint": mark}
    data = json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    try:
        there = store.get(key)  # first: a run that is done, or refused, writes nothing
    except FileNotFoundError:
        if store.create(key, data.encode()):
            return mark
        there = store.get(key)
    refuse_other(store, key, json.loads(there)["settings"], asked)
    return mark


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as JSON gives them back: lists for tuples."""
    loaded: dict[str, Any] = json.loads(json.dumps(dict(settings), allow_nan=False))
    return loaded


def refuse_other(store: Store, key: str, frozen: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """UserError naming each field in which `asked` differs from what is `frozen` at `key`."""
    old, new = _dotted(frozen), _dotted(asked)
    other = [name for name in sorted(old.keys() | new.keys()) if old.get(name, "no value") != new.get(name, "no value")]
    if other:
        was = " and ".join(f"{name} = {old.get(name, 'no value')}" for name in other)
        asks = " and ".join(f"{name} = {new.get(name, 'no value')}" for name in other)
        raise UserError(f"{store.url}/{key} was made with {was}, this run asks for {asks}: use another OUT")


def _dotted(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Each leaf by its dotted name, written as JSON."""
    leaves: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            leaves |= _dotted(value, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return leaves
