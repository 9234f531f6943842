"""Axes, correlations, names and neighbours agree with numpy and scipy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.spatial
import torch

from distill.latent.decomposition import correlations, name_axes, nearest, principal_axes

FEATURES = ["loud", "bright", "high"]


def vectors(seed: int, n: int = 3000, width: int = 6) -> np.ndarray:
    """Latent vectors with a different variance in each direction, far from the origin; more than one block."""
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(random.standard_normal((width, width)))[0]
    return random.standard_normal((n, width)) * np.arange(width, 0, -1) @ turn + 7.0


def test_equal_effects_give_the_pca_of_numpy():
    values = vectors(0)
    found = principal_axes(torch.from_numpy(values), torch.full((6,), 0.3))
    centred = values - values.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(found.mean, values.mean(axis=0))
    np.testing.assert_allclose(np.abs(found.components.numpy() @ axes.T), np.eye(6), atol=1e-9)
    np.testing.assert_allclose(found.scale, singular / np.sqrt(len(values)))
    np.testing.assert_allclose(found.share, singular**2 / (singular**2).sum())
    assert (found.components.amax(dim=1) == found.components.abs().amax(dim=1)).all()


def test_the_first_axes_span_the_first_components_of_the_weighted_pca():
    values, effect = vectors(1), np.array([5.0, 0.1, 2.0, 1.0, 0.0, 3.0])
    found = principal_axes(torch.from_numpy(values), torch.from_numpy(effect))
    centred = values - values.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred * effect, full_matrices=False)
    assert len(found.scale) == 5
    np.testing.assert_allclose(found.share, (singular**2 / (singular**2).sum())[:5])
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(5), atol=1e-12)
    coordinates = centred @ found.components.numpy().T
    np.testing.assert_allclose(found.scale, coordinates.std(axis=0))
    for count in (1, 2, 3, 4, 5):
        projected = coordinates[:, :count] @ np.linalg.lstsq(coordinates[:, :count], left[:, :count], rcond=None)[0]
        np.testing.assert_allclose(projected, left[:, :count], atol=1e-9)


def test_rounding_errors_of_float32_make_no_axes():
    random = np.random.default_rng(2)
    line = (random.standard_normal((50, 1)) @ random.standard_normal((1, 8)) + 100.0).astype(np.float32)
    assert len(principal_axes(torch.from_numpy(line), torch.ones(8)).scale) == 1
    few = torch.from_numpy(vectors(3, n=3))
    assert len(principal_axes(few, torch.ones(6)).scale) == 2
    assert len(principal_axes(few[:1].expand(5, 6), torch.ones(6)).scale) == 0
    assert len(principal_axes(few, torch.zeros(6)).scale) == 0


def test_correlations_agree_with_numpy_and_are_zero_for_a_constant():
    random = np.random.default_rng(4)
    coordinates = random.standard_normal((200, 3)) * [5.0, 1.0, 0.01]
    mixed = coordinates @ [1.0, 2.0, 50.0] + random.standard_normal(200)
    features = np.stack([mixed, np.full(200, 4.2), -coordinates[:, 2]], axis=1)
    # The error of float32 measures of the same sound.
    features[:, 1] += 1e-5 * random.standard_normal(200)
    r, constant = correlations(torch.from_numpy(coordinates), torch.from_numpy(features))
    expected = np.corrcoef(np.c_[features, coordinates].T)[:3, 3:]
    np.testing.assert_allclose(r[0], expected[0])
    np.testing.assert_allclose(r[2], expected[2])
    assert r[1].tolist() == [0.0, 0.0, 0.0]
    assert constant == [False, True, False]


def test_the_strongest_correlation_names_its_axis_first():
    r = torch.tensor([[0.9, -0.95, 0.1, 0.0], [0.8, 0.2, 0.35, 0.0], [0.7, 0.9, 0.2, 0.29]])
    share = torch.tensor([0.6, 0.2, 0.15, 0.05])
    names, feature_of = name_axes(r, share, FEATURES, 400)
    # loud takes axis 2; then bright is strongest, with axis 1; the remaining correlations of high are below 0.3.
    assert names == ["bright", "loud", "axis3", "axis4"]
    assert feature_of == [1, 0, None, None]
    # With few sounds such correlations occur by chance: 3 / sqrt(11) is 0.905.
    assert name_axes(r, share, FEATURES, 11)[0] == ["axis1", "loud", "axis3", "axis4"]
    assert name_axes(r[:, :1], share[:1], FEATURES, 400)[0] == ["loud"]


def test_an_axis_with_little_variance_gets_no_name():
    random = np.random.default_rng(6)
    factors = random.standard_normal((2000, 6)) * [5.0, 3.0, 2.0, 1.5, 1.0, 0.5]
    # Loudness has r = 0.64 with the first factor, and 0.77 with the last one, which has 0.6 % of the variance.
    loud = factors @ [0.2, 0.0, 0.0, 0.0, 0.0, 2.4]
    bright = -factors[:, 1] + random.standard_normal(2000)
    latents = torch.from_numpy(factors @ np.linalg.qr(random.standard_normal((6, 6)))[0])
    found = principal_axes(latents, torch.ones(6))
    r, _ = correlations((latents - found.mean) @ found.components.T, torch.from_numpy(np.stack([loud, bright], axis=1)))
    assert r.abs()[0].argmax() == 5
    assert name_axes(r, found.share, FEATURES[:2], 2000)[0] == ["loud", "bright", "axis3", "axis4", "axis5", "axis6"]


def test_neighbours_agree_with_scipy_and_are_never_of_the_same_chunk():
    values = vectors(5, n=300).astype(np.float32)
    # Each chunk has two variants that are its nearest vectors; every third vector is an original.
    chunk_of = np.arange(300) // 3
    values[1::3] = values[::3] + 1e-3
    values[2::3] = values[::3] - 1e-3
    originals = np.arange(0, 300, 3)
    called = []
    indices, distances = nearest(
        *map(torch.from_numpy, (values, originals, chunk_of)), 4, lambda *figures: called.append(figures)
    )
    tree = scipy.spatial.cKDTree(values[originals].astype(np.float64))
    expected, found = tree.query(values.astype(np.float64), 5)
    np.testing.assert_array_equal(originals[found[:, 0]] // 3, chunk_of)
    np.testing.assert_array_equal(indices, originals[found[:, 1:]])
    np.testing.assert_allclose(distances, expected[:, 1:], rtol=1e-9)
    assert called[-1] == (300, 300)


@pytest.mark.parametrize("k", [0, 1])
def test_there_may_be_one_neighbour_or_none(k):
    values = torch.tensor([[0.0, 0.0], [3.0, 4.0]])[: k + 1]
    indices, distances = nearest(values, torch.arange(k + 1), torch.arange(k + 1), k)
    assert indices.tolist() == [[1], [0]] if k else [[]]
    assert distances.tolist() == [[5.0], [5.0]] if k else [[]]
