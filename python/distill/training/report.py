"""What a run tells of its best weights: pictures, what they lose, and how far their own samples are from the data."""

from __future__ import annotations

import logging
from typing import Any

import torch

from distill.config import TrainingConfig
from distill.models import load_model
from distill.training.checkpoint import RunFolder
from distill.training.material import Material
from distill.training.normalization import denormalize
from distill.training.pictures import save_loss_picture, save_quality_picture, save_reconstruction_picture
from distill.training.quality import Quality

logger = logging.getLogger(__name__)

_PICTURED_CHUNKS = 4
# Measuring takes about as long as 40 steps of the small model.
_STEPS_BETWEEN = 1000


class Report:
    """Measures, draws and tells, always of the weights in model.safetensors.

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
    """

    def __init__(self, folder: RunFolder, config: TrainingConfig, material: Material, device: torch.device) -> None:
        self._folder, self._config, self._material, self._device = folder, config, material, device
        # By steps, not by time: a resumed run measures at the same epochs.
        self._every = -(-_STEPS_BETWEEN // len(material.batches))
        self._quality: Quality | None = None

    def is_due(self, epoch: int) -> bool:
        """Whether to measure after this epoch, counted from 1."""
        return epoch % self._every == 0

    def measure(self) -> dict[str, float | None]:
        """The figures of `Quality`, for the epoch's line of metrics.jsonl."""
        if self._quality is None:
            self._quality = Quality(self._material, self._config)
        return self._quality.measure(load_model(self._folder.path, self._device))

    def draw(self) -> None:
        """Draw losses and quality over epochs, and what the model makes of held-out chunks."""
        lines = self._folder.metrics()
        save_loss_picture(lines, self._folder.path / "loss.png")
        save_quality_picture(lines, self._folder.path / "quality.png")
        features = next(self._material.features(self._material.val))[:_PICTURED_CHUNKS]
        with torch.no_grad():
            output = load_model(self._folder.path)(features)[0]
        stats, config = self._material.stats, self._config.features
        save_reconstruction_picture(
            denormalize(features, stats).numpy(),
            denormalize(output, stats).numpy(),
            self._folder.path / "reconstruction.png",
            sample_rate=config.sample_rate,
            hop_length=config.hop_length,
        )

    def tell(self, lines: list[dict[str, Any]]) -> None:
        """Log the figures of the last epoch that has some."""
        for line in reversed(lines):
            if "prior_frechet" in line:
                for sentence in _sentences(line):
                    logger.info("%s", sentence)
                return


def _sentences(line: dict[str, Any]) -> list[str]:
    """The figures of `Quality` in words."""
    figures = {name: "-" if value is None else f"{value:.3g}" for name, value in line.items()}
    return [
        f"held-out chunks by way of the model, against their features alone: spectral convergence "
        f"{figures['spectral_convergence']}, log-spectral distance {figures['log_spectral_db']} dB, multi-resolution "
        f"STFT distance {figures['multi_resolution']}",
        f"samples from the prior, against the data: means of the bands {figures['prior_mean']} and their spread "
        f"{figures['prior_spread']} standard deviations off; Fréchet distance {figures['prior_frechet']} "
        f"(held-out chunks {figures['held_out_frechet']}, a constant 1 or more)",
        f"  to the nearest training row {figures['prior_nearest']} times as far as held-out chunks are; copies have 0",
    ]
