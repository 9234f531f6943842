"""The reader of a cache: its rows, by index."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from distill import _native
from distill.cache.manifest import PACKS_NAME, require_manifest
from distill.cache.pack import PackInfo, PackReader
from distill.errors import CacheError, DamagedPackError


class CacheReader:
    """Random access to the rows of a cache, in an order that depends only on the files' contents.

    Rows are ordered by the content hash of their source, then chunk, then variant (the original first). A reader keeps
    the manifest that it opened and maps every pack that it names, so a writer that replaces them does not disturb it.

    A pickle or a copy holds no rows: it opens the cache again, which has to hold the same rows still.

    Parameters
    ----------
    cache_dir : path
        The folder that preprocessing returned.

    Attributes
    ----------
    manifest : _native.Manifest
        The manifest as it was when the reader was created.
    header : dict
        Configuration, statistics and totals.
    row_shape : tuple of int
        (2, n_mels, T).
    content_hashes : list of bytes
        One per source content, ascending.
    source : ndarray of shape [N], int64
        Which content each row comes from.
    chunk, variant : ndarray of shape [N], int64
        Index of the chunk among the chunks of its content that are not silent, and of its variant (0: the original).

    Raises
    ------
    CacheError
        If there is no valid manifest, or a pack is missing or damaged.
    """

    def __init__(self, cache_dir: str | os.PathLike[str]) -> None:
        # Absolute, because a copy may be opened after the working directory has changed.
        self.cache_dir = Path(os.path.abspath(cache_dir))
        before = None
        while True:
            manifest = require_manifest(self.cache_dir)
            try:
                self._open(manifest)
            except DamagedPackError:
                # A writer may have replaced the manifest, and removed a pack, since we read the manifest.
                if manifest.pack_names() == before:
                    raise
                before = manifest.pack_names()
            else:
                return

    def _open(self, manifest: _native.Manifest) -> None:
        self.manifest = manifest
        self.header: dict[str, Any] = json.loads(manifest.header)
        self.row_shape = tuple(self.header["row_shape"])
        live = manifest.live()
        self.content_hashes = live.content_hashes
        # Before anything is allocated: opening a pack checks that it is as large as the manifest claims, which bounds
        # the number of rows.
        packs = [PackInfo.of(entry) for entry in manifest.packs()]
        self._readers = {index: self._reader(packs[index]) for index in np.unique(live.pack).tolist()}
        within = np.arange(live.rows.sum()) - np.repeat(np.cumsum(live.rows) - live.rows, live.rows)
        self.source = np.repeat(live.content, live.rows)
        self._pack = np.repeat(live.pack, live.rows)
        self._row = np.repeat(live.first, live.rows) + within
        # A content's segments follow each other, so its rows count up from its first.
        first_row = np.searchsorted(self.source, np.arange(len(self.content_hashes)))
        number = np.arange(len(self.source)) - first_row[self.source]
        per_chunk = 1 + self.header["augmentation_expansion"]
        self.chunk, self.variant = number // per_chunk, number % per_chunk

    def __len__(self) -> int:
        return len(self._row)

    def __reduce__(self) -> tuple[Any, ...]:
        return reopen, (self.cache_dir, self.identity)

    @property
    def identity(self) -> str:
        """Hash of which rows there are and in which order. Rows that moved to another pack keep it."""
        rows = np.bincount(self.source, minlength=len(self.content_hashes)).astype("<i8")
        parts = (self.header["config_fingerprint"].encode(), *self.content_hashes, rows.tobytes())
        return _native.hash_bytes(b"".join(parts)).hex()

    def read(self, rows: np.ndarray, mean: np.ndarray | None = None, scale: np.ndarray | None = None) -> np.ndarray:
        """Return rows by index, in the requested order. They are read in the order in which they are stored.

        Parameters
        ----------
        rows : ndarray of shape [k], int64
            Indices from 0 to N - 1.
        mean, scale : ndarray of shape [2, 1, 1], float32, optional
            Return (row - mean) * scale. Computed row by row, while each is in the CPU's cache.

        Returns
        -------
        ndarray of shape [k, 2, M, T], float32

        Raises
        ------
        DamagedPackError
            If a row does not match its checksum.
        """
        out = np.empty((len(rows), *self.row_shape), np.float32)
        order = np.lexsort((self._row[rows], self._pack[rows]))
        packs, numbers = self._pack[rows[order]], self._row[rows[order]]
        starts = np.flatnonzero(np.diff(packs, prepend=-1)).tolist()
        for start, stop in pairwise([*starts, len(rows)]):
            data = self._readers[int(packs[start])].checked(numbers[start:stop])
            for place, number in zip(order[start:stop].tolist(), numbers[start:stop].tolist(), strict=True):
                if mean is None:
                    out[place] = data[number]
                else:
                    np.subtract(data[number], mean, out=out[place])
                    out[place] *= scale
        return out

    def _reader(self, info: PackInfo) -> PackReader:
        path = self.cache_dir / PACKS_NAME / info.name
        return PackReader(path, info, self.row_shape, self.header["dtype"])


def reopen(cache_dir: str | os.PathLike[str], identity: str) -> CacheReader:
    """Open a cache again, in another process or for a copy.

    Parameters
    ----------
    cache_dir : path
        The `cache_dir` of the reader that was open.
    identity : str
        Its `identity`.

    Raises
    ------
    CacheError
        If there is no valid cache, or it holds other rows by now.
    """
    reader = CacheReader(cache_dir)
    if reader.identity != identity:
        raise CacheError(
            f"{cache_dir}: the cache has changed since it was opened: its rows are not those that this copy stands for",
            "open the cache again, and copy or pickle what was opened then",
        )
    return reader
