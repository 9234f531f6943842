"""The lock of a cache: an OS lock that ends with the process that holds it, and a lease where that is not enough."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from distill.cache import lease, mounts
from distill.storage import NO_LOCKS, open_regular, sync_folder

logger = logging.getLogger(__name__)

_LOCK_NAME = "lock"
_POLL_S = 0.1
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class LockedError(Exception):
    """Another process holds the lock."""


class CacheLock:
    """The lock of a cache: one writer at a time. Use as a context manager; entering waits, and logs that it waits.

    On a file system that has no locks, or whose locks may not reach other machines, the holder has a `Lease` as well.

    Parameters
    ----------
    cache_dir : Path
        The cache. Made if missing, unless `shared`.
    shared : bool
        Keep writers out but allow other shared holders on this machine. Default: False.
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
        self._has_logged = False

    def __enter__(self) -> CacheLock:
        while True:
            self._descriptor = self._open()
            with ExitStack() as undo:
                undo.callback(os.close, self._descriptor)
                self._reaches_all = mounts.locks_reach_all_machines(self._descriptor)
                self._wait(self._try_acquire, _POLL_S, lambda: "another process")
                self._lease = None if self._reaches_all else self._take_lease(undo)
                # The whole cache may have been removed while we waited. A lock on an unlinked file protects nothing.
                if self._is_in_place():
                    self._held = undo.pop_all()
                    return self

    def check(self) -> None:
        """Make sure that this process may still write to the cache.

        Raises
        ------
        StorageError
            If another process has taken over, because this one did not renew its lease.
        OSError
            If that cannot be found out.
        """
        if self._lease is not None:
            self._lease.renew()

    @contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """Replace a file of the cache, unless another process has taken over by the time that the new one is written.

        Yields
        ------
        Path
            Where to write the new file.

        Raises
        ------
        StorageError, OSError
            See `check`. The old file is then in place.
        """
        if self._lease is None:
            yield path
            return
        new = path.with_name(f".distill-{secrets.token_hex(8)}.tmp")
        try:
            yield new
            # To write a large file may take longer than a lease.
            self.check()
            new.replace(path)
        except BaseException:
            with suppress(OSError):
                new.unlink()
            raise
        sync_folder(path.parent)

    def _wait(self, try_acquire: Callable[[], bool], poll_s: float, owner: Callable[[], str]) -> None:
        # Polled rather than blocking, so that Ctrl-C works while waiting.
        while not try_acquire():
            if not self._waits:
                raise LockedError
            if not self._has_logged:
                logger.info("%s is using this cache: waiting for it", owner())
                self._has_logged = True
            time.sleep(poll_s)

    def _take_lease(self, undo: ExitStack) -> lease.Lease | None:
        taken = lease.Lease(self._path.parent)
        try:
            self._wait(taken.try_acquire, lease.POLL_S, lambda: taken.owner)
        except FileNotFoundError:
            return None  # The cache was removed.
        except OSError as error:
            if not self._shared or error.errno not in _READ_ONLY:
                raise
            logger.warning(
                "%s: read-only, and its file system may not lock it for other machines: nothing may write to it there",
                self._path.parent,
            )
            return None
        undo.callback(taken.release)
        return taken

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
            self._reaches_all = False
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
        self._held.close()
