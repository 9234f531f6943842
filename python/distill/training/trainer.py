"""One session of a run: from its start, or from where it was left, to its end or the next interruption."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
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
from distill.training.data import Material
from distill.training.epochs import Means, train_epoch, validate_epoch
from distill.training.report import Report
from distill.training.tensorboard import Board

logger = logging.getLogger(__name__)

BASE_CHANNELS = {"small": 16, "medium": 32, "large": 48}
_WARM_UP_STEPS = 50
_FINAL_LEARNING_RATE = 0.01
_PICTURES_EVERY_S = 20.0
_PCA_ROWS = 3072
_ENCODED_ROWS = 64

EventKind = Literal["preprocess", "start", "step", "epoch", "analyze"]


@dataclass(frozen=True)
class TrainEvent:
    """What `train` reports as it goes.

    Attributes
    ----------
    kind : {"preprocess", "start", "step", "epoch", "analyze"}
        preprocess, analyze: stage, current, total. start: epoch, epochs, steps_per_epoch. step: epoch, step, loss.
        epoch: the line of metrics.jsonl.
    values : dict
        As above.
    """

    kind: EventKind
    values: dict[str, Any]


@dataclass(frozen=True)
class TrainResult:
    """How a training run ended.

    Attributes
    ----------
    run_dir : Path
    status : {"finished", "stopped early", "interrupted"}
    epochs : int
        Epochs completed, over all sessions of the run.
    best : dict
        The line of metrics.jsonl of the best epoch; empty if none was completed.
    latent_dir : Path or None
        RUN/latent, if the latent space was analysed.
    """

    run_dir: Path
    status: Literal["finished", "stopped early", "interrupted"]
    epochs: int
    best: dict[str, Any]
    latent_dir: Path | None = None


class Session:
    """Trains what it is given, tells what it does, and saves what a later session needs."""

    def __init__(
        self,
        run: RunFolder,
        config: TrainingConfig,
        on_event: Callable[[TrainEvent], None] | None,
        cancel_event: threading.Event | None,
        *,
        tensorboard: bool = False,
    ) -> None:
        self.folder, self.config = run, config
        self.device = resolve_device(config.device)
        self.cancel = cancel_event or threading.Event()
        self._on_event = on_event or (lambda event: None)
        self._tensorboard = tensorboard
        self.state = run.load_state()
        # A run keeps the statistics that it began with: its weights are made for them.
        self.normalization_stats: dict[str, float] | None = self.state["normalization_stats"] if self.state else None
        self.pictured = -math.inf

    def tell(self, kind: EventKind, **values: Any) -> None:
        """Report an event to the caller."""
        self._on_event(TrainEvent(kind, values))

    def run(self, material: Material, dataset: Dataset) -> TrainResult:
        """Train until the end, early stopping or cancellation; `dataset` is where the material is from."""
        torch.manual_seed(self.config.seed)
        sample = next(material.features(material.val))
        self.model = self._make_model(sample.shape[1:]).to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        self.material = material
        self.latent_rows = torch.cat(list(material.training_rows(len(self.model.latents))))
        if self.state:
            self._restore(self.state)
        else:
            self._begin()
        # Only now: a run whose state does not fit is left as it is.
        self.folder.write_dataset(dataset)
        self.folder.write_config(self.config)
        board = Board(self.folder.path, self.epoch + 1) if self._tensorboard else None
        with board or nullcontext():
            self.report = Report(self.folder, self.config, material, self.device, board)
            return self._run_epochs()

    def _run_epochs(self) -> TrainResult:
        steps = len(self.material.batches)
        self.tell("start", epoch=self.epoch, epochs=self.config.epochs, steps_per_epoch=steps)
        while not self._is_over():
            if not self._run_epoch(steps):
                return self._end("interrupted")
        return self._end("finished" if self.epoch >= self.config.epochs else "stopped early")

    def _is_over(self) -> bool:
        return self.epoch >= self.config.epochs or self.since_best >= self.config.patience

    def _make_model(self, shape: tuple[int, ...]) -> ConvVAE:
        channels, n_mels, n_frames = shape
        return ConvVAE(
            in_channels=channels,
            latent_dim=self.config.latent_dim,
            n_mels=n_mels,
            n_frames=n_frames,
            base_channels=BASE_CHANNELS[self.config.model_size],
            dropout=self.config.dropout or 0.0,
        )

    def _begin(self) -> None:
        material = self.material
        means = BandMeans(self.model.row_shape[0], self.model.row_shape[1])
        for features in material.features(material.train):
            means.update(features, energy_of(features, material.stats))
        self.band_means = means.result().float()
        self.folder.drop_metrics_from(1)
        stats = material.stats
        pca = fit_pca(
            material.rows_to_fit(self.config.shifted_share, self.config.seed),
            self.config.latent_dim,
            max_rows=_PCA_ROWS,
            # What a band without energy becomes once it is normalised.
            silence=-stats["mag_mean"] / stats["mag_std"],
            seed=self.config.seed,
        )
        self.model.init_linear_path(pca)
        self.step = self.epoch = self.epoch_step = self.since_best = 0
        self.best_loss, self.means, self.epoch_seconds = math.inf, Means(), 0.0
        # Before the first step too: as a PCA, the model is of use already.
        self._save_model()
        self._save(is_best=False)

    def _save_model(self) -> None:
        self.model.eval()
        with torch.no_grad():
            batches = (rows.to(self.device) for rows in self.latent_rows.split(_ENCODED_ROWS))
            self.model.set_latents(torch.cat([self.model.encode(rows)[0] for rows in batches]))
        self._write_model(self.model)

    def _write_model(self, model: ConvVAE) -> None:
        features = asdict(self.config.features)
        save_model(self.folder.path, model, features=features, statistics=self.material.stats)

    def _write_lost_model(self, state: dict[str, Any]) -> None:
        """Write the best weights again if those in the run folder cannot be used."""
        try:
            load_model(self.folder.path)
        except RunError as error:
            logger.warning("%s; written again from the checkpoints", error)
            model = self._make_model(self.model.row_shape)
            model.load_state_dict((self.folder.load_best() or state)["model"])
            self._write_model(model)

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise RunError(
                f"{self.folder.path}: its checkpoint does not fit its configuration: {' '.join(str(error).split())}",
                "resume with the configuration that the run was started with",
            ) from error
        self.band_means = state["band_means"]
        self.step, self.epoch, self.epoch_step = state["step"], state["epoch"], state["epoch_step"]
        self.best_loss, self.since_best = state["best_loss"], state["since_best"]
        self.means, self.epoch_seconds = Means(state["rows"], state["sums"]), state["epoch_seconds"]
        if state["content_key"] != self.material.content_key:
            logger.warning("the dataset has changed since: its epoch begins anew, and so does the search for the best")
            self.epoch_step, self.means, self.epoch_seconds = 0, Means(), 0.0
            self.best_loss, self.since_best = math.inf, 0
        self._write_lost_model(state)
        torch.set_rng_state(state["rng"])
        self.folder.drop_metrics_from(self.epoch + 1)
        logger.info("resumed after %d epochs and %d steps", self.epoch, self.epoch_step)

    def _save(self, *, is_best: bool) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "band_means": self.band_means,
            "normalization_stats": self.material.stats,
            "content_key": self.material.content_key,
            "step": self.step,
            "epoch": self.epoch,
            "epoch_step": self.epoch_step,
            "best_loss": self.best_loss,
            "since_best": self.since_best,
            "rows": self.means.rows,
            "sums": self.means.sums,
            "epoch_seconds": self.epoch_seconds,
            "rng": torch.get_rng_state(),
        }
        self.folder.save_state(state, keep=self.config.keep_checkpoints, is_best=is_best)

    def _run_epoch(self, steps: int) -> bool:
        """One epoch, or the rest of one; False if it was interrupted."""
        started = time.monotonic()
        batches = self.material.batches
        batches.epoch, batches.first_step = self.epoch, self.epoch_step
        if self.epoch_step == 0:
            # The epoch alone decides dropout and sampling, whatever ran before it in this process.
            torch.manual_seed(hash((self.config.seed, self.epoch)))
        warm_up = self.config.kl_warmup_epochs
        kl_weight = self.config.kl_weight * (min(1.0, self.epoch / warm_up) if warm_up else 1.0)
        trained = train_epoch(
            self.model,
            self.material.train,
            self.optimizer,
            self.material.spectrogram,
            **self._objective() | {"kl_weight": kl_weight},
            gradient_clip=self.config.gradient_clip,
            shifted_share=self.config.shifted_share,
            means=self.means,
            before_step=lambda: self._before_step(steps),
        )
        self.epoch_seconds += time.monotonic() - started
        if self.epoch_step < steps:
            self._save(is_best=False)
            return False
        self._finish_epoch(trained)
        return True

    def _objective(self) -> dict[str, Any]:
        config = self.config
        return {
            "use_cached_spectrograms": self.material.spectrogram is None,
            "normalization_stats": self.material.stats,
            "if_weight": config.if_weight,
            "kl_weight": config.kl_weight,
            "free_bits": config.free_bits,
        }

    def _before_step(self, steps: int) -> bool:
        if self.cancel.is_set():
            return False
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(steps * self.config.epochs)
        self.tell("step", epoch=self.epoch + 1, step=self.epoch_step, **self.means.result())
        self.step += 1
        self.epoch_step += 1
        return True

    def _learning_rate(self, total: int) -> float:
        # However short the run: the first steps must not undo the start from the PCA.
        warm_up = min(1.0, (self.step + 1) / _WARM_UP_STEPS)
        cosine = (1 + math.cos(math.pi * min(1.0, self.step / total))) / 2
        return self.config.learning_rate * warm_up * (_FINAL_LEARNING_RATE + (1 - _FINAL_LEARNING_RATE) * cosine)

    def _finish_epoch(self, trained: dict[str, float]) -> None:
        validated = validate_epoch(
            self.model, self.material.val, self.material.spectrogram, **self._objective(), band_means=self.band_means
        )
        if not math.isfinite(trained["loss"] + validated["loss"]):
            raise TrainingDivergedError(
                f"the loss is no longer finite in epoch {self.epoch + 1}; the best weights so far are kept",
                f"start again with a --learning-rate below {self.config.learning_rate:g}",
            )
        self.epoch += 1
        is_best = validated["loss"] < self.best_loss
        line = self._metrics_line(trained, validated)
        if is_best:
            self.best_loss, self.since_best = validated["loss"], 0
            self._save_model()
        else:
            self.since_best += 1
        self.epoch_step, self.epoch_seconds, self.means = 0, 0.0, Means()
        line, previews = self.report.complete(line, is_last=self._is_over())
        # The line first: a resumed run drops the lines that its state does not cover.
        self.folder.append_metrics(line)
        self._save(is_best=is_best)
        self.tell("epoch", **line, is_best=is_best, epochs=self.config.epochs)
        if previews:
            logger.info("to listen to: %s", previews)
        # On a small dataset pictures would cost more than the epoch.
        if time.monotonic() - self.pictured >= _PICTURES_EVERY_S:
            self.report.draw()
            self.pictured = time.monotonic()

    def _metrics_line(self, trained: dict[str, float], validated: dict[str, float]) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "train_loss": trained["loss"],
            "val_loss": validated["loss"],
            "val_magnitude_r2": _finite(validated["magnitude_r2"]),
            "val_if_r2": _finite(validated["if_r2"]),
            "kl": trained["kl"],
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": self.epoch_seconds,
            "examples_per_s": self.means.rows / self.epoch_seconds,
            "train_magnitude": trained["magnitude"],
            "train_if": trained["instantaneous_frequency"],
            "val_magnitude": validated["magnitude"],
            "val_if": validated["instantaneous_frequency"],
            "val_kl": validated["kl"],
        }

    def _end(self, status: Literal["finished", "stopped early", "interrupted"]) -> TrainResult:
        lines = self.folder.metrics()
        if lines:
            self.report.draw()
            if status != "interrupted":
                self.report.tell(lines)
        best = min(lines, key=lambda line: line["val_loss"], default={})
        return TrainResult(self.folder.path, status, self.epoch, best)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
