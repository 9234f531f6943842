"""Quality figures of models with known output: nearly zero for a perfect one, large for a silent one."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from distill.audio import AudioSpectrogram, ComplexSpectrogram
from distill.features.distance import distances
from distill.features.normalization import denormalize
from distill.index import Dataset
from distill.models import ConvVAE
from distill.training import create_complex_data_loaders, create_data_loaders
from distill.training.chunks import ValidationChunks
from distill.training.data import TrainingData
from distill.training.quality import Quality


class Fake(ConvVAE):
    """A model with a known output: `reconstruct` of rows and `prior` of latent vectors."""

    def __init__(self, reconstruct, prior=None) -> None:
        super().__init__(2, 4, n_mels=32, n_frames=32)
        self.reconstruct, self.prior = reconstruct, prior or (lambda z: torch.zeros(len(z), 2, 32, 32))

    def forward(self, x):
        return self.reconstruct(x), None, None

    def decode(self, z):
        return self.prior(z)


@pytest.fixture
def data(cache, small_config) -> TrainingData:
    loaders = create_complex_data_loaders(cache, small_config)
    return TrainingData(*loaders, None, loaders[0].dataset.normalization_stats, False, "", 0)


def quality_of(data, sounds, config) -> Quality:
    return Quality(data, config, ValidationChunks(data, Dataset(sounds), config))


def test_distances_are_small_for_a_perfect_model_and_large_for_a_silent_one(data, sounds, small_config):
    """Not zero for the perfect model, because its hiss is attenuated as in any other output."""
    quality = quality_of(data, sounds, small_config)
    silence = -data.stats["mag_mean"] / data.stats["mag_std"]
    perfect = quality.measure(Fake(lambda x: x))
    noise = torch.Generator().manual_seed(0)
    rough = quality.measure(Fake(lambda x: x + 0.1 * torch.randn(x.shape, generator=noise)))
    silent = quality.measure(Fake(lambda x: torch.full_like(x, silence)))
    for name in ("spectral_convergence", "log_spectral_db", "multi_resolution"):
        assert 0 < perfect[name] < 0.8 * rough[name] < 0.8 * silent[name]
    assert silent["spectral_convergence"] == pytest.approx(1, abs=1e-3)


def test_distances_are_medians_over_validation_chunks(data, sounds, small_config):
    def louder(rows):
        return rows * torch.tensor([1.1, 1.0])[:, None, None]

    rows = torch.cat(list(data.features(data.val)))
    rows = rows[np.linspace(0, len(rows) - 1, min(32, len(rows))).astype(int)]
    spectrogram = ComplexSpectrogram(small_config.complex_spectrogram)
    features, output = (denormalize(each, data.stats).double().numpy() for each in (rows, louder(rows)))
    # As in `distill generate`, hiss is attenuated by p² / (p² + h²), where h is a fifth of the standard deviation.
    power, hiss = np.maximum(output[:, 0], 0), 0.2 * data.stats["mag_std"]
    output[:, 0] = power**3 / (power**2 + hiss**2)
    one, other = (
        spectrogram.inverse(torch.from_numpy(each).float(), length=small_config.chunk_samples)
        for each in (features, output)
    )
    expected = distances(one, other)
    found = quality_of(data, sounds, small_config).measure(Fake(louder))
    for name, values in expected._asdict().items():
        assert found[name] == pytest.approx(sorted(values.tolist())[(len(rows) - 1) // 2], rel=0.05)


def test_a_model_that_repeats_its_training_rows_has_a_small_nearest_distance(data, sounds, small_config):
    rows = torch.cat(list(data.features(data.train)))
    repeating = Fake(lambda x: x, lambda z: rows[: len(z)])
    copies = quality_of(data, sounds, small_config).measure(repeating)
    assert copies["prior_nearest"] < 0.5
    constant = quality_of(data, sounds, small_config).measure(Fake(lambda x: x))
    assert constant["prior_frechet"] > 0.99


def test_measuring_is_repeatable_and_leaves_the_global_generator_unchanged(data, sounds, small_config):
    noisy = Fake(lambda x: x * 0.9, lambda z: z.sum(dim=(1, 2))[:, None, None, None].expand(-1, 2, 32, 32))
    quality = quality_of(data, sounds, small_config)
    state = torch.get_rng_state()
    first = quality.measure(noisy)
    assert quality.measure(noisy) == first
    assert quality_of(data, sounds, small_config).measure(noisy) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert quality_of(data, sounds, dataclasses.replace(small_config, seed=1)).measure(noisy) != first


def test_a_model_with_absurd_output_is_measured_without_an_error(data, sounds, small_config):
    found = quality_of(data, sounds, small_config).measure(Fake(lambda x: x + 1e6))
    assert found["spectral_convergence"] > 10


def test_one_channel_has_finite_figures(sounds, small_config):
    config = dataclasses.replace(
        small_config, complex_spectrogram=dataclasses.replace(small_config.complex_spectrogram, enabled=False)
    )
    files = sorted(path for path in (sounds / "drums").rglob("*") if path.is_file())
    loaders = create_data_loaders(files, config)
    stats = {"mag_mean": 0.4, "mag_std": 1.1}
    data = TrainingData(*loaders, AudioSpectrogram(config.spectrogram), stats, False, "", 0)
    quality = quality_of(data, sounds, config)
    perfect, silent = (
        quality.measure(Fake(reconstruct, lambda z: torch.zeros(len(z), 1, 32, 32)))
        for reconstruct in (lambda x: x, lambda x: torch.full_like(x, -0.4 / 1.1))
    )
    assert perfect["spectral_convergence"] < 0.6
    assert silent["spectral_convergence"] == pytest.approx(1, abs=1e-3)
    # Drums have no pitch.
    assert all(math.isfinite(value) for name, value in silent.items() if "pitch" not in name)
    assert perfect["envelope"] > 0.8 > 0.2 > silent["envelope"]


def test_distances_are_none_for_chunks_that_are_too_short(data, sounds, small_config):
    short = dataclasses.replace(small_config, chunk_samples=2048)
    found = quality_of(data, sounds, short).measure(Fake(lambda x: x))
    assert found["spectral_convergence"] is None
    assert found["prior_frechet"] is not None
