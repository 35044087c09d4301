"""`spire-ray show OUT --follow`: the progress of a run, from any machine that reaches OUT."""

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from spire_ray.errors import Interrupted, MachineFault, UserError
from spire_ray.heartbeat import INTERVAL_S
from spire_ray.progress import clock, show_line
from spire_ray.records import load_json
from spire_ray.store import Store

LOOK_EVERY_S = 5.0
SILENT_S = 10 * INTERVAL_S  # a driver that has not been heard of for so long is taken for dead


def follow(store: Store, stream: TextIO = sys.stderr, look_every_s: float = LOOK_EVERY_S) -> None:
    """Show what the drivers at work in OUT do until none of them runs any more, or how the last ones ended.

    UserError when none has told anything or one refused its input; MachineFault when one stopped on a fault or fell
    silent; Interrupted when one was stopped. Of a part's drivers the last counts: a killed one was started again.
    """
    shown: dict[str, str] = {}
    while True:
        drivers = _drivers(store)
        if not drivers:
            raise UserError(f"no driver has worked in {store.url}, or not for long enough to have told")
        for driver in drivers:
            line = _line(driver)
            if shown.get(driver["id"]) != line:
                shown[driver["id"]] = line
                show_line(stream, line, last=len(drivers) > 1 or not _alive(driver))
        if not any(_alive(driver) for driver in drivers):
            return _check(drivers)
        time.sleep(look_every_s)


def _drivers(store: Store) -> list[dict[str, Any]]:
    """The last of each part, of as many parts as there were last; ids begin with the time."""
    told = (load_json(store, f"heartbeat/{name}") for name in store.find("heartbeat"))
    found = [driver for driver in told if driver]
    parts = [driver["part"].partition("/")[2] for driver in found]
    return list({driver["part"]: driver for driver, of in zip(found, parts, strict=True) if of == parts[-1]}.values())


def _alive(driver: Mapping[str, Any]) -> bool:
    return bool(driver["state"] == "running" and time.time() - driver["at"] < SILENT_S)


def _line(driver: Mapping[str, Any]) -> str:
    stages = list(driver["stages"].values())
    line = driver.get("doing") or (stages[-1]["line"] if stages else "starting")
    state = "" if driver["state"] == "running" else f" | {driver['state']}"
    silent = time.time() - driver["at"]
    if driver["state"] == "running" and silent > 3 * INTERVAL_S:
        state = f" | silent for {clock(silent)}"
    part = "" if driver["part"] == "1/1" else f" part {driver['part']}"
    return f"{driver['host']}{part}  {line}{state}"


def _check(drivers: Iterable[Mapping[str, Any]]) -> None:
    """Raise the worst that a driver ended with."""
    by_state = {driver["state"]: driver for driver in drivers}
    if driver := by_state.get("refused"):
        raise UserError(f"the driver on {driver['host']} refused its input: its log says why")
    if driver := by_state.get("failed"):
        raise MachineFault(f"the driver on {driver['host']} stopped on a fault: its log says which")
    if driver := by_state.get("running"):
        silent = clock(time.time() - driver["at"])
        raise MachineFault(f"the driver on {driver['host']} was last heard of {silent} ago: run its command again")
    if driver := by_state.get("stopped"):
        raise Interrupted(f"{driver['command']} on {driver['host']} was stopped")
