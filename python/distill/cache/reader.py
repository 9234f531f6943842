"""The reader of a cache: its rows, by index."""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from distill import _native
from distill.cache.manifest import PACKS_NAME, require_manifest
from distill.cache.pack import HEADER_BYTES, row_bytes_of
from distill.cache.pack_info import PackInfo
from distill.cache.pack_reader import Fault, OpenPack, PackReader, read_from
from distill.cache.slots import choose_slot
from distill.errors import CacheError, DamagedPackError, MissingPackError

# Packs that a call holds open. A process may have 256 files open, and other threads and readers have theirs.
_PACKS_AT_ONCE = 32


class CacheReader:
    """Random access to the rows of a cache, in an order that depends only on the files' contents.

    Rows are ordered by the content hash of their source, then chunk, then variant (the original first). A reader keeps
    the manifest that it opened. Every pack is checked when the reader is made, and those used last stay open; rows of a
    pack that a writer has replaced since are read from where the manifest says that they are now.

    A pickle or a copy holds no rows: it opens the cache again, which has to hold the same rows still.

    Parameters
    ----------
    cache_dir : path
        The folder that preprocessing returned, or a cache with one slot.
    unselected : bool
        Also the rows of files that the last list of files left out. Default: False.

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
        If there is no valid manifest, or a pack is missing, damaged or cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> from distill.audio import ComplexSpectrogramConfig, preprocess_complex_spectrograms
    >>> from distill.cache import CacheReader
    >>> cache_dir, stats = preprocess_complex_spectrograms(None, "recordings", ComplexSpectrogramConfig())
    >>> reader = CacheReader(cache_dir)
    >>> reader.read(np.arange(3)).shape  # before normalisation
    (3, 2, 128, 94)
    """

    def __init__(self, cache_dir: str | os.PathLike[str], *, unselected: bool = False) -> None:
        self._unselected = unselected
        # Absolute, because a copy may be opened after the working directory has changed.
        self.cache_dir = Path(os.path.abspath(choose_slot(Path(cache_dir))))
        self._later: CacheReader | None = None
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
        live = manifest.kept() if self._unselected else manifest.live()
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
        self._first_row = np.searchsorted(self.source, np.arange(len(self.content_hashes)))
        number = np.arange(len(self.source)) - self._first_row[self.source]
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
            Return (row - mean) * scale, one mean and scale for each channel.

        Returns
        -------
        ndarray of shape [k, 2, M, T], float32

        Raises
        ------
        CacheError
            If a row does not match its checksum, cannot be read, or is in the cache no more.
        """
        out = np.empty((len(rows), *self.row_shape), np.float32)
        if mean is not None and scale is not None:
            mean, scale = np.ravel(mean), np.ravel(scale)
        order = self.stored_order(rows)
        starts = np.flatnonzero(np.diff(self._pack[rows[order]], prepend=-1))
        for begin, end in pairwise([*starts[::_PACKS_AT_ONCE].tolist(), len(rows)]):
            self._read_some(rows, order[begin:end], out, mean, scale)
        return out

    @property
    def row_bytes(self) -> int:
        """Size in bytes of a stored row."""
        return row_bytes_of(self.row_shape, self.header["dtype"])

    def stored_order(self, rows: np.ndarray) -> np.ndarray:
        """Return the indices, int64, into `rows` that sort them by where they are stored."""
        return np.lexsort((self._row[rows], self._pack[rows]))

    def announce(self, rows: np.ndarray) -> None:
        """Let the system read what is stored from the first to the last of some rows, in each pack; does not wait.

        A pack that cannot be opened is left to `read`.
        """
        packs, numbers = self._pack[rows], self._row[rows]
        for pack in np.unique(packs).tolist():
            of_pack = numbers[packs == pack]
            first, stop = int(of_pack.min()), int(of_pack.max()) + 1
            with suppress(CacheError):
                file, _ = self._readers[pack].open()
                file.will_need(HEADER_BYTES + first * self.row_bytes, (stop - first) * self.row_bytes)

    def _read_some(
        self, rows: np.ndarray, places: np.ndarray, out: np.ndarray, mean: np.ndarray | None, scale: np.ndarray | None
    ) -> None:
        """Read the rows of a few packs into their places, in one native call."""
        indices, pack = np.unique(self._pack[rows[places]], return_inverse=True)
        readers = [self._readers[index] for index in indices.tolist()]
        numbers = self._row[rows[places]]

        def read(packs: list[OpenPack]) -> Fault:
            to, dtype = out.reshape(len(out), -1), self.header["dtype"]
            return _native.read_rows(packs, pack, numbers, places, HEADER_BYTES, to, dtype, mean, scale)

        try:
            read_from(readers, read, pack, numbers)
        except MissingPackError as error:
            is_gone = np.array([reader.path == error.path for reader in readers])[pack]
            gone, rest = places[is_gone], places[~is_gone]
            out[gone] = self._read_later(rows[gone], mean, scale, error)
            if len(rest):
                self._read_some(rows, rest, out, mean, scale)

    def _read_later(
        self, rows: np.ndarray, mean: np.ndarray | None, scale: np.ndarray | None, error: MissingPackError
    ) -> np.ndarray:
        """Read rows of a pack that is gone from where the cache has them now; `error` says that it is gone."""
        if self._later is None:
            self._later = CacheReader(self.cache_dir)
        later = self._later
        sources = self.source[rows]
        hashes = [self.content_hashes[source] for source in sources.tolist()]
        there = np.array([bisect_left(later.content_hashes, content) for content in hashes])
        is_there = [
            at < len(later.content_hashes) and later.content_hashes[at] == content
            for at, content in zip(there.tolist(), hashes, strict=True)
        ]
        if not all(is_there) or later.header["config_fingerprint"] != self.header["config_fingerprint"]:
            tip = "begin again, with the cache as it is now"
            raise CacheError(f"{error.path}: its rows were removed from the cache since it was opened", tip) from error
        return later.read(later._first_row[there] + rows - self._first_row[sources], mean, scale)

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
