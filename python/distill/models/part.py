"""The part of a batch that one of several processes computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def part_bounds(total: int, rank: int, size: int) -> tuple[int, int]:
    """Return the first row and the end of the part of process `rank` of `size`; parts differ by at most one row."""
    return rank * total // size, (rank + 1) * total // size


@dataclass(frozen=True)
class Part:
    """The rows of a batch that this process computes; other processes compute the others.

    Random numbers are drawn for the whole batch in every process, so that they do not depend on how it is divided.
    """

    first: int
    """First row of the part in the batch."""
    stop: int
    """End of the part in the batch; equal to `first` if the batch has fewer rows than there are processes."""
    total: int
    """Rows of the batch."""
    add_up: Callable[[Tensor], Tensor]
    """Returns the sum of a tensor over all processes, without gradient. All have to call it."""

    def __len__(self) -> int:
        return self.stop - self.first

    def of(self, values: Tensor) -> Tensor:
        """Return the rows of this part, of values [B, ...] of the whole batch."""
        return values[self.first : self.stop]

    def randn_like(self, values: Tensor) -> Tensor:
        """Return the part's rows of standard normal numbers for the whole batch, like the part's `values`."""
        return self.of(torch.randn(self.total, *values.shape[1:], dtype=values.dtype, device=values.device))
