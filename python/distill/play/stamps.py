"""What was read from the files of a run, kept as long as the files are the same."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


def stamp_of(path: Path) -> str | None:
    """Return what changes when a file is replaced: its time, size and inode; None if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


class KeptByStamp(Generic[T]):
    """A function of a run folder whose result is kept until one of the files changes that it is read from.

    Parameters
    ----------
    read : callable
        Takes the run folder.
    files : sequence of str
        The files, relative to the run folder.
    most : int
        For how many runs results are kept.
    """

    def __init__(self, read: Callable[[Path], T], files: tuple[str, ...], most: int) -> None:
        self._read, self._files, self._most = read, files, most
        self._kept: OrderedDict[str, tuple[tuple[str | None, ...], T]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, run_dir: Path) -> T:
        """Return the result for a run folder; what `read` raises is not kept."""
        key = os.path.abspath(run_dir)
        # Before reading: if a file is replaced meanwhile, the result is read again the next time.
        stamps = tuple(stamp_of(run_dir / name) for name in self._files)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and kept[0] == stamps:
                self._kept.move_to_end(key)
                return kept[1]
        value = self._read(run_dir)
        with self._lock:
            self._kept[key] = (stamps, value)
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return value
