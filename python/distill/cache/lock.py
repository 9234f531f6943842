"""The lock of a cache: an OS lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from distill.storage import NO_LOCKS, open_regular

logger = logging.getLogger(__name__)

_LOCK_NAME = "lock"
_POLL_S = 0.1


class LockedError(Exception):
    """Another process holds the lock."""


class CacheLock:
    """The lock of a cache: one writer at a time. Use as a context manager; entering waits, and logs that it waits.

    On a file system that has no locks, a warning is logged and nothing is locked.

    Parameters
    ----------
    cache_dir : Path
        The cache. Made if missing, unless `shared`.
    shared : bool
        Keep writers out but allow other shared holders. Default: False.
    wait : bool
        Wait for the lock while another process holds it. Default: True.

    Raises
    ------
    LockedError
        If another process holds it, and `wait` is False.
    OSError
        If there is no lock file and none can be made.
    """

    def __init__(self, cache_dir: Path, *, shared: bool = False, wait: bool = True) -> None:
        self._path = cache_dir / _LOCK_NAME
        self._shared, self._waits = shared, wait

    def __enter__(self) -> CacheLock:
        has_logged = False
        while True:
            self._descriptor = self._open()
            with ExitStack() as undo:
                undo.callback(os.close, self._descriptor)
                # Polled rather than blocking, so that Ctrl-C works while waiting.
                while not self._try_acquire():
                    if not self._waits:
                        raise LockedError
                    if not has_logged:
                        logger.info("another process is using this cache: waiting for it")
                        has_logged = True
                    time.sleep(_POLL_S)
                # The whole cache may have been removed while we waited. A lock on an unlinked file protects nothing.
                if self._is_in_place():
                    undo.pop_all()
                    return self

    def _open(self) -> int:
        if self._shared:
            return open_regular(self._path, os.O_RDONLY)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return open_regular(self._path, os.O_RDWR | os.O_CREAT)

    def _try_acquire(self) -> bool:
        operation = fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX
        try:
            fcntl.flock(self._descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            logger.warning(
                "%s: this file system has no locks (%s): do not use this cache from two processes at the same time",
                self._path.parent,
                error.strerror,
            )
        return True

    def _is_in_place(self) -> bool:
        try:
            there = self._path.lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._descriptor))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
