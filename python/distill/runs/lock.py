"""The lock of a run folder: one process at a time writes to a run. It ends with the process that holds it."""

from __future__ import annotations

import fcntl
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distill.errors import RunError
from distill.storage import NO_LOCKS, open_regular

logger = logging.getLogger(__name__)

LOCK_NAME = ".lock"
_held: set[int] = set()


def _close_in_child() -> None:
    """Close the locks in a forked process, which would keep them after the end of the process that holds them."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which must exist. The lock file is there only while the lock is held.

    On a file system that has no locks, a warning is logged and nothing is locked.

    Raises
    ------
    RunError
        If the lock is held already; it names the process.
    OSError
        If the lock file cannot be made.
    """
    path = folder / LOCK_NAME
    descriptor = _acquire(path)
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:  # not in a forked process
            _held.remove(descriptor)
            # Before the lock is released, so that it is not the file of the next holder. One that stays does no harm.
            with suppress(OSError):
                if _is_in_place(path, descriptor):
                    path.unlink()
            os.close(descriptor)


def _acquire(path: Path) -> int:
    """Return the descriptor of the locked file."""
    while True:
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
        try:
            _lock(path, descriptor)
            # Its last holder may have deleted it meanwhile. A lock on a deleted file protects nothing.
            if _is_in_place(path, descriptor):
                # For the error of the next process only, so a full disk does not matter.
                with suppress(OSError):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"{os.getpid()} {platform.node()}\n".encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(path: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunError(
            f"{path}: locked: {_holder(descriptor)} is training or analysing this run",
            "wait until it has ended, or end it and try again",
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        logger.warning(
            "%s: this file system has no locks (%s): do not train or analyse this run twice at the same time",
            path.parent,
            error.strerror,
        )


def _holder(descriptor: int) -> str:
    """Return the process that wrote its name into the lock file, in words."""
    pid, _, host = os.pread(descriptor, 300, 0).decode("utf-8", "replace").strip().partition(" ")
    if not pid.isdigit():
        return "another process"
    return f"process {pid}" if host == platform.node() else f"process {pid} on {host}"


def _is_in_place(path: Path, descriptor: int) -> bool:
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))
