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

    A driver with nothing to do writes nothing. `state` is running, done, stopped or failed; stages are in their order.
    """

    def __init__(self, store: Store, driver: dict[str, Any]) -> None:
        """`driver`: what is told of it each time: id, command, part, host."""
        self.store = store
        self.driver = driver
        self._stages: dict[str, dict[str, object]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def tell(self, progress: Progress) -> None:
        """How far a stage is. What is put later is a copy of this moment: counting goes on in another thread."""
        stage = {"line": progress.line(), "shards_to_do": progress.shards, **progress.as_dict()}
        self._stages = self._stages | {progress.stage: stage}
        if not self._thread.ident:
            self._thread.start()

    def __enter__(self) -> "Heartbeat":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread.ident:
            self._thread.join()
            stopped = isinstance(error, Interrupted | KeyboardInterrupt)
            self._put("done" if error is None else "stopped" if stopped else "failed")

    def _beat(self) -> None:
        while True:
            self._put("running")
            if self._ended.wait(INTERVAL_S):
                return

    def _put(self, state: str) -> None:
        told = {**self.driver, "state": state, "at": time.time(), "stages": self._stages}
        try:
            self.store.replace(f"heartbeat/{self.driver['id']}.json", json.dumps(told).encode())
        except (OSError, MachineFault, UserError):
            # Storage that fails stops the commits, which say so. A beat that is missing is what a reader looks for.
            return
