"""The samples of a decoded file, kept until its levels are known: in memory up to a bound, then in a temporary file."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path

import numpy as np

from distill.availability import remedy
from distill.errors import StorageError

logger = logging.getLogger(__name__)

MEMORY_BYTES = 512 << 20
"""What all spools of the process hold in memory together, at most."""

_PIECE_BYTES = 1 << 20
_CHECKED_BYTES = 64 << 20
# A spool ends when the disk has less room left than this many times its size, so that the features have room.
_SHARE_LEFT = 3


class _Memory:
    """How much memory the spools of the process hold."""

    def __init__(self) -> None:
        self._lock, self._held = threading.Lock(), 0

    def take(self, size: int) -> bool:
        """Take memory, if there is any left."""
        with self._lock:
            has_room = self._held + size <= MEMORY_BYTES
            self._held += size if has_room else 0
            return has_room

    def give_back(self, size: int) -> None:
        with self._lock:
            self._held -= size


_memory = _Memory()


class Spool:
    """Keeps blocks of samples. Iterating yields them in order, once, and frees them.

    Parameters
    ----------
    folder : Path, optional
        Where the temporary file is made; it has no name, so it is gone when the process ends. Default: None, memory
        only.

    Attributes
    ----------
    is_complete : bool
        Whether all blocks were kept. If not, because neither memory nor the disk has enough room, the file that they
        come from has to be decoded again.

    Raises
    ------
    StorageError
        While it is iterated over, if the temporary file cannot be read.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.is_complete = True
        self._folder = folder
        self._held: deque[np.ndarray] = deque()
        self._file: FileIO | None = None
        self._written = self._checked = 0

    def append(self, samples: np.ndarray) -> None:
        """Keep the next block, [n], float32."""
        if not self.is_complete:
            return
        if self._file is None and _memory.take(samples.nbytes):
            self._held.append(samples)
        elif self._folder is None:
            self._give_up("it is longer than what is kept in memory")
        else:
            self._write(self._folder, samples)

    def _write(self, folder: Path, samples: np.ndarray) -> None:
        try:
            if self._file is None or self._written >= self._checked:
                if shutil.disk_usage(folder).free < _SHARE_LEFT * (self._written + _CHECKED_BYTES):
                    self._give_up(f"{folder} has too little room")
                    return
                self._checked = self._written + _CHECKED_BYTES
            if self._file is None:
                # Without a buffer, so that an error comes here and not when the samples are read back.
                self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by `close`
            rest = np.ascontiguousarray(samples).data.cast("B")
            while rest:
                rest = rest[self._file.write(rest) :]
            self._written += samples.nbytes
        except OSError as error:
            self._give_up(f"{folder}: {error.strerror or error}")

    def _give_up(self, why: str) -> None:
        self.close()
        self.is_complete = False
        logger.debug("a file is decoded twice, once for its peak: %s", why)

    def __iter__(self) -> Iterator[np.ndarray]:
        while self._held:
            samples = self._held.popleft()
            _memory.give_back(samples.nbytes)
            yield samples
        if self._file is not None:
            for start in range(0, self._written, _PIECE_BYTES):
                yield np.frombuffer(self._read(self._file, start), np.float32)

    def _read(self, file: FileIO, start: int) -> bytearray:
        piece = bytearray(min(_PIECE_BYTES, self._written - start))
        rest = memoryview(piece)
        try:
            file.seek(start)
            while rest and (count := file.readinto(rest)):
                rest = rest[count:]
        except OSError as error:
            raise self._unreadable(error) from error
        if rest:
            raise self._unreadable(OSError(errno.EIO, os.strerror(errno.EIO)))
        return piece

    def _unreadable(self, error: OSError) -> StorageError:
        # About the disk of the cache, not about the file that was decoded.
        message = f"{self._folder}: what was decoded cannot be read back: {error.strerror or error}"
        return StorageError(message, remedy(error, "check the disk, or use another one: --cache-dir DIR"))

    def close(self) -> None:
        """Free what is kept."""
        _memory.give_back(sum(samples.nbytes for samples in self._held))
        self._held.clear()
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
