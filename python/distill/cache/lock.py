"""One writer at a time: an OS lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

_LOCK_NAME = "lock"
_POLL_S = 0.1


class CacheLock:
    """The lock of a cache; use as a context manager.

    Parameters
    ----------
    cache_dir : Path
        The cache.
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
        # Never removed: a lock on a file that was unlinked guards nothing.
        flags = os.O_RDONLY if self._shared else os.O_RDWR | os.O_CREAT
        self._descriptor = os.open(self._path, flags | os.O_CLOEXEC, 0o644)
        with ExitStack() as undo:
            undo.callback(os.close, self._descriptor)
            self._acquire()
            undo.pop_all()
        return self

    def _acquire(self) -> None:
        operation = fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX
        told = False
        while True:
            try:
                fcntl.flock(self._descriptor, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told and self._on_wait:
                    self._on_wait()
                told = True
                # Polled, so that Ctrl-C is answered while waiting.
                time.sleep(_POLL_S)
            else:
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
