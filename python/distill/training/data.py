"""What a session trains on, by either path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from distill.features.normalization import normalize, silence_of
from distill.training.loaders import EpochBatches
from distill.training.shifts import shift_rows

HELD_OUT_ROWS = 256
"""Held-out rows that are measured, or of which some are heard and seen: reading them all would take too long."""


@dataclass
class Material:
    """What is trained on, by either path."""

    train: DataLoader[Tensor]
    val: DataLoader[Tensor]
    spectrogram: nn.Module | None
    stats: dict[str, float]
    is_shared: bool
    content_key: str
    """Tells whether a resumed run finds the sounds that it left."""

    @property
    def batches(self) -> EpochBatches:
        """The order of the training rows."""
        return self.train.batch_sampler  # type: ignore[return-value]

    def features(self, loader: DataLoader[Tensor]) -> Iterator[Tensor]:
        """Normalised features of a loader's batches, on the CPU."""
        for batch in loader:
            if self.spectrogram is None:
                yield batch.cpu()
            else:
                with torch.no_grad():
                    yield normalize(self.spectrogram(batch), self.stats)

    def held_out(self, count: int) -> Tensor:
        """At most `count` of the first held-out rows, normalised, evenly spaced: neighbours are of one file."""
        length = min(len(self.val.dataset), HELD_OUT_ROWS)  # type: ignore[arg-type]
        wanted = set(torch.linspace(0, length - 1, min(count, length)).long().tolist())
        rows = (row for batch in self.features(self.val) for row in batch)
        return torch.stack([row for index, row in zip(range(length), rows, strict=False) if index in wanted])

    def training_rows(self, count: int) -> Iterator[Tensor]:
        """At most `count` normalised training rows, in batches: the first ones of the first epoch's order."""
        # Whatever the epoch in hand is: the caller sets it for its next one anyway.
        self.batches.epoch = self.batches.first_step = 0
        for batch in self.features(self.train):
            yield batch[:count]
            count -= len(batch)
            if count <= 0:
                break

    def rows_to_fit(self, shifted_share: float, seed: int) -> Iterator[Tensor]:
        """Normalised training rows for the PCA; where training shifts rows, then all of them again, shifted."""
        yield from self.features(self.train)
        if shifted_share:
            generator = torch.Generator().manual_seed(seed)
            for rows in self.features(self.train):
                yield shift_rows(rows, 1.0, silence_of(rows, self.stats), generator)
