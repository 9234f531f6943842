"""How a command begins and ends. Imports almost nothing, so that Ctrl-C is handled from the first moment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TextIO

from distill.errors import DistillError

INTERRUPTED = 130
# How often an idle thread of torch looks for work before it sleeps. The default of OpenMP, 300 000, keeps a core busy
# for milliseconds: next to another busy program on two cores, training took 2 to 4 times as long. Alone it makes no
# difference.
_SPINS = "20000"


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line; characters that the stream cannot encode are escaped."""
    stream = stream or sys.stdout
    if stream is None:  # closed before the program started
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal."""
    return stream is not None and not stream.closed and stream.isatty()


def ask(question: str, stream: TextIO) -> bool:
    """Ask a question on a terminal; return whether the answer is yes. The end of the input means no."""
    say(f"{question} [y/N]", stream)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def run_command(body: Callable[[], int]) -> int:
    """Run the body of a command, and report errors and Ctrl-C as a message and an exit status.

    Returns
    -------
    int
        What `body` returns, the exit code of its error, or 130 after Ctrl-C.
    """
    # torch reads these when it is imported. A setting of the user's has priority.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    try:
        status = body()
        if sys.stdout is not None:
            sys.stdout.flush()
    except DistillError as error:
        say(f"error: {error}", sys.stderr)
        if error.tip:
            say(f"tip: {error.tip}", sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted; finished work is kept", sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has gone. Without this, Python reports the error again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
