"""Where the rows of a cache come from: which part of which file."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from distill.cache.reader import CacheReader


class Place(NamedTuple):
    """Where a row comes from."""

    file: str
    """Path in the dataset; if several files have the same content, the first one."""
    chunk: int
    """Number of the chunk in its file, silent chunks not counted."""
    offset_s: float | None
    """Start of the chunk in the file, seconds; None if unknown, because the file has silent chunks."""
    variant: int
    """Number of the augmented variant; 0 for the original."""


def places_of(reader: CacheReader, rows: np.ndarray, chunk_s: float) -> list[Place]:
    """Return where rows come from.

    Parameters
    ----------
    reader : CacheReader
    rows : ndarray of shape [k], int64
        Indices of rows.
    chunk_s : float
        Length of a chunk, seconds.
    """
    files: dict[str, str] = {}
    for file in reader.manifest.files():
        files.setdefault(file["content_hash"] or "", file["path"])
    names = [files[content.hex()] for content in reader.content_hashes]
    silent = reader.manifest.live().silent.tolist()
    found = zip(*(values[rows].tolist() for values in (reader.source, reader.chunk, reader.variant)), strict=True)
    return [
        Place(names[source], chunk, None if silent[source] else chunk * chunk_s, variant)
        for source, chunk, variant in found
    ]
