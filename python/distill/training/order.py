"""The order of the rows of an epoch: all shuffled at once, or by blocks of rows that are stored together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from torch.utils.data import Sampler

from distill import _native

Shuffle = Literal["rows", "blocks"]

BLOCK_BYTES = 4 << 20
"""Stored size of a block: a disk reads it in two to three times the time of a seek."""

BUFFER_BYTES = 1 << 30
"""Stored size of the blocks whose rows are shuffled together. Not a share of the memory: the order of a run must not
depend on the machine."""

_OWN_CGROUP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")

# Indices that become Python numbers at once.
_PIECE = 4096


def shuffle_for(stored_bytes: int) -> Shuffle:
    """Return how to shuffle rows of this size: by blocks if they do not fit into 3/4 of the memory."""
    memory = min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_memory_limits()])
    return "rows" if stored_bytes <= memory * 3 // 4 else "blocks"


def _memory_limits() -> Iterator[int]:
    """Yield the limits of the control groups that this process is in, as of a container; they count its page cache."""
    try:
        lines = _OWN_CGROUP.read_text().splitlines()
    except OSError:  # not Linux
        return
    for path in (line.removeprefix("0::/") for line in lines if line.startswith("0::/")):
        group = _CGROUPS / path
        while group.is_relative_to(_CGROUPS):
            try:
                limit = (group / "memory.max").read_text().strip()
            except OSError:  # the root has none
                limit = "max"
            if limit.isdecimal():
                yield int(limit)
            group = group.parent


class EpochSampler(Sampler[int]):
    """Shuffled indices whose order depends only on the seed and the epoch.

    Every pass is a new epoch, also if the pass before was not read to its end.

    Parameters
    ----------
    length : int
        Number of rows.
    seed : int

    Attributes
    ----------
    epoch : int
        The epoch of the next pass, from 0.
    first_row : int
        Rows that the next pass leaves out at its beginning. The pass resets it.
    order_key : str
        Equal for equal orders of the same rows with the same seed.
    """

    shuffle: Shuffle = "rows"
    order_key = ""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed = length, seed
        self.epoch, self.first_row = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass."""
        self.epoch = epoch

    def order(self, epoch: int) -> np.ndarray:
        """Return the indices, int64, in the order of an epoch."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.length)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        epoch, first_row = self.epoch, self.first_row
        self.epoch, self.first_row = epoch + 1, 0
        return self._indices(epoch, first_row)

    def _indices(self, epoch: int, first_row: int) -> Iterator[int]:
        order = self.order(epoch)[first_row:]
        for first in range(0, len(order), _PIECE):
            yield from order[first : first + _PIECE].tolist()


class BlockSampler(EpochSampler):
    """Shuffled indices of rows of which those that are stored together are used at about the same time.

    In each epoch the blocks are shuffled and dealt out to groups, and the rows of each group are shuffled. The blocks
    of a group are announced while the group before is used, so that a disk reads whole blocks, and rows come from
    memory. If the system has forgotten some by then, they are read again.

    Parameters
    ----------
    stored : ndarray of shape [N], int64
        The indices in the order in which their rows are stored.
    seed : int
    block_rows, group_blocks : int
        Rows of a block, and blocks whose rows are shuffled together.
    announce : callable
        Called with the indices of a block that will be read soon.
    """

    shuffle: Shuffle = "blocks"

    def __init__(
        self,
        stored: np.ndarray,
        seed: int,
        *,
        block_rows: int,
        group_blocks: int,
        announce: Callable[[np.ndarray], object],
    ) -> None:
        super().__init__(len(stored), seed)
        self.order_key = _native.hash_bytes(stored.tobytes()).hex()
        self._stored, self._block_rows, self._group_blocks = stored, block_rows, group_blocks
        self._announce = announce

    def order(self, epoch: int) -> np.ndarray:
        """Return the indices, int64, in the order of an epoch."""
        return np.concatenate([rows for _, rows in self._groups(epoch)])

    def _groups(self, epoch: int) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
        """Yield each group of an epoch: its blocks, and its rows in their order."""
        generator = np.random.default_rng([self.seed, epoch])
        blocks = generator.permutation(-(-self.length // self._block_rows))
        # All of about the same size: a few blocks that are left over would be a group of their own.
        for numbers in np.array_split(blocks, max(1, -(-len(blocks) // self._group_blocks))):
            group = [self._stored[number * self._block_rows :][: self._block_rows] for number in numbers.tolist()]
            yield group, generator.permutation(np.concatenate(group) if group else self._stored)

    def _indices(self, epoch: int, first_row: int) -> Iterator[int]:
        is_first = True
        end: tuple[list[np.ndarray], np.ndarray] = ([], self._stored[:0])
        for (blocks, rows), (following, _) in pairwise(chain(self._groups(epoch), [end])):
            if first_row >= len(rows):
                first_row -= len(rows)
                continue
            if is_first:
                for block in blocks:
                    self._announce(block)
                is_first = False
            ahead = iter(following)
            for first in range(0, len(rows), self._block_rows):
                if (upcoming := next(ahead, None)) is not None:
                    self._announce(upcoming)
                yield from rows[max(first, first_row) : first + self._block_rows].tolist()
            first_row = 0
