"""What a command does at SIGTERM, which ends a job of a queue, at SIGHUP, when a terminal is closed, and at Ctrl-C."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from distill.cli.process import Terminated


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Raise Terminated, a KeyboardInterrupt, at the first SIGTERM or SIGHUP; ignore further ones.

    A queue may send several, which must not interrupt the saving of what is finished.
    """
    is_ending = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal is_ending
        if number == signal.SIGHUP:
            _leave_terminal()
        if not is_ending:
            is_ending = True
            raise Terminated(number)

    with _handled_by(handle):
        yield


@contextmanager
def cancelled_by_signals(cancel: threading.Event, *, sent_twice: bool = False) -> Iterator[list[int]]:
    """Set `cancel` at the first Ctrl-C, SIGTERM or SIGHUP; raise KeyboardInterrupt at a further Ctrl-C.

    Parameters
    ----------
    cancel : threading.Event
    sent_twice : bool
        Ignore a further Ctrl-C: torchrun repeats the one that the terminal has sent, and kills after 30 s anyway.
        Default: False.

    Yields
    ------
    list of int
        The signals that were received.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and cancel.is_set() and not sent_twice:
            raise KeyboardInterrupt
        if number == signal.SIGHUP:
            _leave_terminal()
        received.append(number)
        cancel.set()

    with _handled_by(handle, signal.SIGINT):
        yield received


@contextmanager
def _handled_by(handle: Callable[[int, FrameType | None], None], *others: int) -> Iterator[None]:
    """Let a function handle SIGTERM, SIGHUP and other signals; afterwards, the handlers are those of before."""
    before = {}
    # Only the main thread can have handlers.
    if threading.current_thread() is threading.main_thread():
        # Signals that are ignored stay so, as under nohup.
        ends = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, handle) for number in (*others, *ends)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_terminal() -> None:
    """Discard further output to a terminal that was closed: writing to it is an error, which could end the work."""
    for stream in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(stream).st_mode):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream)
                os.close(nowhere)
