"""The owner file of a folder: one writer at a time, on storage whose locks may not reach other machines."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from distill.errors import StorageError
from distill.storage import open_regular

logger = logging.getLogger(__name__)

LEASE_S = 60.0
"""How long an owner may be silent before another process takes over."""
POLL_S = 1.0
"""How often a process that waits looks at the owner file."""
OWNER_NAME = re.compile(r"owner-(?:0|[1-9][0-9]{0,17})\.json")

# The content has a fixed length, so that it is replaced in place by one write, which needs no free space.
_BYTES = 1024
_GONE = (errno.ENOENT, errno.ESTALE)


def owner_files(folder: Path) -> list[Path]:
    """Return the owner files in a folder: none before its first lease, and one afterwards."""
    return [path for path in folder.iterdir() if OWNER_NAME.fullmatch(path.name)]


class Lease:
    """The right to write to a folder, for one process on any machine; it has to be renewed, and can be lost.

    The file owner-N.json names the owner. N, the fencing number, grows by one with each owner: who renames the
    file to the next number is the next owner, and of several that try, one succeeds. The owner before finds its file no
    more. An owner counts as gone if the file says so, if its process ran on this machine and is not there, or if the
    file did not change during a whole lease; who waits measures that time, so clocks need not agree.

    Parameters
    ----------
    folder : Path
        A cache, or a run folder.

    Attributes
    ----------
    is_renewed : bool
        Whether the owner was seen to renew the lease, or another process to become the owner, by `try_acquire`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._renewals = 0
        self._token = os.urandom(16).hex()
        self.is_renewed = False
        self._seen: tuple[int, bytes] | None = None
        self._seen_at = 0.0
        self._ended = threading.Event()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None

    def try_acquire(self) -> bool:
        """Become the owner, if there is none or it is gone. To wait for that, call it again and again.

        Raises
        ------
        OSError
            If the owner file cannot be read or written.
        """
        asked_at = time.monotonic()
        number, content = self._newest()
        if (number, content) != self._seen:
            self.is_renewed = self._seen is not None
            self._seen, self._seen_at = (number, content), time.monotonic()
        is_silent = asked_at - self._seen_at >= LEASE_S
        if not (is_silent or _has_ended(number, content)) or not self._take(number):
            return False
        if is_silent:
            logger.warning("%s: taken over: %s did not respond for %g s", self._folder, self.owner, LEASE_S)
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()
        return True

    @property
    def owner(self) -> str:
        """The process that had the lease when it was last asked for, in words."""
        return _words(self._seen[1]) if self._seen else "another process"

    def _take(self, number: int) -> bool:
        """Rename the owner file to the next number; False if another process was first."""
        path = self._path(number + 1)
        try:
            self._path(number).rename(path)
            self._number = number + 1
            self._write(path)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return False
        # A listing made while another process renames the file may show none, or an old one.
        others = set(self._numbers()) - {self._number}
        is_newest = max(others, default=0) < self._number
        for other in others if is_newest else [self._number]:
            self._path(other).unlink(missing_ok=True)
        return is_newest

    def renew(self) -> None:
        """Make sure that this process is still the owner, and let those who wait know that it is.

        Raises
        ------
        StorageError
            If another process is the owner now.
        OSError
            If the owner file cannot be read or written.
        """
        path = self._path(self._number)
        with self._writing:
            try:
                record = _record(_read(path))
                # Another number is that of a former owner, which was writing when the file was renamed.
                if record.get("token") == self._token or record.get("number") != self._number:
                    self._write(path)
                    return
            except OSError as error:
                if error.errno not in _GONE:
                    raise
        number, content = self._newest()
        now = f"{_words(content)} has taken over" if number > self._number else f"{path.name} is gone or was replaced"
        raise StorageError(
            f"{self._folder}: not written to any more: {now}, while this process was suspended or could not reach the "
            f"storage for {LEASE_S:g} s",
            "wait until the other process has ended, then run the command again; what is finished is used",
        )

    def release(self) -> None:
        """Let the next process have the lease at once. A lease that was lost, or storage that is gone, is no error."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            with suppress(OSError, StorageError):
                self.renew()

    def _keep(self) -> None:
        while not self._ended.wait(LEASE_S / 3):
            try:
                self.renew()
            except StorageError as error:
                logger.warning("%s", error)
                return
            except OSError as error:
                logger.warning("%s: cannot be renewed now: %s", self._path(self._number), error.strerror or error)

    def _path(self, number: int) -> Path:
        return self._folder / f"owner-{number}.json"

    def _numbers(self) -> list[int]:
        return [int(path.stem.removeprefix("owner-")) for path in owner_files(self._folder)]

    def _newest(self) -> tuple[int, bytes]:
        """Return number and content of the owner file. The content is empty if the file was renamed meanwhile."""
        numbers = self._numbers()
        if not numbers:
            with suppress(FileExistsError):
                os.close(open_regular(self._path(0), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        number = max(numbers or self._numbers(), default=0)
        try:
            return number, _read(self._path(number))
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return number, b""

    def _write(self, path: Path) -> None:
        """Replace the content of the owner file, which exists."""
        self._renewals += 1
        record = {
            "number": self._number,
            "state": "free" if self._ended.is_set() else "held",
            "host": os.uname().nodename[:100],
            "pid": os.getpid(),
            "machine": _machine(),
            "token": self._token,
            "renewals": self._renewals,
        }
        descriptor = open_regular(path, os.O_WRONLY)
        try:
            os.pwrite(descriptor, json.dumps(record).encode().ljust(_BYTES - 1) + b"\n", 0)
            os.fsync(descriptor)
        finally:
            # Closed each time: many file systems show what was written to other machines only then.
            os.close(descriptor)


def _read(path: Path) -> bytes:
    descriptor = open_regular(path, os.O_RDONLY)
    try:
        return os.read(descriptor, _BYTES)
    finally:
        os.close(descriptor)


def _record(content: bytes) -> dict[str, Any]:
    """Parse the content of an owner file; what was written in part, or by something else, says nothing."""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _has_ended(number: int, content: bytes) -> bool:
    """Whether the owner file says that its owner has ended, or its process ran on this machine and is not there."""
    record = _record(content)
    if record.get("number") != number:
        # Number 0 had no owner. Any other was just taken, and its owner has not written yet.
        return number == 0
    if record.get("state") == "free":
        return True
    pid = record.get("pid")
    if not isinstance(pid, int) or pid <= 0 or not record.get("machine") or record["machine"] != _machine():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


def _machine() -> str:
    """Return what tells apart machines, and containers that number their processes anew; empty if unknown.

    Host names do not: containers on several machines may share one.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _words(content: bytes) -> str:
    record = _record(content)
    return f"process {record['pid']} on {record['host']}" if {"pid", "host"} <= record.keys() else "another process"
