"""Reading of packs. Rows are read and not mapped: a read error in mapped memory kills the process."""

from __future__ import annotations

import errno
import os
import stat
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from distill import _native
from distill.availability import remedy
from distill.cache.descriptors import descriptors
from distill.cache.pack import CHECKSUM_BYTES, CHECKSUMS, HEADER_BYTES, PIECE_BYTES, header_of, row_bytes_of
from distill.cache.pack_info import PackInfo
from distill.errors import CacheError, DamagedPackError, MissingPackError, UnreadablePackError

OpenPack = tuple[_native.PackFile, _native.Checksums]
"""An open pack: its file, and the checksums of its rows with which of them were compared."""

Fault = tuple[int, OSError | str] | None
"""The place of a row in a batch, and why it cannot be had."""


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
        self.open()

    def open(self) -> OpenPack:
        """Return the open file and the checksums of its rows; both stay valid while they are in use.

        Raises
        ------
        CacheError
            As the constructor.
        """
        try:
            file = descriptors.get(self._key, self._open)
        except OSError as error:
            raise self._error_of_opening(error) from error
        return file, self._checksums

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Return rows by index, as they are stored.

        Parameters
        ----------
        numbers : ndarray of shape [k], int64
            Indices from 0 to n - 1.

        Returns
        -------
        ndarray of shape [k, 2, M, T]

        Raises
        ------
        DamagedPackError
            If a row does not match its checksum.
        CacheError
            As the constructor.
        """
        out = np.empty((len(numbers), *self._row_shape), self._dtype)
        pack = np.zeros(len(numbers), np.int64)
        data = out.view(np.uint8).reshape(len(numbers), self._row_bytes)

        def read(packs: list[OpenPack]) -> Fault:
            return _native.read_stored_rows(packs, pack, numbers, HEADER_BYTES, data)

        read_from([self], read, pack, numbers)
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
        for first in range(0, self._info.rows, step):
            stop = min(first + step, self._info.rows)
            yield stop * self._row_bytes, self._damaged_rows(first, stop)

    def _damaged_rows(self, first: int, stop: int) -> np.ndarray:
        for is_last in (False, True):
            file, checksums = self.open()
            # The next piece is read while this one is checked.
            file.will_need(HEADER_BYTES + stop * self._row_bytes, PIECE_BYTES)
            try:
                return file.damaged_rows(checksums, HEADER_BYTES, self._row_bytes, first, stop)
            except OSError as error:
                self.close_after(error, is_last=is_last)
        raise AssertionError

    def close_after(self, error: OSError, *, is_last: bool) -> None:
        """Forget the open file after an error that opening it again may cure.

        Raises
        ------
        UnreadablePackError
            If the error is another one, or this was the last attempt.
        """
        # A file on a network disk that was replaced, or is known to the server under another handle now.
        if error.errno != errno.ESTALE or is_last:
            raise self._unreadable(error) from error
        descriptors.close(self._key)

    def damaged(self, reason: str) -> DamagedPackError:
        """Return the error of a pack that was read and is wrong."""
        return DamagedPackError(self.path, reason)

    def _open(self) -> _native.PackFile:
        """Open the file, and check it unless it is the one that was checked before."""
        file = _native.PackFile(self.path)
        stamps = file.stamps
        if stamps != self._stamps:
            self._checksums = self._check(file, stamps[2])
            self._stamps = stamps
        return file

    def _check(self, file: _native.PackFile, size: int) -> _native.Checksums:
        rows = self._info.rows
        data_end = HEADER_BYTES + rows * self._row_bytes
        # The size first: it bounds what is read and allocated, whatever the manifest claims.
        if size != data_end + rows * CHECKSUM_BYTES:
            raise self.damaged(f"it has {size} bytes")
        found = file.read(0, HEADER_BYTES)
        sums = file.read(data_end, rows * CHECKSUM_BYTES)
        for algorithm in CHECKSUMS:
            if found == header_of(rows, self._row_shape, self._dtype, algorithm):
                if _native.hash_bytes(found + sums).hex() == self._info.checksum:
                    return _native.Checksums(algorithm, sums)
                break
        raise self.damaged("its header or checksums are not those that the manifest names")

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


def read_from(
    readers: Sequence[PackReader],
    read: Callable[[list[OpenPack]], Fault],
    pack: np.ndarray,
    numbers: np.ndarray,
) -> None:
    """Read rows of several packs in one native call.

    Parameters
    ----------
    readers : sequence of PackReader
    read : callable
        Takes the open packs and returns None, or the place of a row and why it cannot be had.
    pack, numbers : ndarray of shape [k], int64
        Which of `readers` each row is of, and its index there.

    Raises
    ------
    CacheError
        As the constructor of PackReader.
    """
    for is_last in (False, True):
        fault = read([reader.open() for reader in readers])
        if fault is None:
            return
        place, reason = fault
        reader = readers[int(pack[place])]
        if isinstance(reason, OSError):
            reader.close_after(reason, is_last=is_last)
        elif reason == "short":
            raise reader.damaged("it is cut short")
        else:
            raise reader.damaged(f"row {numbers[place]} does not match its checksum")
