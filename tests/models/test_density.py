"""LatentDensity: moments and neighbourhoods of its samples for known latent vectors, computed with numpy."""

import numpy as np
import pytest
import torch

from distill.models import ConvVAE
from distill.models.density import LatentDensity


@pytest.fixture(scope="module")
def latents() -> np.ndarray:
    """Two well separated clusters of 300 vectors each, in 6 dimensions."""
    random = np.random.default_rng(0)
    mixing = 0.4 * random.standard_normal((6, 6))
    centres = np.repeat([[3.0, 0, 0, 0, 0, 1], [-3.0, 0, 2, 0, 0, 1]], 300, axis=0)
    return centres + random.standard_normal((600, 6)) @ mixing


def test_samples_have_the_mean_and_the_covariance_of_the_latents(latents):
    drawn = LatentDensity(torch.from_numpy(latents)[:, None]).sample(20_000, np.random.default_rng(1))[:, 0].numpy()
    deviation = latents.std(axis=0)
    assert (np.abs(drawn.mean(axis=0) - latents.mean(axis=0)) < 0.05 * deviation).all()
    expected = np.cov(latents.T)
    assert np.abs(np.cov(drawn.T) - expected).max() < 0.05 * np.abs(expected).max()


def test_samples_lie_near_the_clusters_and_are_no_copies(latents):
    drawn = LatentDensity(torch.from_numpy(latents)[:, None]).sample(500, np.random.default_rng(2))[:, 0].numpy()
    normal = np.random.default_rng(3).multivariate_normal(latents.mean(axis=0), np.cov(latents.T), 500)
    between = [np.mean(np.abs(points[:, 0]) < 0.5) for points in (latents, drawn, normal)]
    assert between[0] < between[1] < 0.7 * between[2]
    nearest = np.linalg.norm(drawn[:, None] - latents[None], axis=2).min(axis=1)
    assert np.median(nearest) > 0.2
    assert len(np.unique(drawn, axis=0)) == 500


@pytest.mark.parametrize("radius", [0.3, 3.0])
def test_variations_start_at_their_vector_and_have_the_covariance_of_the_latents(latents, radius):
    density, random = LatentDensity(torch.from_numpy(latents)[:, None]), np.random.default_rng(6)
    noise = density.noise(random.standard_normal((20_000, density.n_draws)))
    chosen = latents[random.integers(len(latents), size=20_000)]
    varied = density.around(torch.from_numpy(chosen)[:, None], noise, radius)[:, 0].numpy()
    expected = np.cov(latents.T)
    assert np.abs(np.cov(varied.T) - expected).max() < 0.05 * np.abs(expected).max()
    correlation = np.corrcoef(chosen[:, 0], varied[:, 0])[0, 1]
    assert correlation == pytest.approx(1 / np.sqrt(1 + radius**2), abs=0.03)


def test_the_vectors_of_a_row_are_drawn_together(latents):
    """Rows are pairs of vectors, of which the second follows from the first."""
    rows = np.stack([latents, latents[:, ::-1] + 5], axis=1)
    density = LatentDensity(torch.from_numpy(rows))
    drawn = density.sample(5_000, np.random.default_rng(1)).double().numpy()
    assert drawn.shape == (5_000, 2, 6)
    np.testing.assert_allclose(drawn.mean(axis=0), rows.mean(axis=0), atol=0.2)
    error = drawn[:, 1] - drawn[:, 0, ::-1] - 5
    # Apart from what is added in every direction.
    assert error.std() < 0.1 < 0.2 < drawn.std(axis=0).min()


def test_samples_of_a_single_vector_vary():
    vector = torch.arange(4.0)[None, None]
    drawn = LatentDensity(vector).sample(50, np.random.default_rng(4))
    assert 0.01 < (drawn - vector).std() < 0.5


def test_a_new_model_samples_the_standard_normal_distribution():
    density = LatentDensity(ConvVAE(1, 5, n_mels=8, n_frames=8).latents)
    drawn = density.sample(20_000, np.random.default_rng(5))[:, 0].numpy()
    assert np.abs(drawn.mean(axis=0)).max() < 0.15
    assert np.abs(np.cov(drawn.T) - np.eye(5)).max() < 0.2


def test_set_latents_keeps_the_first_ones_and_repeats_them_if_there_are_too_few():
    model = ConvVAE(1, 3, n_mels=8, n_frames=8)
    few, many = torch.randn(7, 1, 3), torch.randn(1000, 1, 3)
    model.set_latents(few)
    assert {tuple(row) for (row,) in model.latents.tolist()} == {tuple(row) for (row,) in few.tolist()}
    model.set_latents(many)
    assert torch.equal(model.latents, many[: len(model.latents)])
