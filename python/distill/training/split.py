"""The split of chunks into training and validation."""

from __future__ import annotations

from typing import Literal

import numpy as np

from distill import _native
from distill.config import TrainingConfig
from distill.errors import ConfigError

Split = Literal["all", "train", "val"]
SplitBy = Literal["chunk", "file"]

VAL_FRACTION = TrainingConfig().val_fraction


def held_out(content_hashes: np.ndarray, chunks: np.ndarray, val_fraction: float, split_by: SplitBy) -> np.ndarray:
    """Return which rows are held out for validation.

    Whether a chunk is held out depends only on the content hash of its file and its index in it, so adding a file moves
    no other chunk. If one side would be empty, the chunk nearest to the threshold is moved to it.

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

    Returns
    -------
    ndarray of shape [N], bool
        All False if there is only one chunk, or only one file with `split_by` "file".
    """
    index = chunks if split_by == "chunk" else np.zeros_like(chunks)
    keys = np.concatenate([content_hashes, index.astype("<i8").view(np.uint8).reshape(-1, 8)], axis=1)
    drawn = np.frombuffer(_native.row_checksums(np.ascontiguousarray(keys).reshape(-1), keys.shape[1]), "<u8")
    mask = drawn < val_fraction * 2.0**64
    if drawn.size and drawn.min() == drawn.max():
        return np.zeros_like(mask)
    if drawn.size and not mask.any():
        return drawn == drawn.min()
    if drawn.size and mask.all():
        return drawn != drawn.max()
    return mask


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
