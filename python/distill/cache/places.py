"""Where the rows of a cache come from: which part of which files."""

from __future__ import annotations

from typing import NamedTuple

from distill.cache.reader import CacheReader


class Provenance(NamedTuple):
    """Where a row comes from."""

    paths: tuple[str, ...]
    """All files of the dataset with this content, relative to the dataset, sorted."""
    start_s: float | None
    """Start of the chunk in the file, seconds. None if unknown, because an earlier version of distill computed the
    features, and the file has silent chunks."""
    duration_s: float
    """Length of the chunk, seconds. The last chunk of a file may end with zeros."""
    chunk: int
    """Number of the chunk in its file, from 0, silent chunks not counted."""
    variant: int
    """Number of the augmented variant; 0 for the original."""


class Origins:
    """Finds where rows of a cache come from.

    Parameters
    ----------
    reader : CacheReader
    """

    def __init__(self, reader: CacheReader) -> None:
        self._reader = reader
        self._chunk_s = reader.header["chunk_samples"] / reader.header["complex_spectrogram_config"]["sample_rate"]
        paths: dict[str, list[str]] = {}
        for file in reader.manifest.files():
            paths.setdefault(file["content_hash"] or "", []).append(file["path"])
        self.paths = [tuple(sorted(paths[content.hex()])) for content in reader.content_hashes]
        """The files of each content."""
        # Chunks without a row: how many of each content, and which, as far as they were looked up.
        self._silent = reader.manifest.live().silent.tolist()
        self._runs: dict[int, list[tuple[int, int]]] = {}

    def of(self, row: int) -> Provenance:
        """Return where a row comes from."""
        reader = self._reader
        source, chunk, variant = (int(values[row]) for values in (reader.source, reader.chunk, reader.variant))
        start = self._start(source, chunk)
        start_s = None if start is None else start * self._chunk_s
        return Provenance(self.paths[source], start_s, self._chunk_s, chunk, variant)

    def _start(self, source: int, chunk: int) -> int | None:
        """Return the number of a chunk of a content with the silent ones counted; None if unknown."""
        if not self._silent[source]:
            return chunk
        if source not in self._runs:
            self._runs[source] = self._reader.manifest.silent_runs(self._reader.content_hashes[source])
        number = chunk
        for first, count in self._runs[source]:
            number += count if first <= number else 0
        return number if self._runs[source] else None
