"""How a command begins and ends, and its output. Imports almost nothing, so that Ctrl-C is handled from the start."""

from __future__ import annotations

import io
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TextIO

from distill.errors import DistillError

# Exit status of a command that a signal ended: this and the number of the signal, as a shell reports it.
_SIGNALLED = 128
# How often an idle thread of torch looks for work before it sleeps. The default of OpenMP, 300 000, keeps a core busy
# for milliseconds: next to another busy program on two cores, training took 2 to 4 times as long. Alone it makes no
# difference.
SPINS = 20_000
_SIGNALS_CHECKED_S = 0.2


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which end the work as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def status_after(number: int) -> int:
    """Return the exit status of a command that a signal ended."""
    return _SIGNALLED + number


def say(text: str, stream: TextIO | TolerantOutput | None = None) -> None:
    """Print a line; characters that the stream cannot encode are escaped.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    stream = stream or sys.stdout
    if stream is None:  # closed before the program started
        return
    print(_encodable(text, getattr(stream, "encoding", None)), file=stream, flush=True)


def _encodable(text: str, encoding: str | None) -> str:
    encoding = encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


class TolerantOutput:
    """A stream whose failure does not end the work that reports to it: a warning, and the rest is dropped.

    Parameters
    ----------
    stream : TextIO or None
        Standard output or standard error.

    Attributes
    ----------
    error : OSError or None
        Why output was dropped, if it was.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write text; characters that the stream cannot encode are escaped."""
        if self._stream is not None and self.error is None:
            try:
                self._stream.write(_encodable(text, self.encoding))
            except OSError as error:
                self._drop(error)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        if self._stream is not None and self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._drop(error)

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def _drop(self, error: OSError) -> None:
        self.error = error
        assert self._stream is not None
        _abandon(self._stream)
        if self._stream is not sys.stderr:
            _say_on_stderr(f"warning: {_output_fault(error)}; the work goes on without it")


def is_terminal(stream: TextIO | TolerantOutput | None) -> bool:
    """Whether a stream is a terminal."""
    return stream is not None and not getattr(stream, "closed", False) and stream.isatty()


def ask(question: str, stream: TextIO | TolerantOutput) -> bool:
    """Ask a question on a terminal; return whether the answer is yes. The end of the input means no."""
    say(f"{question} [y/N]", stream)
    # A signal that comes just before a read is noticed only after it; Ctrl-C would seem to do nothing.
    while not select.select([sys.stdin], [], [], _SIGNALS_CHECKED_S)[0]:
        pass
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def run_command(body: Callable[[], int], spins: int = SPINS) -> int:
    """Run the body of a command, and report errors and Ctrl-C as a message and an exit status.

    Parameters
    ----------
    body : callable
        Returns the exit status.
    spins : int
        How often an idle thread of torch looks for work before it sleeps. Default: `SPINS`.

    Returns
    -------
    int
        What `body` returns, the exit code of its error, or 128 and the number of the signal that ended it: 130 after
        Ctrl-C.
    """
    # torch reads these when it is imported. A setting of the user's has priority.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(spins))
    _prepare_streams()
    status = _status_of(body)
    # What cannot be written now would fail again when Python ends, with a traceback and status 120.
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            status = status or _output_failed(error)
            _abandon(stream)
    return status


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """End the process at Ctrl-C: while modules are imported, some of which turn KeyboardInterrupt into other errors.

    Not in other threads than the main one, and not where Ctrl-C is handled or ignored already.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        _say_on_stderr("interrupted; nothing was begun")
        os._exit(status_after(number))

    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _status_of(body: Callable[[], int]) -> int:
    try:
        return body()
    except DistillError as error:
        _say_on_stderr(f"error: {error}")
        if error.tip:
            _say_on_stderr(f"tip: {error.tip}")
        return error.exit_code
    except KeyboardInterrupt as error:
        _say_on_stderr(f"interrupted; {getattr(error, 'outcome', 'finished work is kept')}")
        return status_after(error.number if isinstance(error, Terminated) else signal.SIGINT)
    except SystemExit as left:  # of tyro, after --help and for options that it cannot parse
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except OSError as error:
        # Commands turn the errors of other files into a DistillError.
        if error.filename is not None:
            _say_on_stderr(f"error: {error.filename}: {error.strerror}")
            return 1
        return _output_failed(error)


def _prepare_streams() -> None:
    """Make output possible whatever the streams are."""
    # A closed descriptor would be given to the next file that is opened, into which a library's messages would go.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _output_failed(error: OSError) -> int:
    """Report that output was lost; in silence if its reader has gone, as in ``distill status DATASET | head -1``."""
    if not isinstance(error, BrokenPipeError):
        _say_on_stderr(f"error: {_output_fault(error)}")
    if sys.stdout is not None:
        _abandon(sys.stdout)
    return 1


def _output_fault(error: OSError) -> str:
    return f"the output cannot be written: {error.strerror or error}"


def _say_on_stderr(text: str) -> None:
    if sys.stderr is None:  # closed: standard output is not for errors
        return
    try:
        say(text, sys.stderr)
    except OSError:
        _abandon(sys.stderr)


def _abandon(stream: TextIO) -> None:
    """Let what a stream still holds, and all that follows, go to nowhere."""
    # A stream that is no file has no descriptor.
    with suppress(OSError):
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
