"""The lock of a run folder: one process at a time writes to a run.

It ends with the process that holds it. Where locks may not reach other machines, the process has a lease as well.
"""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distill.cache import lease, mounts
from distill.errors import RunBusyError
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
def locked(folder: Path) -> Iterator[lease.Lease | None]:
    """Hold the lock of a run folder, which must exist. The lock file is there only while the lock is held.

    Yields
    ------
    Lease or None
        What has to be renewed before anything is written; None if the lock reaches all machines.

    Raises
    ------
    RunBusyError
        If the lock is held already; it names the process.
    OSError
        If the lock file cannot be made.
    """
    path = folder / LOCK_NAME
    descriptor, is_enough = _acquire(path)
    _held.add(descriptor)
    taken = None
    try:
        taken = None if is_enough else _take_lease(path)
        yield taken
    finally:
        if taken is not None and descriptor in _held:
            taken.release()
        if descriptor in _held:  # not in a forked process
            _held.remove(descriptor)
            # Before the lock is released, so that it is not the file of the next holder. One that stays does no harm.
            with suppress(OSError):
                if _is_in_place(path, descriptor):
                    path.unlink()
            os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether a process, this one included, holds the lock of a run folder.

    It may be asked at any time: unlike an attempt to take the lock, it is never in the way of a process that does.
    Where locks do not reach other machines, it tells of processes on this one.
    """
    try:
        descriptor = open_regular(folder / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        # A file that a killed process left, or that is being made: trying the lock could be in the next holder's way.
        if _has_ended(descriptor):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _has_ended(descriptor: int) -> bool:
    """Whether the lock file names no process, or one of this machine that is not there."""
    pid, host = _named(descriptor)
    if not pid.isdigit() or len(pid) > 10:
        return True
    if host != platform.node():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return False


def _take_lease(path: Path) -> lease.Lease:
    taken, has_logged = lease.Lease(path.parent), False
    while not taken.try_acquire():
        if taken.is_renewed:
            raise _held_by(path, taken.owner)
        if not has_logged:
            logger.info("%s: looking for %g s whether %s is still running", path.parent, lease.LEASE_S, taken.owner)
            has_logged = True
        time.sleep(lease.POLL_S)
    return taken


def _held_by(path: Path, owner: str) -> RunBusyError:
    return RunBusyError(
        f"{path}: locked: {owner} is training or analysing this run", "wait until it has ended, or end it and try again"
    )


def _acquire(path: Path) -> tuple[int, bool]:
    """Return the descriptor of the locked file, and whether the lock is known to reach all machines."""
    while True:
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
        try:
            is_enough = _lock(path, descriptor) and mounts.locks_reach_all_machines(descriptor)
            # Its last holder may have deleted it meanwhile. A lock on a deleted file protects nothing.
            if _is_in_place(path, descriptor):
                # For the error of the next process only, so a full disk does not matter.
                with suppress(OSError):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"{os.getpid()} {platform.node()}\n".encode(), 0)
                return descriptor, is_enough
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(path: Path, descriptor: int) -> bool:
    """Lock the file; False if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _held_by(path, _holder(descriptor)) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def _holder(descriptor: int) -> str:
    """Return the process that wrote its name into the lock file, in words."""
    pid, host = _named(descriptor)
    if not pid.isdigit():
        return "another process"
    return f"process {pid}" if host == platform.node() else f"process {pid} on {host}"


def _named(descriptor: int) -> tuple[str, str]:
    """Return process number and host that the lock file names, as text."""
    pid, _, host = os.pread(descriptor, 300, 0).decode("utf-8", "replace").strip().partition(" ")
    return pid, host


def _is_in_place(path: Path, descriptor: int) -> bool:
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))
