"""Packs: immutable safetensors files of feature rows, written as a stream and read through mmap.

    | 8 bytes: header length | header, padded with spaces | features [n, 2, n_mels, T] | checksums [n] |

The header's size is fixed, so rows stream to disk before their number is known. It is made by one function of the
row shape and count; a reader makes it again and compares, so nothing in a damaged or hostile header is ever followed.
Each row has a checksum, and the manifest holds one over header and checksums: every byte is covered.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill import _native
from distill.errors import CacheError

HEADER_BYTES = 1024
CHECKSUM_BYTES = 8
PACK_SUFFIX = ".safetensors"
MAX_PACK_BYTES = 128 << 20

_DTYPES = {"float32": "F32", "float16": "F16"}


class PackInfo(NamedTuple):
    """What the manifest keeps of a pack."""

    name: str
    rows: int
    bytes: int
    checksum: str


def _header(rows: int, row_shape: tuple[int, ...], dtype: str) -> bytes:
    data_bytes = rows * _row_bytes(row_shape, dtype)
    entries = {
        "features": {"dtype": _DTYPES[dtype], "shape": [rows, *row_shape], "data_offsets": [0, data_bytes]},
        "checksums": {
            "dtype": "U64",
            "shape": [rows],
            "data_offsets": [data_bytes, data_bytes + rows * CHECKSUM_BYTES],
        },
    }
    length = HEADER_BYTES - 8
    return length.to_bytes(8, "little") + json.dumps(entries, separators=(",", ":")).encode().ljust(length)


def _row_bytes(row_shape: tuple[int, ...], dtype: str) -> int:
    return math.prod(row_shape) * np.dtype(dtype).itemsize


class PackWriter:
    """Stream rows into a new pack.

    Parameters
    ----------
    folder : Path
        Where packs are kept.
    row_shape : tuple of int
        (2, n_mels, T).
    dtype : {"float32", "float16"}
        How rows are stored.
    """

    def __init__(self, folder: Path, row_shape: tuple[int, ...], dtype: str = "float32") -> None:
        self.row_shape = row_shape
        self.dtype = dtype
        self.rows = 0
        self.path = folder / f"{secrets.token_hex(8)}{PACK_SUFFIX}"
        self._checksums: list[bytes] = []
        self._row_bytes = _row_bytes(row_shape, dtype)
        self._file = self.path.open("xb", buffering=0)
        self._write(bytes(HEADER_BYTES))

    @property
    def room(self) -> int:
        """How many more rows fit; a pack takes one row at least, however large."""
        limit = (MAX_PACK_BYTES - HEADER_BYTES) // (self._row_bytes + CHECKSUM_BYTES)
        return max(limit, 1) - self.rows

    def append(self, rows: np.ndarray) -> int:
        """Write rows [k, 2, n_mels, T]; return the index of the first."""
        stored = np.ascontiguousarray(rows, self.dtype)
        first = self.rows
        self._write(memoryview(stored).cast("B"))
        self._checksums.append(_native.row_checksums(stored.reshape(-1).view(np.uint8), self._row_bytes))
        self.rows += len(stored)
        return first

    def close(self) -> PackInfo:
        """Make the pack durable and tell what the manifest needs to know."""
        # A write that failed or was interrupted may have left part of a row.
        self._file.seek(HEADER_BYTES + self.rows * self._row_bytes)
        self._file.truncate()
        checksums = b"".join(self._checksums)[: self.rows * CHECKSUM_BYTES]
        header = _header(self.rows, self.row_shape, self.dtype)
        self._write(checksums)
        size = self._file.tell()
        self._file.seek(0)
        self._write(header)
        os.fsync(self._file.fileno())
        self._file.close()
        return PackInfo(self.path.name, self.rows, size, _native.hash_bytes(header + checksums).hex())

    def abandon(self) -> None:
        """Close and remove a pack that nothing names."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _write(self, data: bytes | memoryview) -> None:
        # An unbuffered write may be partial, on a disk that fills up above all.
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]


class PackReader:
    """Read rows of a pack through mmap, each one checked against its checksum the first time.

    Parameters
    ----------
    path : Path
        The pack.
    info : PackInfo
        What the manifest says of it.
    row_shape : tuple of int
        (2, n_mels, T).
    dtype : {"float32", "float16"}
        How rows are stored.

    Raises
    ------
    CacheError
        If the pack is missing, or is not the one that the manifest names.
    """

    def __init__(self, path: Path, info: PackInfo, row_shape: tuple[int, ...], dtype: str) -> None:
        self.path = path
        row_bytes = _row_bytes(row_shape, dtype)
        header = _header(info.rows, row_shape, dtype)
        data_end = HEADER_BYTES + info.rows * row_bytes
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                found = file.read(HEADER_BYTES)
                file.seek(data_end)
                self._checksums = file.read(info.rows * CHECKSUM_BYTES)
        except OSError as error:
            raise self._damaged(error.strerror or str(error)) from error
        if size != data_end + info.rows * CHECKSUM_BYTES:
            raise self._damaged(f"it has {size} bytes")
        if found != header or _native.hash_bytes(header + self._checksums).hex() != info.checksum:
            raise self._damaged("its header or checksums are not those that the manifest names")
        self._row_bytes = row_bytes
        self._data = np.memmap(path, dtype, "r", HEADER_BYTES, (info.rows, *row_shape))
        self._checked = np.zeros(info.rows, bool)

    def read_into(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy rows into `out`.

        Parameters
        ----------
        rows : ndarray of shape [k], int64
            Indices; ascending is fastest.
        out : ndarray of shape [k, 2, n_mels, T], float32

        Raises
        ------
        CacheError
            If a row does not have its checksum.
        """
        stored = (
            out if out.dtype == self._data.dtype else np.empty((len(rows), *self._data.shape[1:]), self._data.dtype)
        )
        # "clip" lets numpy write into `out` directly; the indices are the manifest's, checked when it was loaded.
        np.take(self._data, rows, axis=0, out=stored, mode="clip")
        if not self._checked[rows].all():
            self._check(rows, stored)
        if stored is not out:
            out[:] = stored

    def _check(self, rows: np.ndarray, stored: np.ndarray) -> None:
        found = _native.row_checksums(stored.reshape(-1).view(np.uint8), self._row_bytes)
        named = np.frombuffer(self._checksums, np.uint64)[rows]
        bad = np.flatnonzero(np.frombuffer(found, np.uint64) != named)
        if bad.size:
            raise self._damaged(f"row {rows[bad[0]]} does not have its checksum")
        self._checked[rows] = True

    def _damaged(self, reason: str) -> CacheError:
        return CacheError(
            f"{self.path}: damaged pack: {reason}", "delete it and preprocess again: only its rows are lost"
        )
