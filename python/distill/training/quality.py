"""How good a model is beyond its loss: what it makes of held-out chunks, and what its samples are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from distill.config import TrainingConfig
from distill.features.distance import WINDOWS, Distances, distances
from distill.features.inversion.limits import limit_features
from distill.features.normalization import denormalize, normalize
from distill.features.spectrogram import ComplexSpectrogram
from distill.models.density import LatentDensity
from distill.models.vae import ConvVAE
from distill.training.data import HELD_OUT_ROWS, Material
from distill.training.sample_quality import prior_figures, summarize

_TRAINING_ROWS = 2048
_SAMPLES = 256
_BATCH = 32
_CHUNKS = 16


class Quality:
    """Measures models against the same rows of a run, which are prepared once.

    Parameters
    ----------
    material : Material
        The run's training and held-out rows; at most 2048 and 256 of them count, and 16 are made sound.
    config : TrainingConfig
        The feature, the length of a chunk, and the seed, which decides the training rows and the samples.
    """

    def __init__(self, material: Material, config: TrainingConfig) -> None:
        self._seed, self._stats, self._samples_a_chunk = config.seed, material.stats, config.chunk_samples
        self._training = summarize(material.training_rows(_TRAINING_ROWS), _TRAINING_ROWS)
        self._held_out = summarize(material.features(material.val), HELD_OUT_ROWS)
        self._spectrogram: nn.Module = material.spectrogram or ComplexSpectrogram(config.complex_spectrogram)
        self._rows = material.held_out(_CHUNKS)
        self._waveforms = self._to_sound(denormalize(self._rows, self._stats))

    @torch.no_grad()
    def measure(self, model: ConvVAE) -> dict[str, float | None]:
        """Figures of a model in eval mode.

        Returns
        -------
        dict
            `spectral_convergence`, `log_spectral_db`, `multi_resolution`: distances, as `distill.features.distance` has
            them, of held-out chunks by way of features and model, as they are heard, to the same by way of the features
            alone. The median over those that are not silent (a mean would be the quietest one's, which any error
            exceeds); None where all are, or chunks are too short. Then those of `prior_figures`, for 256 samples
            as they are heard.
        """
        device = next(model.parameters()).device
        output = model(self._rows.to(device))[0].cpu()
        samples = summarize(self._samples(model, device), _SAMPLES)
        return self._lost(output) | prior_figures(samples, self._training, self._held_out)

    def _lost(self, output: Tensor) -> dict[str, float | None]:
        sounding = self._waveforms.flatten(1).any(dim=1)
        if self._samples_a_chunk <= max(WINDOWS) // 2 or not sounding.any():
            return dict.fromkeys(Distances._fields)
        found = distances(self._waveforms, self._to_sound(self._heard(output)))
        return {name: values[sounding].median().item() for name, values in found._asdict().items()}

    def _heard(self, output: Tensor) -> Tensor:
        """Features before normalisation of a model's output, as they become sound."""
        return limit_features(denormalize(output, self._stats), self._stats["mag_std"])

    def _to_sound(self, features: Tensor) -> Tensor:
        """Waveforms [B, 1, S] of features [B, C, M, T] before normalisation."""
        return self._spectrogram.inverse(features, length=self._samples_a_chunk)  # type: ignore[operator]

    def _samples(self, model: ConvVAE, device: torch.device) -> Iterator[Tensor]:
        # A generator of its own: measuring must not change what is trained next.
        samples = LatentDensity(model.latents).sample(_SAMPLES, np.random.default_rng(self._seed))
        for z in samples.split(_BATCH):
            yield normalize(self._heard(model.decode(z.to(device))), self._stats)
