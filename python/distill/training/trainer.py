"""The trainer of a run: the loop over its epochs and steps, its checkpoints and its best model."""

from __future__ import annotations

import copy
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from itertools import takewhile
from typing import Any, Literal

import torch

from distill.config import TrainingConfig
from distill.device import resolve_device
from distill.errors import RunError, TrainingDivergedError
from distill.features.normalization import energy_of
from distill.index import Dataset
from distill.models import ConvVAE, fit_pca, load_model, save_model
from distill.models.r2 import BandMeans
from distill.runs.folder import RunFolder
from distill.text import counted
from distill.training.data import TrainingData, model_batches
from distill.training.epochs import train_step, validate_epoch
from distill.training.events import EventKind, TrainEvent, TrainResult
from distill.training.report import Report
from distill.training.schedule import kl_weight, learning_rate
from distill.training.state import TrainingState
from distill.training.tensorboard import Board

logger = logging.getLogger(__name__)

_BASE_CHANNELS = {"small": 16, "medium": 32, "large": 48}
_PICTURES_EVERY_S = 20.0
_PCA_ROWS = 3072
_ENCODED_ROWS = 64


class Trainer:
    """The training of one run, from its start or its last checkpoint to its end or an interruption.

    Parameters
    ----------
    run : RunFolder
        The run folder, which must exist.
    config : TrainingConfig
        With every field set that `resolve_training` chooses.
    data : TrainingData
    checkpoint : dict or None
        The checkpoint to resume from; None to start.
    on_event : callable
        Called with a TrainEvent on progress.
    cancel : threading.Event
        If set, training stops before the next step.
    tensorboard : bool
        Whether metrics and previews also go to RUN/tensorboard. Default: False.

    Attributes
    ----------
    state : TrainingState
        Set by `train`.
    """

    state: TrainingState

    def __init__(
        self,
        run: RunFolder,
        config: TrainingConfig,
        data: TrainingData,
        checkpoint: dict[str, Any] | None,
        *,
        on_event: Callable[[TrainEvent], None],
        cancel: threading.Event,
        tensorboard: bool = False,
    ) -> None:
        self.run, self.config, self.data, self.cancel = run, config, data, cancel
        self.device = resolve_device(config.device)
        self._checkpoint = checkpoint
        self._on_event = on_event
        self._tensorboard = tensorboard
        self._drawn_at = -math.inf

    def emit(self, kind: EventKind, **values: Any) -> None:
        """Report an event to the caller."""
        self._on_event(TrainEvent(kind, values))

    def train(self, dataset: Dataset) -> TrainResult:
        """Train until the last epoch, early stopping or cancellation; `dataset` is recorded in the run folder."""
        config, data = self.config, self.data
        torch.manual_seed(config.seed)
        model = new_model(config, next(data.features(data.val)).shape[1:]).to(self.device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        self._latent_rows = torch.cat(list(data.training_rows(len(model.latents))))
        if self._checkpoint is None:
            self._begin(model, optimizer)
        else:
            self._resume(self._checkpoint, model, optimizer)
        # Not earlier: a run whose checkpoint does not fit is left unchanged.
        self.run.write_dataset(dataset)
        self.run.write_config(config)
        board = Board(self.run.path, self.state.epoch + 1) if self._tensorboard else None
        with board or nullcontext():
            self._report = Report(self.run, config, data, self.device, board)
            return self._run_epochs()

    def _begin(self, model: ConvVAE, optimizer: torch.optim.Optimizer) -> None:
        """Start from the PCA of the training rows, and save the model and a first checkpoint."""
        config, data, stats = self.config, self.data, self.data.stats
        means = BandMeans(*model.row_shape[:2])
        for features in data.features(data.train):
            means.update(features, energy_of(features, stats))
        pca = fit_pca(
            data.pca_rows(config.shifted_share, config.seed),
            config.latent_dim,
            max_rows=_PCA_ROWS,
            # The normalised magnitude of a band without energy.
            silence=-stats["mag_mean"] / stats["mag_std"],
            seed=config.seed,
        )
        model.init_linear_path(pca)
        self.state = TrainingState(model, optimizer, means.result().float(), stats, data.content_key)
        self.run.drop_metrics_from(1)
        # Before the first step too: as a PCA, the model is already usable.
        self._save_model()
        self._save_checkpoint(is_best=False)

    def _resume(self, checkpoint: dict[str, Any], model: ConvVAE, optimizer: torch.optim.Optimizer) -> None:
        """Continue from a checkpoint."""
        try:
            self.state = state = TrainingState.restore(checkpoint, model, optimizer)
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise RunError(
                f"{self.run.path}: its checkpoint does not fit its configuration: {' '.join(str(error).split())}",
                "resume with the configuration that the run was started with",
            ) from error
        if state.content_key != self.data.content_key:
            logger.warning("the dataset has changed since: the epoch is started again, and early stopping is reset")
            state.content_key = self.data.content_key
            state.begin_epoch()
            state.best_loss, state.since_best = math.inf, 0
        self._restore_lost_model()
        # After everything that builds a model, which draws from the generator.
        torch.set_rng_state(checkpoint["rng"])
        self.run.drop_metrics_from(state.epoch + 1)
        logger.info("resumed after %s and %s", counted(state.epoch, "epoch"), counted(state.epoch_step, "step"))

    def _run_epochs(self) -> TrainResult:
        state, config, steps = self.state, self.config, len(self.data.sampler)
        self.emit("start", epoch=state.epoch, epochs=config.epochs, steps_per_epoch=steps)
        while not self._is_over():
            self._train_epoch()
            if state.epoch_step < steps:
                self._save_checkpoint(is_best=False)
                return self._result("interrupted")
            self._finish_epoch()
        return self._result("finished" if state.epoch >= config.epochs else "stopped early")

    def _is_over(self) -> bool:
        return self.state.epoch >= self.config.epochs or self.state.since_best >= self.config.patience

    def _train_epoch(self) -> None:
        """Take the remaining steps of the current epoch, or those until cancellation."""
        state, config, data = self.state, self.config, self.data
        started = time.monotonic()
        data.sampler.epoch, data.sampler.first_step = state.epoch, state.epoch_step
        if state.epoch_step == 0:
            # Shifts, dropout and latent noise depend on the seed and the epoch, not on what was drawn before.
            torch.manual_seed(hash((config.seed, state.epoch)))
        state.model.train()
        # Checked before a batch draws its shifts, so that a resumed run draws the same ones.
        loaded = takewhile(lambda _: not self.cancel.is_set(), data.train)
        for target, energy in model_batches(
            loaded,
            data.spectrogram,
            data.stats,
            self.device,
            cached=data.is_cached,
            shifted_share=config.shifted_share,
        ):
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate(config, state.step, len(data.sampler) * config.epochs)
            self.emit("step", epoch=state.epoch + 1, step=state.epoch_step, **state.means.result())
            losses = train_step(
                state.model,
                state.optimizer,
                target,
                energy,
                if_weight=config.if_weight,
                kl_weight=kl_weight(config, state.epoch),
                free_bits=config.free_bits,
                gradient_clip=config.gradient_clip,
            )
            state.means.add(losses, len(target))
            state.step += 1
            state.epoch_step += 1
        state.epoch_seconds += time.monotonic() - started

    def _finish_epoch(self) -> None:
        """Validate, save the model if it is the best so far, and report."""
        state, config, data = self.state, self.config, self.data
        trained = state.means.result()
        validated = validate_epoch(
            state.model,
            data.val,
            data.spectrogram,
            use_cached_spectrograms=data.is_cached,
            normalization_stats=data.stats,
            band_means=state.band_means,
            if_weight=config.if_weight,
            kl_weight=config.kl_weight,
            free_bits=config.free_bits,
        )
        if not math.isfinite(trained["loss"] + validated["loss"]):
            raise TrainingDivergedError(
                f"the loss is no longer finite in epoch {state.epoch + 1}; the best weights so far are kept",
                f"start again with a --learning-rate below {config.learning_rate:g}",
            )
        state.epoch += 1
        line = _metrics_line(state, trained, validated)
        is_best = validated["loss"] < state.best_loss
        if is_best:
            state.best_loss, state.since_best = validated["loss"], 0
            self._save_model()
        else:
            state.since_best += 1
        state.begin_epoch()
        line, previews = self._report.complete(line, is_last=self._is_over())
        # The metrics first: a resumed run drops the lines that its checkpoint does not cover.
        self.run.append_metrics(line)
        self._save_checkpoint(is_best=is_best)
        self.emit("epoch", **line, is_best=is_best, epochs=config.epochs)
        if previews:
            logger.info("previews: %s", previews)
        # Not after every epoch: on a small dataset the pictures would take longer than the epoch.
        if time.monotonic() - self._drawn_at >= _PICTURES_EVERY_S:
            self._report.draw()
            self._drawn_at = time.monotonic()

    def _save_model(self) -> None:
        """Write the current weights to the run folder, with latent vectors of training rows for sampling."""
        model = self.state.model.eval()
        with torch.no_grad():
            batches = (rows.to(self.device) for rows in self._latent_rows.split(_ENCODED_ROWS))
            model.set_latents(torch.cat([model.encode(rows)[0] for rows in batches]))
        self._write_model(model)

    def _write_model(self, model: ConvVAE) -> None:
        save_model(self.run.path, model, features=asdict(self.config.features), statistics=self.data.stats)

    def _restore_lost_model(self) -> None:
        """Write the best weights again if those in the run folder cannot be read."""
        try:
            load_model(self.run.path)
        except RunError as error:
            logger.warning("%s; written again from the checkpoints", error)
            model = copy.deepcopy(self.state.model)
            if best := self.run.load_best():
                model.load_state_dict(best["model"])
            self._write_model(model)

    def _save_checkpoint(self, *, is_best: bool) -> None:
        self.run.save_state(self.state.checkpoint(), keep=self.config.keep_checkpoints, is_best=is_best)

    def _result(self, status: Literal["finished", "stopped early", "interrupted"]) -> TrainResult:
        lines = self.run.metrics()
        if lines:
            self._report.draw()
            if status != "interrupted":
                self._report.log(lines)
        best = min(lines, key=lambda line: line["val_loss"], default={})
        return TrainResult(self.run.path, status, self.state.epoch, best)


def new_model(config: TrainingConfig, row_shape: Sequence[int]) -> ConvVAE:
    """Return a model of the configured size for rows of shape (C, M, T)."""
    channels, n_mels, n_frames = row_shape
    return ConvVAE(
        in_channels=channels,
        latent_dim=config.latent_dim,
        n_mels=n_mels,
        n_frames=n_frames,
        base_channels=_BASE_CHANNELS[config.model_size],
        dropout=config.dropout or 0.0,
    )


def _metrics_line(state: TrainingState, trained: dict[str, float], validated: dict[str, float]) -> dict[str, Any]:
    """Return the line of metrics.jsonl of the epoch that just ended."""
    return {
        "epoch": state.epoch,
        "train_loss": trained["loss"],
        "val_loss": validated["loss"],
        "val_magnitude_r2": _finite(validated["magnitude_r2"]),
        "val_if_r2": _finite(validated["if_r2"]),
        "kl": trained["kl"],
        "learning_rate": state.optimizer.param_groups[0]["lr"],
        "seconds": state.epoch_seconds,
        "examples_per_s": state.means.rows / state.epoch_seconds,
        "train_magnitude": trained["magnitude"],
        "train_if": trained["instantaneous_frequency"],
        "val_magnitude": validated["magnitude"],
        "val_if": validated["instantaneous_frequency"],
        "val_kl": validated["kl"],
    }


def _finite(value: float) -> float | None:
    """Return `value`, or None if it is NaN or infinite, which JSON does not have."""
    return value if math.isfinite(value) else None
