"""The descriptors of packs: those used last stay open, so a process needs few, however many packs a cache has."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Callable

from distill import _native

_MOST = 1024


class Descriptors:
    """The open packs of this process that were used last, by key; safe to use from several threads, and after a fork.

    A file is closed when nothing refers to it any more: never while another thread reads from it.

    At most a quarter of the process's limit on open files stays open, and at most 1024.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[object, _native.PackFile] = OrderedDict()
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        # Reentrant: the garbage collector may call `close` in the middle of another method.
        self._lock = threading.RLock()

    def get(self, key: object, open_file: Callable[[], _native.PackFile]) -> _native.PackFile:
        """Return the open file of `key`; if there is none, call `open_file`.

        Raises
        ------
        OSError
            If `open_file` does. If no descriptor is left, all that are kept here are closed and it is called again.
        """
        with self._lock:
            found = self._open.get(key)
            if found is not None:
                self._open.move_to_end(key)
                return found
        try:
            found = open_file()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._keep(0)
            found = open_file()
        with self._lock:
            self._open[key] = found
        self._keep(_limit())
        return found

    def close(self, key: object) -> None:
        """Forget the open file of `key`, if there is one."""
        with self._lock:
            self._open.pop(key, None)

    def _keep(self, count: int) -> None:
        with self._lock:
            while len(self._open) > count:
                self._open.popitem(last=False)


def _limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else max(1, min(soft // 4, _MOST))


descriptors = Descriptors()
