"""Quality of a model beyond its loss: distances of validation chunks as sound, and of samples from the data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from distill.config import TrainingConfig
from distill.features.distance import WINDOWS, Distances, distances
from distill.features.inversion.limits import limit_features
from distill.features.level import change_level
from distill.features.normalization import denormalize, normalize
from distill.features.spectrogram import ComplexSpectrogram
from distill.models.density import LatentDensity
from distill.models.vae import ConvVAE
from distill.training.chunks import ValidationChunks
from distill.training.data import MEASURED_ROWS, TrainingData
from distill.training.listening import compare
from distill.training.sample_quality import compare_samples, summarize

_TRAINING_ROWS = 2048
_SAMPLES = 256
_BATCH = 32


class Quality:
    """Quality figures of models of one run, computed on rows that are prepared once.

    Parameters
    ----------
    data : TrainingData
        At most 2048 of its training rows and 256 of its validation rows are used.
    config : TrainingConfig
        Features, chunk length, and the seed of the samples.
    chunks : ValidationChunks
        What is inverted to sound.
    """

    def __init__(self, data: TrainingData, config: TrainingConfig, chunks: ValidationChunks) -> None:
        self._seed, self._stats, self._chunk_samples = config.seed, data.stats, config.chunk_samples
        self._training = summarize(data.training_rows(_TRAINING_ROWS), _TRAINING_ROWS)
        self._held_out = summarize(data.features(data.val), MEASURED_ROWS)
        self._spectrogram = data.spectrogram or ComplexSpectrogram(config.complex_spectrogram)
        self._rows, self._rate = chunks.rows, config.features.sample_rate
        self._waveforms = self._to_sound(denormalize(self._rows, self._stats))
        self._recordings = chunks.recordings
        self._alone = {f"features_{name}": value for name, value in self._heard(self._waveforms).items()}

    @torch.no_grad()
    def measure(self, model: ConvVAE, gain_db: float = 0.0) -> dict[str, float | None]:
        """Compute the figures of a model in eval mode, whose output is raised by `gain_db`.

        Returns
        -------
        dict
            `spectral_convergence`, `log_spectral_db` and `multi_resolution`: distances of `distill.features.distance`
            between validation chunks that went through features and model, and those that went through the features
            only. The median over chunks that are not silent: a mean would be dominated by the quietest. None if all
            are silent or chunks are too short. Then the figures of `compare` between the chunks' recordings and the
            same sounds, and with "features_" before their names those of the features only. The model's level is that
            of its output raised by `gain_db`: `distill reconstruct` also holds it to the level of its input, which
            changes neither pitch nor envelope of a chunk. Then the figures of `compare_samples` for 256 samples, as
            they sound.
        """
        device = next(model.parameters()).device
        output = model(self._rows.to(device))[0].cpu()
        sounds = self._to_sound(self._audible_features(output, gain_db))
        samples = summarize(self._samples(model, gain_db), _SAMPLES)
        figures = self._distances(sounds) | self._heard(sounds) | self._alone
        return figures | compare_samples(samples, self._training, self._held_out)

    def _heard(self, sounds: Tensor) -> dict[str, float | None]:
        """Compare sounds [B, 1, S] of the chunks with their recordings, as far as there are any."""
        pairs = [
            (recording, sound)
            for recording, sound in zip(self._recordings, sounds[:, 0].numpy(), strict=True)
            if recording is not None
        ]
        return compare([recording for recording, _ in pairs], [sound for _, sound in pairs], self._rate)

    def _distances(self, sounds: Tensor) -> dict[str, float | None]:
        is_audible = self._waveforms.flatten(1).any(dim=1)
        if self._chunk_samples <= max(WINDOWS) // 2 or not is_audible.any():
            return dict.fromkeys(Distances._fields)
        found = distances(self._waveforms, sounds)
        return {name: values[is_audible].median().item() for name, values in found._asdict().items()}

    def _audible_features(self, output: Tensor, gain_db: float) -> Tensor:
        """Return a model's output as the features, before normalisation, that are inverted to sound."""
        limited = limit_features(denormalize(output, self._stats), self._stats["mag_std"])
        return change_level(limited, gain_db)

    def _to_sound(self, features: Tensor) -> Tensor:
        """Return waveforms [B, 1, S] of features [B, C, M, T] before normalisation."""
        return self._spectrogram.inverse(features, length=self._chunk_samples)

    def _samples(self, model: ConvVAE, gain_db: float) -> Iterator[Tensor]:
        """Yield batches of normalised samples."""
        # Not torch's global generator: measuring must not change the steps that follow.
        samples = LatentDensity(model.latents).sample(_SAMPLES, np.random.default_rng(self._seed))
        for z in samples.split(_BATCH):
            output = model.decode(z.to(next(model.parameters()).device))
            yield normalize(self._audible_features(output, gain_db), self._stats)
