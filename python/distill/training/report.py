"""What a run tells of its best weights: pictures, previews, what they lose, and how far their samples are from data."""

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
from distill.models import ConvVAE, load_model
from distill.plots.training import save_loss_picture, save_quality_picture, save_reconstruction_picture
from distill.runs.folder import RunFolder
from distill.runs.instrument import Instrument
from distill.training.data import Material
from distill.training.previews import Previews, save_previews
from distill.training.quality import Quality
from distill.training.tensorboard import Board

logger = logging.getLogger(__name__)

_SHOWN_CHUNKS = 4
# Measuring takes about as long as 40 steps of the small model.
_STEPS_BETWEEN = 1000

# A clause by the figure without which there is none.
_FIGURES: tuple[tuple[str, dict[str, str]], ...] = (
    (
        "held-out chunks by way of the model, against their features alone: ",
        {
            "spectral_convergence": "spectral convergence {spectral_convergence}",
            "log_spectral_db": "log-spectral distance {log_spectral_db} dB",
            "multi_resolution": "multi-resolution STFT distance {multi_resolution}",
        },
    ),
    (
        "samples, against the data: ",
        {
            "prior_mean": "means of the bands {prior_mean} and their spread {prior_spread} standard deviations off",
            "prior_frechet": "Fréchet distance {prior_frechet} "
            "(held-out chunks {held_out_frechet}, a constant 1 or more)",
        },
    ),
    (
        "samples, to the nearest training row: ",
        {"prior_nearest": "{prior_nearest} times as far as held-out chunks; copies are near 0"},
    ),
)


class Report:
    """Measures, draws, lets hear and tells, always of the weights in model.safetensors: the best so far.

    Parameters
    ----------
    folder : RunFolder
        The run.
    config : TrainingConfig
        Its configuration.
    material : Material
        What it is trained on.
    device : torch.device
        Where to measure.
    board : Board, optional
        Where epochs are shown, too.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: TrainingConfig,
        material: Material,
        device: torch.device,
        board: Board | None = None,
    ) -> None:
        self._folder, self._config, self._material, self._device = folder, config, material, device
        self._board = board
        # By steps, not by time: a resumed run measures at the same epochs.
        self._every = -(-_STEPS_BETWEEN // len(material.batches))
        self._quality: Quality | None = None
        # Of each few the one with most in it: the faint end of a file says nothing to ear or eye.
        few = material.held_out(8 * _SHOWN_CHUNKS).chunk(_SHOWN_CHUNKS)
        self._chunks = torch.stack([rows[rows[:, 0].mean(dim=(1, 2)).argmax()] for rows in few])

    def complete(self, line: dict[str, Any], *, is_last: bool) -> tuple[dict[str, Any], Path | None]:
        """End an epoch: its line of metrics.jsonl with the figures of `Quality`, and its previews, where they are due.

        Raises
        ------
        OSError, StorageError
            If they cannot be written.
        """
        epoch, every, previews = line["epoch"], self._config.preview_epochs, None
        is_measured = is_last or epoch % self._every == 0
        is_heard = every > 0 and (is_last or epoch % every == 0)
        if is_measured or is_heard:
            model = load_model(self._folder.path, self._device)
        if is_measured:
            line = line | self._measure(model)
        if is_heard:
            previews = self._preview(model, epoch)
        if self._board:
            self._board.show(line, previews)
        return line, previews and previews.folder

    def _measure(self, model: ConvVAE) -> dict[str, float | None]:
        if self._quality is None:
            self._quality = Quality(self._material, self._config)
        return self._quality.measure(model)

    def _preview(self, model: ConvVAE, epoch: int) -> Previews:
        stats = self._material.stats
        instrument = Instrument(model, self._config, stats)
        chunks = denormalize(self._chunks, stats)
        try:
            return save_previews(self._folder.path, instrument, chunks, epoch=epoch, seed=self._config.seed)
        except StorageError as error:
            raise StorageError(str(error), self._folder.remedy(error.__cause__)) from error

    def draw(self) -> None:
        """Draw losses and quality over epochs, and what the model makes of held-out chunks."""
        lines = self._folder.metrics()
        save_loss_picture(lines, self._folder.path / "loss.png")
        save_quality_picture(lines, self._folder.path / "quality.png")
        with torch.no_grad():
            output = load_model(self._folder.path)(self._chunks)[0]
        stats, config = self._material.stats, self._config.features
        save_reconstruction_picture(
            denormalize(self._chunks, stats).numpy(),
            denormalize(output, stats).numpy(),
            self._folder.path / "reconstruction.png",
            centres=MelSpec.of(config).centres_hz(),
            duration_s=self._chunks.shape[-1] * config.hop_length / config.sample_rate,
        )

    def tell(self, lines: list[dict[str, Any]]) -> None:
        """Log the figures of the last epoch that has some."""
        for line in reversed(lines):
            if "prior_frechet" in line:
                for sentence in _sentences(line):
                    logger.info("%s", sentence)
                return


def _sentences(line: dict[str, Any]) -> Iterator[str]:
    """The figures of `Quality` in words, without those that are not defined."""
    figures = {name: f"{value:.3g}" for name, value in line.items() if value is not None}
    for beginning, clauses in _FIGURES:
        defined = [clause for name, clause in clauses.items() if name in figures]
        if defined:
            yield beginning + ", ".join(defined).format_map(figures)
