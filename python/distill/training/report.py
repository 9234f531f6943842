"""The report of a run: quality figures, previews and pictures of its best weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from distill.config import TrainingConfig
from distill.errors import StorageError
from distill.features.mel import MelSpec
from distill.features.normalization import denormalize
from distill.index import Dataset
from distill.models import ConvVAE, load_model
from distill.models.store import load_description
from distill.plots.training import save_loss_picture, save_quality_picture, save_reconstruction_picture
from distill.runs.folder import RunFolder
from distill.runs.instrument import Instrument
from distill.training.chunks import ValidationChunks
from distill.training.data import TrainingData
from distill.training.listening import heard_in, sentence
from distill.training.previews import Previews, save_previews
from distill.training.quality import Quality
from distill.training.tensorboard import Board

logger = logging.getLogger(__name__)

_SHOWN_CHUNKS = 4
# Measuring the quality takes about as long as 40 steps of the small model, so at most every so many steps.
_STEPS_BETWEEN = 1000

# Sentences of the log: a beginning, and clauses that are left out if the figure they are keyed by is undefined.
_SENTENCES: tuple[tuple[str, dict[str, str]], ...] = (
    (
        "validation chunks reconstructed by the model, compared with an inversion of their features alone: ",
        {
            "spectral_convergence": "spectral convergence {spectral_convergence}",
            "log_spectral_db": "log-spectral distance {log_spectral_db} dB",
            "multi_resolution": "multi-resolution STFT distance {multi_resolution}",
        },
    ),
    (
        "samples compared with the training rows: ",
        {
            "prior_mean": "mean of the mel bands off by {prior_mean} and spread by {prior_spread} standard deviations",
            "prior_frechet": "Fréchet distance {prior_frechet} "
            "(validation chunks {held_out_frechet}, a constant 1 or more)",
        },
    ),
    (
        "distance of samples to the nearest training row: ",
        {"prior_nearest": "{prior_nearest} times that of validation chunks (near 0 for copies)"},
    ),
)


class Report:
    """Writes quality figures, previews and pictures of the weights in model.safetensors, the best so far.

    Parameters
    ----------
    folder : RunFolder
        Folder of the run.
    config : TrainingConfig
        Configuration of the run.
    data : TrainingData
        Data of the run.
    dataset : Dataset
        Where they are from.
    device : torch.device
        Device to measure on.
    board : Board, optional
        TensorBoard, to which every epoch is added.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: TrainingConfig,
        data: TrainingData,
        dataset: Dataset,
        device: torch.device,
        board: Board | None = None,
    ) -> None:
        self._folder, self._config, self._data, self._device = folder, config, data, device
        self._board = board
        # A number of steps, not a time, so that a resumed run measures at the same epochs.
        self._epochs_between = -(-_STEPS_BETWEEN // len(data.sampler))
        self._quality: Quality | None = None
        self._measured = measured = ValidationChunks(data, dataset, config)
        # The loudest of every eight, because the faint end of a file shows nothing.
        loudness = measured.rows[:, 0].mean(dim=(1, 2))
        groups = torch.arange(len(loudness)).chunk(_SHOWN_CHUNKS)
        self._shown = [int(group[loudness[group].argmax()]) for group in groups]
        self._chunks = measured.rows[self._shown]
        self._names = [measured.names[index] for index in self._shown]

    def complete(self, line: dict[str, Any], *, is_last: bool) -> tuple[dict[str, Any], Path | None]:
        """Add quality figures to an epoch's line of metrics.jsonl, and write previews, in the epochs that have them.

        Parameters
        ----------
        line : dict
            The line without quality figures.
        is_last : bool
            Whether the training ends with this epoch, which always has them.

        Returns
        -------
        line : dict
            The line, with quality figures if they were measured.
        previews : Path or None
            Folder of the previews, if any were written.

        Raises
        ------
        OSError, StorageError
            If a file cannot be written.
        """
        epoch, every = line["epoch"], self._config.preview_epochs
        previews: Previews | None = None
        is_measured = is_last or epoch % self._epochs_between == 0
        has_previews = every > 0 and (is_last or epoch % every == 0)
        if is_measured or has_previews:
            model = load_model(self._folder.path, self._device)
        if is_measured:
            line = line | self._measure(model)
        if has_previews:
            previews = self._preview(model, epoch)
        if self._board:
            self._board.add(line, previews)
        return line, None if previews is None else previews.folder

    def _measure(self, model: ConvVAE) -> dict[str, float | None]:
        if self._quality is None:
            self._quality = Quality(self._data, self._config, self._measured)
        level = load_description(self._folder.path).get("level")
        return self._quality.measure(model, level["gain_db"] if level else 0.0)

    def _preview(self, model: ConvVAE, epoch: int) -> Previews:
        stats = self._data.stats
        level = load_description(self._folder.path).get("level")
        instrument = Instrument(model, self._config, stats, level)
        chunks = denormalize(self._chunks, stats)
        originals = [self._measured.recordings[index] for index in self._shown]
        try:
            return save_previews(
                self._folder.path,
                instrument,
                chunks,
                names=self._names,
                originals=originals,
                epoch=epoch,
                seed=self._config.seed,
            )
        except StorageError as error:
            raise StorageError(str(error), self._folder.remedy(error.__cause__)) from error

    def draw(self) -> None:
        """Draw losses and quality over epochs, and reconstructions of validation chunks."""
        lines = self._folder.metrics()
        save_loss_picture(lines, self._folder.path / "loss.png")
        heard = heard_in(lines)
        save_quality_picture(lines, self._folder.path / "quality.png", title=sentence(heard) if heard else "")
        with torch.no_grad():
            output = load_model(self._folder.path)(self._chunks)[0]
        stats, config = self._data.stats, self._config.features
        save_reconstruction_picture(
            denormalize(self._chunks, stats).numpy(),
            denormalize(output, stats).numpy(),
            self._folder.path / "reconstruction.png",
            centres=MelSpec.of(config).centres_hz(),
            duration_s=self._chunks.shape[-1] * config.hop_length / config.sample_rate,
            titles=self._names,
        )

    def log(self, lines: list[dict[str, Any]]) -> None:
        """Log the quality figures of the last of the metrics `lines` that has some."""
        for line in reversed(lines):
            if "prior_frechet" in line:
                for sentence in _sentences(line):
                    logger.info("%s", sentence)
                return


def _sentences(line: dict[str, Any]) -> Iterator[str]:
    """Yield the figures of `Quality` in words, without those that are undefined."""
    figures = {name: f"{value:.3g}" for name, value in line.items() if value is not None}
    for beginning, clauses in _SENTENCES:
        defined = [clause for name, clause in clauses.items() if name in figures]
        if defined:
            yield beginning + ", ".join(defined).format_map(figures)
