"""The lengths of files, read in threads: most of the time goes into waiting for the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import length_hint
from typing import Protocol

import numpy as np

from distill.audio.decode import estimated_duration_s
from distill.types import ProgressCallback

# Progress is reported once for this many files that the calling thread has read.
_REPORTED_FILES = 16


class HasPath(Protocol):
    """What has the path of a file."""

    @property
    def path(self) -> str:
        """The path."""


def read_lengths(files: Sequence[HasPath], workers: int, progress: ProgressCallback) -> np.ndarray:
    """Return about how long each file is, seconds, [N]; 0 if it cannot be opened.

    Only headers are read. The calling thread works, too, and reports the stage "lengths"; an exception in `progress`
    ends the other threads.
    """
    lengths = np.zeros(len(files))
    numbers = iter(range(len(files)))
    stop = threading.Event()

    def work(count: int) -> bool:
        """Read the lengths of some files; return False if there are none left."""
        for _ in range(count):
            number = None if stop.is_set() else next(numbers, None)
            if number is None:
                return False
            lengths[number] = estimated_duration_s(files[number].path)
        return True

    with _helped(work, min(workers, len(files)) - 1, len(files), stop):
        while work(_REPORTED_FILES):
            progress("lengths", len(files) - length_hint(numbers), len(files))
    if len(files):
        progress("lengths", len(files), len(files))
    return lengths


@contextmanager
def _helped(work: Callable[[int], bool], threads: int, count: int, stop: threading.Event) -> Iterator[None]:
    """Run `work` in other threads, too; raise what ended one of them. After an error all of them stop."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work(count)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failed.append(error)
            stop.set()

    started: list[threading.Thread] = []
    try:
        for number in range(threads):
            thread = threading.Thread(target=run, name=f"lengths-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system starts no more threads: there is less help
                break
            started.append(thread)
        yield
    except BaseException:
        stop.set()
        raise
    finally:
        for thread in started:
            thread.join()
    if failed:
        raise failed[0]
