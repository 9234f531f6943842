"""Packs: immutable safetensors files of feature rows, written as a stream.

    | 8 bytes: header length | header, padded with spaces | features [n, 2, M, T] | checksums [n] |

The header has a fixed size, so rows are streamed to disk before their number is known. A header depends only on the
row shape, dtype and count: a reader builds the expected header and compares, and never follows what a damaged or
hostile header says. Each row has a checksum, and the manifest holds a checksum over header and row checksums, so every
byte is covered.

Row checksums are CRC-64/NVME, which the header says, or in packs of earlier versions the first 8 bytes of BLAKE3. They
find accidental damage, which is all that 8 bytes can promise; docs/notes/data.md has figures.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distill import _native
from distill.cache.pack_info import PACK_SUFFIX, PackInfo
from distill.storage import sync_folder

HEADER_BYTES = 1024
CHECKSUM_BYTES = 8
MAX_PACK_BYTES = 128 << 20
PIECE_BYTES = 4 << 20

Checksum = Literal["CRC-64/NVME", "BLAKE3"]
CHECKSUMS: tuple[Checksum, ...] = ("CRC-64/NVME", "BLAKE3")
"""How rows are checked: what is written first, then what is also read."""

_DTYPES = {"float32": "F32", "float16": "F16"}


def header_of(rows: int, row_shape: tuple[int, ...], dtype: str, checksum: Checksum = CHECKSUMS[0]) -> bytes:
    """Return the header of a pack; it depends on nothing else."""
    data_bytes = rows * row_bytes_of(row_shape, dtype)
    entries: dict[str, Any] = {} if checksum == "BLAKE3" else {"__metadata__": {"checksums": checksum}}
    entries |= {
        "features": {"dtype": _DTYPES[dtype], "shape": [rows, *row_shape], "data_offsets": [0, data_bytes]},
        "checksums": {
            "dtype": "U64",
            "shape": [rows],
            "data_offsets": [data_bytes, data_bytes + rows * CHECKSUM_BYTES],
        },
    }
    length = HEADER_BYTES - 8
    return length.to_bytes(8, "little") + json.dumps(entries, separators=(",", ":")).encode().ljust(length)


def row_bytes_of(row_shape: tuple[int, ...], dtype: str) -> int:
    """Return the size of a row in bytes."""
    return math.prod(row_shape) * np.dtype(dtype).itemsize


def rows_that_fit(row_shape: tuple[int, ...], dtype: str) -> int:
    """Return how many rows fit into a pack; at least one, however large it is."""
    return max(1, (MAX_PACK_BYTES - HEADER_BYTES) // (row_bytes_of(row_shape, dtype) + CHECKSUM_BYTES))


def add_pack(manifest: _native.Manifest, info: PackInfo, backend: str) -> int:
    """Add a pack to a manifest; return its index there."""
    return manifest.add_pack(info.name, info.rows, info.bytes, info.checksum, backend, info.mtime_ns, info.ctime_ns)


class PackWriter:
    """Stream rows into a new pack.

    Parameters
    ----------
    folder : Path
        The folder of packs.
    row_shape : tuple of int
        (2, M, T).
    dtype : {"float32", "float16"}
        How values are stored. Default: "float32".
    """

    def __init__(self, folder: Path, row_shape: tuple[int, ...], dtype: str = "float32") -> None:
        self.row_shape = row_shape
        self.dtype = dtype
        self.rows = 0
        self.path = folder / f"{secrets.token_hex(8)}{PACK_SUFFIX}"
        self._checksums: list[bytes] = []
        self._row_bytes = row_bytes_of(row_shape, dtype)
        self._started = 0
        self._file = self.path.open("xb", buffering=0)
        try:
            self._write(bytes(HEADER_BYTES))
        except OSError:
            self.abandon()
            raise

    @property
    def room(self) -> int:
        """Number of rows that still fit."""
        return rows_that_fit(self.row_shape, self.dtype) - self.rows

    def append(self, rows: np.ndarray) -> int:
        """Write rows [k, 2, M, T]; return the index of the first."""
        stored = np.ascontiguousarray(rows, self.dtype)
        first = self.rows
        self._write(stored.data.cast("B"))
        data = stored.reshape(-1).view(np.uint8)
        self._checksums.append(_native.pack_checksums(CHECKSUMS[0], data, self._row_bytes))
        self.rows += len(stored)
        self._start_writeback()
        return first

    def close(self) -> PackInfo:
        """Write header and checksums, flush the pack and its folder to disk, and return the manifest's entry for it."""
        # A failed or interrupted write may have left a part of a row.
        self._file.seek(HEADER_BYTES + self.rows * self._row_bytes)
        self._file.truncate()
        checksums = b"".join(self._checksums)[: self.rows * CHECKSUM_BYTES]
        header = header_of(self.rows, self.row_shape, self.dtype)
        self._write(checksums)
        size = self._file.tell()
        self._file.seek(0)
        self._write(header)
        os.fsync(self._file.fileno())
        stamps = os.fstat(self._file.fileno())
        sync_folder(self.path.parent)
        self._file.close()
        checksum = _native.hash_bytes(header + checksums).hex()
        return PackInfo(self.path.name, self.rows, size, checksum, stamps.st_mtime_ns, stamps.st_ctime_ns)

    def abandon(self) -> None:
        """Close and delete a pack that no manifest names. If that fails, a later writer deletes it."""
        self._file.close()
        with suppress(OSError):
            self.path.unlink()

    def _start_writeback(self) -> None:
        """Let the disk start on what was written, so that `close` does not have to wait for all of it.

        On Linux, POSIX_FADV_DONTNEED starts writing a range to disk and does not wait. Pages that are being written
        stay in memory, for readers of the pack.
        """
        end = HEADER_BYTES + self.rows * self._row_bytes
        if end - self._started < PIECE_BYTES or not hasattr(os, "posix_fadvise"):
            return
        with suppress(OSError):  # only a hint to the system
            os.posix_fadvise(self._file.fileno(), self._started, end - self._started, os.POSIX_FADV_DONTNEED)
        self._started = end

    def _write(self, data: bytes | memoryview) -> None:
        # An unbuffered write may write only a part, for example on a disk that is nearly full.
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
