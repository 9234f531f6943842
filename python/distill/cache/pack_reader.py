"""Reading of packs. Rows are read and not mapped: a read error in mapped memory kills the process."""

from __future__ import annotations

import errno
import os
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from distill import _native
from distill.availability import remedy
from distill.cache.descriptors import Descriptor, descriptors
from distill.cache.pack import CHECKSUM_BYTES, HEADER_BYTES, PIECE_BYTES, PackInfo, header_of, row_bytes_of
from distill.errors import CacheError, DamagedPackError, MissingPackError, UnreadablePackError
from distill.storage import open_regular


class PackReader:
    """Read rows of a pack. Each row is checked against its checksum when it is first read.

    The file is opened again when it is needed, if other packs were used since.

    Parameters
    ----------
    path : Path
        The pack.
    info : PackInfo
        The manifest's entry for it.
    row_shape : tuple of int
        (2, M, T).
    dtype : {"float32", "float16"}
        How values are stored.

    Raises
    ------
    MissingPackError
        If there is no such file in the folder of packs, or something else than a file.
    DamagedPackError
        If what was read does not match `info`.
    UnreadablePackError
        If it cannot be read at the moment.
    """

    def __init__(self, path: Path, info: PackInfo, row_shape: tuple[int, ...], dtype: str) -> None:
        self.path = path
        self._info = info
        self._row_shape, self._dtype = row_shape, dtype
        self._row_bytes = row_bytes_of(row_shape, dtype)
        self._stamps: tuple[int, ...] | None = None
        self._key = object()
        weakref.finalize(self, descriptors.close, self._key).atexit = False
        self._file()

    def rows(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """Yield rows by index; each overwrites the one before.

        Parameters
        ----------
        numbers : ndarray of shape [k], int64
            Indices from 0 to n - 1.

        Yields
        ------
        ndarray of shape [2, M, T]
            As it is stored.

        Raises
        ------
        DamagedPackError
            If a row does not match its checksum.
        CacheError
            As the constructor.
        """
        row = np.empty(self._row_shape, self._dtype)
        data = row.reshape(-1).view(np.uint8)
        size = data.size
        for number in numbers.tolist():
            if self._read(data, HEADER_BYTES + number * self._row_bytes) < size:
                raise self._damaged("it is cut short")
            if not self._checked[number]:
                if self._mismatches(data, np.array([number])).size:
                    raise self._damaged(f"row {number} does not match its checksum")
                self._checked[number] = True
            yield row

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Return rows [k, 2, M, T] by index, as they are stored; parameters and errors as those of `rows`."""
        out = np.empty((len(numbers), *self._row_shape), self._dtype)
        for place, row in enumerate(self.rows(numbers)):
            out[place] = row
        return out

    def damaged_rows(self) -> Iterator[tuple[int, np.ndarray]]:
        """Check all rows, in pieces of about 4 MB.

        Yields
        ------
        int
            Bytes checked so far.
        ndarray of int64
            Indices of the piece's rows that do not match their checksum or are missing.

        Raises
        ------
        CacheError
            As the constructor.
        """
        step = max(1, PIECE_BYTES // self._row_bytes)
        buffer = np.empty(step * self._row_bytes, np.uint8)
        for first in range(0, self._info.rows, step):
            rows = np.arange(first, min(first + step, self._info.rows))
            read = self._read(buffer[: len(rows) * self._row_bytes], HEADER_BYTES + first * self._row_bytes)
            whole = read // self._row_bytes
            bad = self._mismatches(buffer[: whole * self._row_bytes], rows[:whole])
            yield int(rows[-1] + 1) * self._row_bytes, np.concatenate([rows[bad], rows[whole:]])

    def _mismatches(self, data: np.ndarray, rows: np.ndarray) -> np.ndarray:
        found = _native.row_checksums(data, self._row_bytes)
        named = np.frombuffer(self._checksums, np.uint64)[rows]
        return np.flatnonzero(np.frombuffer(found, np.uint64) != named)

    def _read(self, data: np.ndarray, start: int) -> int:
        """Fill `data` from the file, and return how many bytes there were."""
        try:
            return _read_at(self._file(), data, start)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise self._unreadable(error) from error
        # A file on a network disk that was replaced, or is known to the server under another handle now.
        descriptors.close(self._key)
        try:
            return _read_at(self._file(), data, start)
        except OSError as error:
            raise self._unreadable(error) from error

    def _file(self) -> Descriptor:
        try:
            return descriptors.get(self._key, self._open)
        except OSError as error:
            raise self._error_of_opening(error) from error

    def _open(self) -> Descriptor:
        """Open the file, and check it unless it is the one that was checked before."""
        file = Descriptor(open_regular(self.path, os.O_RDONLY))
        status = os.fstat(file.number)
        stamps = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if stamps != self._stamps:
            self._check(file, status.st_size)
            self._checked = np.zeros(self._info.rows, bool)
            self._stamps = stamps
        return file

    def _check(self, file: Descriptor, size: int) -> None:
        rows = self._info.rows
        data_end = HEADER_BYTES + rows * self._row_bytes
        # The size first: it bounds what is read and allocated, whatever the manifest claims.
        if size != data_end + rows * CHECKSUM_BYTES:
            raise self._damaged(f"it has {size} bytes")
        found = np.empty(HEADER_BYTES, np.uint8)
        checksums = np.empty(rows * CHECKSUM_BYTES, np.uint8)
        _read_at(file, found, 0)
        _read_at(file, checksums, data_end)
        header, self._checksums = header_of(rows, self._row_shape, self._dtype), checksums.tobytes()
        if found.tobytes() != header or _native.hash_bytes(header + self._checksums).hex() != self._info.checksum:
            raise self._damaged("its header or checksums are not those that the manifest names")

    def _error_of_opening(self, error: OSError) -> CacheError:
        """Return the error for a pack that cannot be opened: it is gone, or it cannot be had at the moment."""
        try:
            is_file = stat.S_ISREG(self.path.lstat().st_mode)
        except OSError as looking:
            require_packs_folder(self.path.parent)
            is_file = not isinstance(looking, FileNotFoundError)
        if is_file:
            return self._unreadable(error)
        return MissingPackError(self.path, error.strerror or str(error))

    def _unreadable(self, error: OSError) -> UnreadablePackError:
        tip = remedy(error, "make it readable, or remove it to have its features computed again")
        return UnreadablePackError(self.path, error.strerror or str(error), tip)

    def _damaged(self, reason: str) -> DamagedPackError:
        return DamagedPackError(self.path, reason)


def require_packs_folder(packs_dir: Path) -> None:
    """Check that the folder of packs is there: without it the packs are away, not lost.

    Raises
    ------
    CacheError
        If it cannot be listed.
    """
    try:
        os.scandir(packs_dir).close()
    except OSError as error:
        tip = f"put it back; to have all features computed again, remove {packs_dir.parent}"
        message = f"{packs_dir}: cannot be read now: {error.strerror or error}"
        raise CacheError(message, remedy(error, tip)) from error


def _read_at(file: Descriptor, data: np.ndarray, start: int) -> int:
    """Fill `data` from a position in a file, and return how many bytes there were."""
    done = 0
    while done < data.size:
        # With an explicit position, because threads and forked processes share the descriptor.
        read = os.preadv(file.number, [data[done:] if done else data], start + done)
        if not read:
            break
        done += read
    return done
