"""The split of chunks into training and validation."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from distill import _native
from distill.config import TrainingConfig
from distill.errors import ConfigError

Split = Literal["all", "train", "val"]
SplitBy = Literal["chunk", "file"]

VAL_FRACTION = TrainingConfig().val_fraction
FEW_CHUNKS = 10
"""R² of fewer validation chunks than this says little."""
# From here on, a fixed limit holds out a share that is within 3 % of the requested one, for the default of 0.15.
_FIXED_FROM = 10_000


class HeldOut(NamedTuple):
    """Which rows are held out for validation, and the rule that says so."""

    rows: np.ndarray
    """Whether each row is held out, [N], bool. All False if there is only one chunk (or file)."""
    limit: int
    """The largest 64-bit hash that is held out. With it as `limit`, no chunk moves, whatever files are added."""


def held_out(
    content_hashes: np.ndarray, chunks: np.ndarray, val_fraction: float, split_by: SplitBy, limit: int | None = None
) -> HeldOut:
    """Choose the rows that are held out for validation.

    Each chunk has a hash of its file's content and its index in it. Of n chunks, the ``ceil(val_fraction * n)`` with
    the smallest hashes are held out, so adding a file moves at most as many others as it has chunks itself. From
    10 000 chunks on, those below a fixed hash are held out, so adding a file moves none; their share is then close
    enough to `val_fraction`. Both sides have at least one chunk, if there are two.

    Parameters
    ----------
    content_hashes : ndarray of shape [N, 32], uint8
        Content hash of each row's file.
    chunks : ndarray of shape [N], int64
        Index of each row's chunk in its file.
    val_fraction : float
        Share of the chunks that is held out.
    split_by : {"chunk", "file"}
        Whether chunks are held out one by one, or all chunks of a file together.
    limit : int, optional
        Hold out the chunks with a hash of at most this instead, as a run does that is resumed.

    Returns
    -------
    HeldOut
    """
    index = chunks if split_by == "chunk" else np.zeros_like(chunks)
    keys = np.concatenate([content_hashes, index.astype("<i8").view(np.uint8).reshape(-1, 8)], axis=1)
    drawn = np.frombuffer(_native.row_checksums(np.ascontiguousarray(keys).reshape(-1).data, keys.shape[1]), "<u8")
    units = np.unique(drawn)
    if len(units) < 2:
        return HeldOut(np.zeros(len(drawn), bool), fixed_limit(val_fraction))
    if limit is None:
        limit = fixed_limit(val_fraction) if len(units) >= _FIXED_FROM else int(units[_count(val_fraction, units) - 1])
    # Both sides have a chunk, also if files were removed.
    limit = min(max(limit, int(units[0])), int(units[-2]))
    return HeldOut(drawn <= np.uint64(limit), limit)


def fixed_limit(val_fraction: float) -> int:
    """Return the largest hash of this share of all 64-bit hashes: the limit of runs that recorded none."""
    return math.ceil(val_fraction * 2.0**64) - 1


def _count(val_fraction: float, units: np.ndarray) -> int:
    # Rounded, because 0.07 * 100 is a little more than 7 in floating point.
    return max(1, math.ceil(round(val_fraction * len(units), 6)))


def check_split(split: str, val_fraction: float, split_by: str) -> None:
    """Raise ConfigError if arguments are out of range, naming all of them."""
    faults = []
    if split not in ("all", "train", "val"):
        faults.append(f"split={split!r} must be 'all', 'train' or 'val'")
    if split_by not in ("chunk", "file"):
        faults.append(f"split_by={split_by!r} must be 'chunk' or 'file'")
    if not 0 < val_fraction < 1:
        faults.append(f"val_fraction={val_fraction} must be above 0 and below 1")
    if faults:
        raise ConfigError(faults)
