"""How a command begins and ends. Imports next to nothing, so that Ctrl-C is answered from the first moment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TextIO

from distill.errors import DistillError

INTERRUPTED = 130
# How often torch's threads look for work before they sleep. Its own 300 000 are milliseconds that a thread of another
# program waits for: beside a busy program, training on two cores took 2 to 4 times as long. Alone it takes as long.
_SPINS = "20000"


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line; names that are not valid Unicode are shown escaped."""
    stream = stream or sys.stdout
    if stream is None:  # closed before we began
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def run_command(command: Callable[[], int]) -> int:
    """Run a command's body, and turn what ends it early into a message and an exit status.

    Returns
    -------
    int
        What `command` returns; that of the error; 130 after Ctrl-C.
    """
    # Read when torch is imported; what the user says of it holds.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    try:
        status = command()
        if sys.stdout is not None:
            sys.stdout.flush()
    except DistillError as error:
        say_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted; what was finished is kept", sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left. Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def say_error(error: DistillError) -> None:
    """Print an error and its remedy to standard error."""
    say(f"error: {error}", sys.stderr)
    if error.tip:
        say(f"tip: {error.tip}", sys.stderr)
