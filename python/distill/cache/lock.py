"""One writer at a time: an OS lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from distill.storage import open_regular

_LOCK_NAME = "lock"
_POLL_S = 0.1


class CacheLock:
    """The lock of a cache; use as a context manager.

    Parameters
    ----------
    cache_dir : Path
        The cache; made if missing, unless the lock is to be shared.
    on_wait : callable, optional
        Called once if another process holds the lock.
    shared : bool
        Keep writers out, and nobody else. Default: False.

    Raises
    ------
    OSError
        If there is no lock and none can be made.
    """

    def __init__(self, cache_dir: Path, on_wait: Callable[[], None] | None = None, *, shared: bool = False) -> None:
        self._path = cache_dir / _LOCK_NAME
        self._on_wait = on_wait
        self._shared = shared

    def __enter__(self) -> CacheLock:
        self._told = False
        while True:
            self._descriptor = self._open()
            with ExitStack() as undo:
                undo.callback(os.close, self._descriptor)
                self._acquire()
                # We never remove it, but somebody may have removed the whole cache while we waited: a lock on a file
                # that was unlinked guards nothing.
                if self._is_in_place():
                    undo.pop_all()
                    return self

    def _open(self) -> int:
        if self._shared:
            return open_regular(self._path, os.O_RDONLY)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return open_regular(self._path, os.O_RDWR | os.O_CREAT)

    def _is_in_place(self) -> bool:
        try:
            there = self._path.lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._descriptor))

    def _acquire(self) -> None:
        operation = fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX
        while True:
            try:
                fcntl.flock(self._descriptor, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                if not self._told and self._on_wait:
                    self._on_wait()
                self._told = True
                # Polled, so that Ctrl-C is answered while waiting.
                time.sleep(_POLL_S)
            else:
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
