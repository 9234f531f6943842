"""The state of a training run: what a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from distill.models.vae import ConvVAE
from distill.training.epochs import Means


@dataclass
class TrainingState:
    """Everything that changes while a run is trained. Its fields are the keys of a checkpoint.

    Attributes
    ----------
    model : ConvVAE
    optimizer : torch.optim.Optimizer
    band_means : Tensor [C, M]
        Mean of the normalised training features in each mel band, the baseline of R².
    normalization_stats : dict
        Statistics that features are normalised with. A run keeps those it began with: its weights depend on them.
    content_key : str
        The `TrainingData.content_key` of the audio that the run was last trained on.
    step : int
        Steps taken in the run.
    epoch : int
        Epochs completed.
    epoch_step : int
        Steps taken in the current epoch.
    best_loss : float
        Lowest validation loss.
    since_best : int
        Epochs completed since then, for early stopping.
    epoch_seconds : float
        Time spent on the steps of the current epoch.
    means : Means
        Running means over the current epoch; `rows` and `sums` in a checkpoint.
    """

    model: ConvVAE
    optimizer: torch.optim.Optimizer
    band_means: Tensor
    normalization_stats: dict[str, float]
    content_key: str
    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    best_loss: float = math.inf
    since_best: int = 0
    epoch_seconds: float = 0.0
    means: Means = field(default_factory=Means)

    def checkpoint(self) -> dict[str, Any]:
        """Return the state as plain values, together with that of torch's global generator."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        means = values.pop("means")
        return values | {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rows": means.rows,
            "sums": means.sums,
            "rng": torch.get_rng_state(),
        }

    @classmethod
    def restore(cls, checkpoint: Mapping[str, Any], model: ConvVAE, optimizer: torch.optim.Optimizer) -> TrainingState:
        """Load a checkpoint into a model and its optimizer, and return the state.

        The caller restores the state of torch's global generator, after the last draw that is not part of training.

        Raises
        ------
        RuntimeError, ValueError
            If the checkpoint is of a model of another architecture.
        """
        if (shape := list(checkpoint["band_means"].shape)) != list(model.row_shape[:2]):
            raise ValueError(f"band_means of shape {shape} must be {list(model.row_shape[:2])}")
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        values = {f.name: checkpoint[f.name] for f in fields(cls) if f.name in checkpoint}
        means = Means(checkpoint["rows"], checkpoint["sums"])
        return cls(**values | {"model": model, "optimizer": optimizer, "means": means})

    def begin_epoch(self) -> None:
        """Reset what counts the steps of an epoch."""
        self.epoch_step, self.epoch_seconds, self.means = 0, 0.0, Means()
