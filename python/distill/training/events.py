"""What `train` reports while it runs and returns at its end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

EventKind = Literal["preprocess", "start", "step", "epoch", "analyze"]


@dataclass(frozen=True)
class TrainEvent:
    """A report of `train` on its progress.

    Attributes
    ----------
    kind : {"preprocess", "start", "step", "epoch", "analyze"}
        Values of each kind: preprocess and analyze: stage, current, total. start: epoch, epochs, steps_per_epoch.
        step: epoch, step, and from the epoch's second step on the mean losses so far. epoch: the line of
        metrics.jsonl, is_best, epochs.
    values : dict
        The values of that kind of event.

    Examples
    --------
    >>> from distill.training import TrainEvent
    >>> def show(event):  # train("recordings", "runs/new", on_event=show)
    ...     if event.kind == "epoch":
    ...         print(f"epoch {event.values['epoch']}: validation loss {event.values['val_loss']:.3f}")
    >>> show(TrainEvent("epoch", {"epoch": 3, "val_loss": 0.25}))
    epoch 3: validation loss 0.250
    """

    kind: EventKind
    values: dict[str, Any]


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a training run.

    Attributes
    ----------
    run_dir : Path
    status : {"finished", "stopped early", "interrupted"}
    epochs : int
        Epochs completed, over all sessions of the run.
    best : dict
        The line of metrics.jsonl of the epoch whose weights are in model.safetensors; empty if none was completed.
    latent_dir : Path or None
        RUN/latent, if the latent space was analysed.
    heard : dict or None
        What of validation sounds is kept by the weights that were the best at `epoch`, the last one at which that was
        measured: pitch_cents, envelope and level_db, and with `features_` before these names what features alone keep.
        They are described in `distill.training.listening.compare`. None if nothing was measured.

    Examples
    --------
    >>> from distill.training import train
    >>> result = train(None, "runs/first", resume=True, analyze=False)  # a run that has finished
    >>> result.status, result.epochs, result.best["epoch"]
    ('finished', 1, 1)
    """

    run_dir: Path
    status: Literal["finished", "stopped early", "interrupted"]
    epochs: int
    best: dict[str, Any]
    latent_dir: Path | None = None
    heard: dict[str, Any] | None = None
