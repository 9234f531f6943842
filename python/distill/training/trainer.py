"""The trainer of a run: the loop over its epochs and steps, its checkpoints and its best model."""

from __future__ import annotations

import logging
import math
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import takewhile
from typing import Any, Literal

import torch
from torch import Tensor

from distill.config import TrainingConfig, spectrogram_fields
from distill.device import resolve_device
from distill.errors import PreprocessingCancelled, TrainingDivergedError
from distill.index import Dataset
from distill.models import ConvVAE, save_model
from distill.models.part import Part
from distill.runs.folder import RunFolder
from distill.runs.state import is_finite
from distill.text import counted
from distill.training.data import TrainingData, model_batches
from distill.training.epochs import train_step, validate_epoch
from distill.training.events import EventKind, TrainEvent, TrainResult
from distill.training.level import LEVEL_ROWS, levels_of, measure_gain
from distill.training.listening import heard_in
from distill.training.report import Report
from distill.training.resume import best_line, continued_state, lost_weights, objective_of, unchanged_result
from distill.training.schedule import kl_weight, learning_rate
from distill.training.start import starting_point
from distill.training.state import TrainingState, restore_generators
from distill.training.tensorboard import Board
from distill.training.world import World
from distill.types import ProgressCallback, no_progress

logger = logging.getLogger(__name__)

