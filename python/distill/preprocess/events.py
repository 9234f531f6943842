"""What is computed, and what its extraction yields. Without torch, which a run that computes nothing does not need."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from distill.audio.levels import Levels
from distill.types import Reason

# Rows of a batch. A CPU computes row by row, so a small batch only saves memory.
BATCH_ROWS = 8


class Source(NamedTuple):
    """A content to compute."""

    path: str
    """The path of a file that has it."""
    content_hash: bytes | None
    """Its hash. None until it is decoded if no other file has its size."""
    scanned: tuple[int, int, int, int, bool]
    """Its size, mtime, ctime and inode number when it was scanned, and whether it was young: see `Scan.todo_at`."""
    name: bytes
    """The path relative to the dataset."""


class Cached(NamedTuple):
    """The end of a source that turned out to have a content whose rows are in the cache."""

    source: Source


class Rows(NamedTuple):
    """The next rows [k, 2, M, T] of a source."""

    source: Source
    rows: np.ndarray


class Finished(NamedTuple):
    """The end of a source whose rows have all been computed."""

    source: Source
    silent_runs: list[tuple[int, int]]
    """Chunks that were left out as silent: number of the first one, and how many, of each run."""
    sums: list[float]
    """[n, sum, sum of squares, sum, sum of squares] over its rows; n values per channel."""
    levels: Levels
    """Its peak, and the constant offset that was removed."""
    silence: Reason
    """Why it is skipped if all of its chunks are silent."""
    partial: Reason | None
    """Why only a part of it could be decoded, if so."""
    channels: int
    """Its number of channels."""


class Failed(NamedTuple):
    """The end of a source that cannot be used."""

    source: Source
    reason: Reason
    permanent: bool
    """True if its bytes are unusable, False if it changed while it was read, or could not be read this time."""


Event = Cached | Rows | Finished | Failed
