"""Signs of life in OUT: what each driver is doing now, for `spire-ray show OUT --follow` on any machine."""

import json
import threading
import time
from types import TracebackType
from typing import Any

from spire_ray.errors import Interrupted, MachineFault, UserError
from spire_ray.progress import Progress
from spire_ray.store import Store

INTERVAL_S = 30.0


class Heartbeat:
    """Puts OUT/heartbeat/ID.json every INTERVAL_S from the first stage on, and once more at the end.

    What comes before the first stage is told too once it takes longer than INTERVAL_S. So a driver with nothing to do
    writes nothing, nor does one whose input is refused at once. `state` is running, done, stopped, refused or failed;
    stages are in their order; `doing` is what goes on between them, empty within one.
    """

    def __init__(self, store: Store, driver: dict[str, Any]) -> None:
        """`driver`: what is told of it each time: id, command, part, host."""
        self.store = store
        self.driver = driver
        self._stages: dict[str, dict[str, object]] = {}
        self._doing = ""
        self._written = False
        self._ended = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def tell(self, progress: Progress) -> None:
        """How far a stage is. What is put later is a copy of this moment: counting goes on in another thread."""
        stage = {"line": progress.line(), "shards_to_do": progress.shards, **progress.as_dict()}
        begins = progress.stage not in self._stages
        self._stages = self._stages | {progress.stage: stage}
        self._doing = ""
        self._start()
        if begins:
            self._wake.set()

    def doing(self, line: str) -> None:
        """What is done outside of stages. Call it first when the input has been found good: a beat may follow."""
        self._doing = line
        self._start()

    def _start(self) -> None:
        if not self._thread.ident:
            self._thread.start()

    def __enter__(self) -> "Heartbeat":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._wake.set()
        if self._thread.ident:
            self._thread.join()
        if self._stages or self._written:
            self._put(_state(error))

    def _beat(self) -> None:
        while True:
            self._wake.wait(INTERVAL_S)
            self._wake.clear()
            if self._ended:
                return
            self._put("running")

    def _put(self, state: str) -> None:
        told = {**self.driver, "state": state, "at": time.time(), "doing": self._doing, "stages": self._stages}
        self._written = True
        try:
            self.store.replace(f"heartbeat/{self.driver['id']}.json", json.dumps(told).encode())
        except (OSError, MachineFault, UserError):
            # Storage that fails stops the commits, which say so. A beat that is missing is what a reader looks for.
            return


def _state(error: BaseException | None) -> str:
    if error is None:
        return "done"
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return "stopped"
    return "refused" if isinstance(error, UserError) else "failed"
