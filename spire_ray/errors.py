"""The ways a run can end early, and the one way an utterance can: each has one class."""

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\s]+")


def one_line(text: str) -> str:
    """`text` on one line, without what a terminal takes for a command: it may come from a manifest or a model."""
    return _CONTROL.sub(" ", text).strip()


class UserError(Exception):
    """Bad input or settings. The command prints the message as one line and exits 2, having written nothing."""


class MachineFault(Exception):
    """A fault of the machine, not of the data (credentials, missing model, full disk). The run stops: exit code 1."""


class Interrupted(Exception):
    """The run was told to stop; what was running has committed. Exit code 75: run the same command again."""


class RowFault(Exception):
    """One planned item has no value, for a reason from `tables.REASONS`. Becomes the `error` of its row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
