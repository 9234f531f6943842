"""Distances of samples from data, compared with scipy and for generators whose quality is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg, spatial

from distill.training.sample_quality import compare_samples, frechet_distance, nearest_distances, summarize

SILENCE = -0.5


def sounds(count: int, seed: int) -> torch.Tensor:
    """Return rows [count, 2, 24, 18] of decaying ridges, the data that a good generator would imitate."""
    generator = torch.Generator().manual_seed(seed)
    centre, width, decay, level = torch.rand(4, count, 1, 1, generator=generator)
    bands, frames = torch.arange(24.0)[:, None], torch.arange(18.0) / 18
    ridge = torch.exp(-(((bands - 24 * centre) / (1 + 3 * width)) ** 2) - 4 * decay * frames)
    magnitude = SILENCE + 4 * (0.3 + level) * ridge
    return torch.stack([magnitude, torch.randn(magnitude.shape, generator=generator)], dim=1)


TRAINING, HELD_OUT = sounds(1000, 0), sounds(250, 1)


def figures(samples: torch.Tensor) -> dict[str, float | None]:
    training, held_out = summarize(TRAINING.split(64), 2048), summarize([HELD_OUT], 256)
    return compare_samples(summarize([samples], 256), training, held_out)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_frechet_distance_equals_that_with_the_matrix_square_root_of_scipy(seed):
    random = np.random.default_rng(seed)
    first = random.standard_normal((80, 5)) @ random.standard_normal((5, 5)) + random.standard_normal(5)
    second = random.standard_normal((50, 5)) @ random.standard_normal((5, 5))
    cov1, cov2 = (np.cov(points.T, bias=True) for points in (first, second))
    offset = np.sum((first.mean(axis=0) - second.mean(axis=0)) ** 2)
    expected = offset + np.trace(cov1 + cov2 - 2 * linalg.sqrtm(cov1 @ cov2).real)
    found = frechet_distance(torch.from_numpy(first), torch.from_numpy(second))
    assert found == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_in_one_dimension_equals_the_closed_form():
    first, second = torch.tensor([[0.0], [2.0]]), torch.tensor([[7.0], [13.0]])
    assert frechet_distance(first, second) == pytest.approx((10 - 1) ** 2 + (3 - 1) ** 2)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(first[:1], second) == pytest.approx(10**2 + 3**2)


def test_nearest_distances_equal_those_of_a_scipy_tree():
    random = np.random.default_rng(0)
    rows, others = random.standard_normal((40, 7)), random.standard_normal((90, 7))
    expected, _ = spatial.cKDTree(others).query(rows)
    found = nearest_distances(torch.from_numpy(rows), torch.from_numpy(others))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_band_figures_equal_those_of_numpy():
    samples = sounds(100, 2) * 1.3 + 0.2
    data, magnitude = TRAINING[:, 0].double().numpy(), samples[:, 0].double().numpy()
    spread = data.std(axis=(0, 2))
    offset = (magnitude.mean(axis=(0, 2)) - data.mean(axis=(0, 2))) / spread
    ratio = magnitude.std(axis=(0, 2)) / spread
    found = figures(samples)
    assert found["prior_mean"] == pytest.approx(np.sqrt(np.mean(offset**2)), rel=1e-6)
    assert found["prior_spread"] == pytest.approx(np.sqrt(np.mean((ratio - 1) ** 2)), rel=1e-6)


def test_frechet_figure_equals_that_of_scipy_along_sklearn_axes():
    from sklearn.decomposition import PCA

    def descriptors(rows):
        magnitude = rows[:, 0].double().numpy()
        return np.concatenate([magnitude.mean(axis=2), magnitude.std(axis=2)], axis=1)

    samples = sounds(100, 2)[:, :, :, ::2].repeat_interleave(2, dim=3)
    pca = PCA(16, svd_solver="full").fit(descriptors(TRAINING))
    first, second = pca.transform(descriptors(samples)), pca.transform(descriptors(TRAINING))
    cov1, cov2 = (np.cov(points.T, bias=True) for points in (first, second))
    distance = np.sum((first.mean(axis=0) - second.mean(axis=0)) ** 2)
    distance += np.trace(cov1 + cov2 - 2 * linalg.sqrtm(cov1 @ cov2).real)
    assert figures(samples)["prior_frechet"] == pytest.approx(distance / np.trace(cov2), rel=1e-5)


def test_other_samples_of_the_same_distribution_score_like_held_out_rows():
    found = figures(sounds(250, 3))
    assert found["prior_mean"] < 0.15
    assert found["prior_spread"] < 0.15
    assert found["prior_frechet"] < 2 * found["held_out_frechet"]
    assert found["prior_nearest"] == pytest.approx(1, abs=0.2)


def test_copies_of_training_rows_are_detected_by_the_nearest_distance_only():
    copies = TRAINING[:200]
    assert figures(copies)["prior_nearest"] == 0
    nearly = figures(copies + 0.01 * torch.randn(copies.shape, generator=torch.Generator().manual_seed(0)))
    assert nearly["prior_nearest"] < 0.05
    assert nearly["prior_frechet"] < 0.1


@pytest.mark.parametrize(
    "constant",
    [torch.full((1, 2, 24, 18), SILENCE), torch.zeros(1, 2, 24, 18), TRAINING.mean(dim=0, keepdim=True), TRAINING[:1]],
    ids=["silence", "zero", "the mean", "one training row"],
)
def test_a_constant_generator_scores_badly(constant):
    found = figures(constant.expand(200, -1, -1, -1))
    assert found["prior_frechet"] >= 0.99
    assert found["prior_frechet"] > 10 * found["held_out_frechet"]
    assert found["prior_spread"] > 0.4


def test_noise_scores_badly():
    found = figures(torch.randn(200, 2, 24, 18, generator=torch.Generator().manual_seed(0)))
    assert found["prior_frechet"] > 0.5
    assert found["prior_nearest"] > 2


def test_undefined_figures_are_none():
    silent, one = summarize([torch.full((4, 1, 8, 9), SILENCE)], 4), summarize([TRAINING[:1, :1]], 4)
    assert set(compare_samples(silent, silent, silent).values()) == {None}
    alone = compare_samples(one, one, one)
    assert (alone["prior_frechet"], alone["prior_nearest"]) == (None, None)
    assert alone["prior_mean"] == 0
    with pytest.raises(ValueError, match="no rows"):
        summarize([], 4)


def test_summary_does_not_depend_on_channel_1_or_on_batches():
    whole, parts = summarize([TRAINING], 100), summarize(TRAINING[:, :1].split(7), 100)
    assert len(whole) == len(parts) == 100
    torch.testing.assert_close(parts.descriptors, whole.descriptors)
    torch.testing.assert_close(parts.pooled, whole.pooled)