_BASE_CHANNELS = {"small": 16, "medium": 32, "large": 48}
_PICTURES_EVERY_S = 20.0
# Within an epoch, too: no more than this is lost in a power cut.
_SAVE_EVERY_S = 300.0
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
    world : World
        The processes that train together. Only the first one writes to the run folder, and needs `checkpoint`.
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
        world: World,
        tensorboard: bool = False,
    ) -> None:
        self.run, self.config, self.data, self.world = run, config, data, world
        self.device = resolve_device(config.device)
        self._checkpoint = checkpoint
        self._on_event = on_event
        self._tensorboard = tensorboard
        self._drawn_at = -math.inf
        self._saved_at = time.monotonic()

    def emit(self, kind: EventKind, **values: Any) -> None:
        """Report an event to the caller."""
        self._on_event(TrainEvent(kind, values))

    def train(self, dataset: Dataset) -> TrainResult:
        """Train until the last epoch, early stopping or cancellation; `dataset` is recorded in the run folder."""
        config, data = self.config, self.data
        torch.manual_seed(config.seed)
        model = new_model(config, next(data.features(data.val)).shape[1:]).to(self.device)
        assert config.weight_decay is not None
        optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        if not self.world.is_first:
            return self._follow(model, optimizer)
        try:
            self._latent_rows = torch.cat(list(data.training_rows(len(model.latents), self._progress)))
            self._latent_levels = levels_of(self._latent_rows, data.stats)
            self._level_rows = data.validation_rows(LEVEL_ROWS)
            if self._checkpoint is None:
                self._begin(model, optimizer)
            else:
                self._resume(self._checkpoint, model, optimizer)
        except PreprocessingCancelled:
            return unchanged_result(self.run, self._checkpoint)
        self.world.tell(self.state.checkpoint)
        # Not earlier: a run whose checkpoint does not fit is left unchanged.
        self.run.write_dataset(dataset)
        self.run.write_config(config)
        board = Board(self.run.path, self.state.epoch + 1) if self._tensorboard else None
        with board or nullcontext():
            self._report = Report(self.run, config, data, dataset, self.device, board)
            return self._run_epochs()

    def _follow(self, model: ConvVAE, optimizer: torch.optim.Optimizer) -> TrainResult:
        """Train from the state that the first process has begun or resumed."""
        checkpoint = self.world.hear()
        if checkpoint is None:
            return TrainResult(self.run.path, "interrupted", 0, {})
        self.state = TrainingState.restore(checkpoint, model, optimizer)
        restore_generators(checkpoint, self.device)
        return self._run_epochs()

    def _begin(self, model: ConvVAE, optimizer: torch.optim.Optimizer) -> None:
        """Start from the PCA of the training rows, and save the model and a first checkpoint."""
        band_means, pca = starting_point(self.data, self.config, self._progress)
        model.init_linear_path(pca)
        self.state = TrainingState(
            model,
            optimizer,
            band_means,
            self.data.stats,
            self.data.content_key,
            self.data.val_limit,
            self.data.order_key,
            objective=objective_of(self.config),
        )
        self.run.drop_metrics_from(1)
        # Before the first step too: as a PCA, the model is already usable.
        self._save_model(self._progress)
        self._save_checkpoint(is_best=False)

    def _progress(self, stage: str, current: int, total: int) -> None:
        """Report progress before the first step; raise PreprocessingCancelled if training is to stop."""
        if self.world.is_told_to_stop:
            raise PreprocessingCancelled("cancelled before the first step")
        self.emit("preprocess", stage=stage, current=current, total=total)

    def _resume(self, checkpoint: dict[str, Any], model: ConvVAE, optimizer: torch.optim.Optimizer) -> None:
        """Continue from a checkpoint."""
        self.state = state = continued_state(self.run, checkpoint, model, optimizer, self.config, self.data)
        if lost := lost_weights(self.run, state):
            self._write_model(lost)
        # After everything that builds a model, which draws from the generator.
        if not restore_generators(checkpoint, self.device) and state.epoch_step:
            logger.warning("the rest of this epoch draws other random numbers than without the interruption")
        self.run.drop_metrics_from(state.epoch + 1)
        logger.info("resumed after %s and %s", counted(state.epoch, "epoch"), counted(state.epoch_step, "step"))
        if "objective" not in checkpoint:
            # Of an earlier version. Only config.toml, which is replaced now, says what its best loss means.
            self._save_checkpoint(is_best=False)

    def _run_epochs(self) -> TrainResult:
        state, config, steps = self.state, self.config, len(self.data.sampler)
        assert config.batch_size is not None
        self._model = self.world.wrap(state.model, config.batch_size)
        self.emit("start", epoch=state.epoch, epochs=config.epochs, steps_per_epoch=steps)
        while not self._is_over():
            self._train_epoch()
            validated = self._validate() if state.epoch_step >= steps else None
            if validated is None:
                self._save_checkpoint(is_best=False)
                return self._result("interrupted")
            self._finish_epoch(validated)
        return self._result("finished" if state.epoch >= self._epochs else "stopped early")

    @property
    def _epochs(self) -> int:
        assert self.config.epochs is not None
        return self.config.epochs

    def _is_over(self) -> bool:
        return self.state.epoch >= self._epochs or self.state.since_best >= self.config.patience

    def _train_epoch(self) -> None:
        """Take the remaining steps of the current epoch, or those until cancellation."""
        state, config, data = self.state, self.config, self.data
        sampler, world = data.sampler, self.world
        sampler.epoch, sampler.first_step, sampler.share = state.epoch, state.epoch_step, world.share
        if state.epoch_step == 0:
            # Shifts, dropout and latent noise depend on the seed and the epoch, not on what was drawn before.
            torch.manual_seed(hash((config.seed, state.epoch)))
        state.model.train()
        # Checked before a batch draws its shifts, so that a resumed run draws the same ones.
        loaded = takewhile(lambda _: not world.is_cancelled, data.train)
        before = time.monotonic()
        for target, energy, part in model_batches(
            loaded,
            data.spectrogram,
            data.stats,
            self.device,
            cached=data.is_cached,
            shifted_share=config.shifted_share,
            parts=world.parts(len(data.train.dataset), sampler.batch_size, state.epoch_step),  # type: ignore[arg-type]
        ):
            self.emit("step", epoch=state.epoch + 1, step=state.epoch_step, **state.means.result())
            self._step(target, energy, part)
            # After every step, as a checkpoint holds it; saving does not count.
            now = time.monotonic()
            state.epoch_seconds += now - before
            if now - self._saved_at >= _SAVE_EVERY_S:
                self._save_checkpoint(is_best=False)
            before = time.monotonic()

    def _step(self, target: Tensor, energy: Tensor | None, part: Part | None) -> None:
        """Take a step of the current epoch on a batch, or with other processes on their parts of one."""
        state, config, steps = self.state, self.config, len(self.data.sampler)
        position = state.epoch * steps + state.epoch_step
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(config, position, steps * self._epochs, state.step)
        losses = train_step(
            self._model,
            state.optimizer,
            target,
            energy,
            if_weight=config.if_weight,
            kl_weight=kl_weight(config, state.epoch),
            free_bits=config.free_bits,
            loud_share=config.loud_share,
            gradient_clip=config.gradient_clip,
            part=part,
        )
        state.means.add(losses, len(target) if part is None else part.total)
        state.step += 1
        state.epoch_step += 1
        self._check_finite("loss", state.means.sums)

    def _check_finite(self, what: str, values: dict[str, Any]) -> None:
        """Raise TrainingDivergedError if a number or a tensor in `values` is NaN or infinite."""
        if not is_finite(values):
            raise TrainingDivergedError(
                f"the {what} is not finite in epoch {self.state.epoch + 1}; "
                "the best weights so far and the last checkpoint are kept",
                f"continue with --resume {shlex.quote(str(self.run.path))} "
                f"and a --learning-rate below {self.config.learning_rate:g}",
            )

    def _validate(self) -> dict[str, float] | None:
        """Return losses and R² of the validation chunks; None if cancelled."""
        state, config, data, world = self.state, self.config, self.data, self.world
        batches = data.val.batch_sampler
        batches.share = world.share  # type: ignore[union-attr]
        validated = validate_epoch(
            state.model,
            takewhile(lambda _: not world.is_cancelled, data.val),
            data.spectrogram,
            use_cached_spectrograms=data.is_cached,
            normalization_stats=data.stats,
            band_means=state.band_means,
            if_weight=config.if_weight,
            kl_weight=config.kl_weight,
            free_bits=config.free_bits,
            loud_share=config.loud_share,
            parts=world.parts(len(data.val.dataset), batches.batch_size),  # type: ignore[arg-type, union-attr]
        )
        return None if world.is_cancelled else validated

    def _finish_epoch(self, validated: dict[str, float]) -> None:
        """Save the model if it is the best so far, and report; `validated` is the result of the validation."""
        state = self.state
        trained = state.means.result()
        self._check_finite("validation loss", {"loss": validated["loss"]})
        self._check_weights()
        state.epoch += 1
        validation_rows = len(self.data.val.dataset)  # type: ignore[arg-type]
        line = _metrics_line(state, trained, validated, validation_rows)
        is_best = validated["loss"] < state.best_loss
        if is_best:
            state.best_loss, state.best_epoch, state.since_best = validated["loss"], state.epoch, 0
            self._save_model()
        else:
            state.since_best += 1
        state.begin_epoch()
        if self.world.is_first:
            self._record_epoch(line, is_best=is_best)

    def _record_epoch(self, line: dict[str, Any], *, is_best: bool) -> None:
        """Write and report the `line` of metrics.jsonl of an epoch, with its checkpoint."""
        line, previews = self._report.complete(line, is_last=self._is_over())
        # The metrics first: a resumed run drops the lines that its checkpoint does not cover.
        self.run.append_metrics(line)
        self._save_checkpoint(is_best=is_best)
        self.emit("epoch", **line, is_best=is_best, epochs=self.config.epochs)
        if previews:
            logger.info("previews: %s", previews)
        # Not after every epoch: on a small dataset the pictures would take longer than the epoch.
        is_first_quality = "prior_frechet" in line and not (self.run.path / "quality.png").exists()
        if is_first_quality or time.monotonic() - self._drawn_at >= _PICTURES_EVERY_S:
            self._report.draw()
            self._drawn_at = time.monotonic()

    def _save_model(self, progress: ProgressCallback = no_progress) -> None:
        """Write the current weights to the run folder, with latent vectors of training rows for sampling."""
        if not self.world.is_first:
            return
        model = self.state.model.eval()
        latents: list[torch.Tensor] = []
        with torch.no_grad():
            for rows in self._latent_rows.split(_ENCODED_ROWS):
                progress("encode", len(latents) * _ENCODED_ROWS, len(self._latent_rows))
                latents.append(model.encode(rows.to(self.device))[0])
        model.set_latents(torch.cat(latents))
        self._write_model(model)

    def _write_model(self, model: ConvVAE) -> None:
        stats = self.data.stats
        level = {"gain_db": measure_gain(model.eval(), self._level_rows, stats), "rows_db": self._latent_levels}
        save_model(
            self.run.path, model, features=spectrogram_fields(self.config.features), statistics=stats, level=level
        )

    def _check_weights(self) -> None:
        model, optimizer = self.state.model.state_dict(), self.state.optimizer.state_dict()
        self._check_finite("model", {"model": model, "optimizer": optimizer["state"]})

    def _save_checkpoint(self, *, is_best: bool) -> None:
        if not self.world.is_first:
            return
        self._check_weights()
        self.run.save_state(self.state.checkpoint(), keep=self.config.keep_checkpoints, is_best=is_best)
        self._saved_at = time.monotonic()

    def _result(self, status: Literal["finished", "stopped early", "interrupted"]) -> TrainResult:
        if not self.world.is_first:
            return TrainResult(self.run.path, status, self.state.epoch, {})
        lines = self.run.metrics()
        if lines:
            self._report.draw()
            if status != "interrupted":
                self._report.log(lines)
        best = best_line(self.run, self.state.best_epoch)
        return TrainResult(self.run.path, status, self.state.epoch, best, heard=heard_in(lines))


def new_model(config: TrainingConfig, row_shape: Sequence[int]) -> ConvVAE:
    """Return a model of the configured size for rows of shape (C, M, T)."""
    channels, n_mels, n_frames = row_shape
    return ConvVAE(
        in_channels=channels,
        latent_dim=config.latent_dim,
        latent_frames=config.latent_frames,
        n_mels=n_mels,
        n_frames=n_frames,
        base_channels=_BASE_CHANNELS[config.model_size],
        dropout=config.dropout or 0.0,
    )


def _metrics_line(
    state: TrainingState, trained: dict[str, float], validated: dict[str, float], val_chunks: int
) -> dict[str, Any]:
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
        "val_chunks": val_chunks,
    }


def _finite(value: float) -> float | None:
    """Return `value`, or None if it is NaN or infinite, which JSON does not have."""
    return value if math.isfinite(value) else None
