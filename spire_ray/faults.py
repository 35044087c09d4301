"""What broke a stage, in one line, from what Ray says of it."""

import re
import sys

from ray.data import DataContext
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import OutOfDiskError

from spire_ray import resources
from spire_ray.errors import MachineFault, UserError

_OURS = re.compile(r"spire_ray\.errors\.(UserError|MachineFault): (.+)")


def fault_behind(error: BaseException) -> Exception:
    """The UserError or MachineFault that a stage raised, else one line about what broke.

    From the text: on its way through Ray an exception keeps its traceback but not its class.
    """
    if found := _OURS.findall(str(error)):
        name, message = found[-1]
        return UserError(message) if name == "UserError" else MachineFault(message)
    if OutOfDiskError.__name__ in f"{type(error).__name__}: {error}":
        folder = resources.ray_folder()
        return MachineFault(f"the disk of {folder}, on this node or another, is full: Ray had to put objects there")
    if isinstance(error, ExecutionTimeoutError):
        minutes = DataContext.get_current().execution_no_progress_timeout_s / 60
        return MachineFault(f"no shard has ended for {minutes:.0f} minutes: `ray status` tells what its actors lack")
    print(error, file=sys.stderr)
    lines = [line for line in str(error).splitlines() if line.strip()]
    return MachineFault(f"a stage failed: {lines[-1].strip() if lines else type(error).__name__}")
