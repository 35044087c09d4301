"""`spire-ray …`: runs a command, and says what a person sees of an error: one line, and an exit code."""

import signal
import sys
from collections.abc import Sequence
from types import FrameType

from spire_ray.errors import Interrupted, MachineFault, UserError, one_line
from spire_ray.options import parser

EXIT_FAULT, EXIT_USER, EXIT_INTERRUPTED = 1, 2, 75


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code; errors of the user's or the machine's are printed as one line."""
    options = parser().parse_args(arguments)
    on_sigterm = signal.signal(signal.SIGTERM, _interrupt)
    try:
        # Imported here: Ray, torch and vLLM take seconds that `--help` should not.
        from spire_ray import commands

        code: int | None = getattr(commands, options.command.replace("-", "_"))(options)
        return code or 0
    except UserError as error:
        return _say(f"error: {error}", EXIT_USER)
    except MachineFault as error:
        return _say(f"fault: {error}", EXIT_FAULT)
    except (Interrupted, KeyboardInterrupt) as error:
        return _say(
            f"interrupted: {str(error) or 'stopped at once'}; run the same command again to go on", EXIT_INTERRUPTED
        )
    except OSError as error:
        return _say(f"fault: {error}", EXIT_FAULT)
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)  # the caller's, who may be another program


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted("stopped before a shard was running")


def _say(message: str, code: int) -> int:
    print(f"spire-ray: {one_line(message)}", file=sys.stderr)
    return code
