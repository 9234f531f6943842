"""The state of a training run: what a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
    val_limit : int or None
        The `TrainingData.val_limit` that the run began with; None: the `split.fixed_limit` of its `val_fraction`.
    order_key : str
        The `TrainingData.order_key` of the current epoch; empty in older checkpoints.
    step : int
        Steps taken in the run.
    epoch : int
        Epochs completed.
    epoch_step : int
        Steps taken in the current epoch.
    best_loss : float
        Lowest validation loss.
    best_epoch : int
        Number of the epoch whose weights are in model.safetensors; 0 for those of the start.
    since_best : int
        Epochs completed since the lowest validation loss, for early stopping.
    objective : dict
        The settings that the validation loss depends on, see `objective_of`; empty in older checkpoints.
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
    val_limit: int | None = None
    order_key: str = ""
    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    since_best: int = 0
    objective: dict[str, float] = field(default_factory=dict)
    epoch_seconds: float = 0.0
    means: Means = field(default_factory=Means)

    def checkpoint(self) -> dict[str, Any]:
        """Return the state as plain values, together with those of torch's generators."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        means = values.pop("means")
        return values | {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rows": means.rows,
            "sums": means.sums,
            "rng": torch.get_rng_state(),
            "device_rng": _device_rng(self.device),
        }

    @classmethod
    def restore(cls, checkpoint: Mapping[str, Any], model: ConvVAE, optimizer: torch.optim.Optimizer) -> TrainingState:
        """Load a checkpoint into a model and its optimizer, and return the state.

        The caller calls `restore_generators` after the last draw that is not part of training.

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

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    def begin_epoch(self) -> None:
        """Reset what counts the steps of an epoch."""
        self.epoch_step, self.epoch_seconds, self.means = 0, 0.0, Means()

    def forget_best(self) -> None:
        """Reset what validation losses are compared with; `best_epoch` remains that of model.safetensors."""
        self.best_loss, self.since_best = math.inf, 0


def restore_generators(checkpoint: Mapping[str, Any], device: torch.device) -> bool:
    """Restore torch's global generator and that of the device; return whether training draws from no other.

    The device's is not in older checkpoints, nor in those of a run on another kind of device.
    """
    torch.set_rng_state(checkpoint["rng"])
    found = checkpoint.get("device_rng") or {}
    if device.type in found:
        _GENERATORS[device.type][1](found[device.type], device)
    return device.type in found or device.type not in _GENERATORS


def _device_rng(device: torch.device) -> dict[str, Tensor]:
    """Return the state of the generator that dropout and latent noise are drawn from, by the type of the device."""
    return {device.type: _GENERATORS[device.type][0](device)} if device.type in _GENERATORS else {}


# How the state of a device's generator is read and written. On the CPU it is torch's global one.
_GENERATORS: dict[str, tuple[Callable[[torch.device], Tensor], Callable[[Tensor, torch.device], None]]] = {
    "cuda": (torch.cuda.get_rng_state, torch.cuda.set_rng_state),
    "mps": (lambda device: torch.mps.get_rng_state(), lambda state, device: torch.mps.set_rng_state(state)),
}
