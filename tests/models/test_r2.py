"""R², compared with scikit-learn and with its definition."""

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from distill.models import ReconstructionR2
from distill.models.r2 import BandMeans


def make_rows(count=12, channels=2, n_mels=3, n_frames=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, channels, n_mels, n_frames, generator=generator)
    # Bands differ in level and spread, so that one global mean would score differently.
    rows = rows * torch.tensor([0.3, 1.0, 2.0])[:, None] + torch.tensor([4.0, -1.0, 0.5])[:, None]
    return rows, torch.rand(count, n_mels, n_frames, generator=generator) * 5


def score(reconstruction, target, energy, means, batch=5):
    metric = ReconstructionR2(means)
    for r, t, e in zip(reconstruction.split(batch), target.split(batch), energy.split(batch), strict=True):
        metric.update(r, t, e)
    return metric.result()


def test_r2_of_one_band_relative_to_its_own_mean_equals_that_of_sklearn():
    target, energy = make_rows()
    target, energy = target[:, :, :1], energy[:, :1]
    reconstruction = target + 0.2 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    means = BandMeans(2, 1)
    means.update(target, energy)
    result = score(reconstruction, target, energy, means.result())
    flat = [tensor.flatten().double().numpy() for tensor in (target[:, 0], reconstruction[:, 0])]
    assert result["magnitude_r2"] == pytest.approx(r2_score(*flat), abs=1e-6)
    flat = [tensor.flatten().double().numpy() for tensor in (target[:, 1], reconstruction[:, 1], energy)]
    assert result["if_r2"] == pytest.approx(r2_score(*flat[:2], sample_weight=flat[2]), abs=1e-6)


def test_r2_relative_to_other_band_means_equals_its_definition():
    target, energy = make_rows()
    reconstruction, _ = make_rows(seed=2)
    means = torch.tensor([[3.0, -1.0, 0.0], [0.5, 0.0, -2.0]])
    result = score(reconstruction, target, energy, means)
    y, p, w, b = (tensor.double().numpy() for tensor in (target, reconstruction, energy, means[:, :, None]))
    expected = 1 - np.sum((y - p)[:, 0] ** 2) / np.sum((y - b)[:, 0] ** 2)
    assert result["magnitude_r2"] == pytest.approx(expected, abs=1e-6)
    expected = 1 - np.sum(w * (y - p)[:, 1] ** 2) / np.sum(w * (y - b)[:, 1] ** 2)
    assert result["if_r2"] == pytest.approx(expected, abs=1e-6)


def test_r2_is_one_for_perfect_zero_for_band_means_and_negative_for_worse():
    target, energy = make_rows()
    means = BandMeans(2, 3)
    means.update(target, energy)
    constant = means.result().float()[:, :, None].expand_as(target)
    assert score(target, target, energy, means.result()) == {"magnitude_r2": 1.0, "if_r2": 1.0}
    for value in score(constant, target, energy, means.result()).values():
        assert value == pytest.approx(0.0, abs=1e-6)
    for value in score(2 * constant - target, target, energy, means.result()).values():
        assert value < -2


def test_r2_does_not_depend_on_the_batch_size():
    target, energy = make_rows()
    reconstruction, _ = make_rows(seed=2)
    means = torch.zeros(2, 3)
    results = [score(reconstruction, target, energy, means, batch) for batch in (1, 5, 12)]
    assert results[0] == pytest.approx(results[1], abs=1e-9)
    assert results[0] == pytest.approx(results[2], abs=1e-9)


def test_band_means_over_batches_are_weighted_by_energy():
    rows, energy = make_rows()
    energy[:, 2] = 0
    means = BandMeans(2, 3)
    for r, e in zip(rows.split(5), energy.split(5), strict=True):
        means.update(r, e)
    magnitude, frequency = means.result()
    np.testing.assert_allclose(magnitude, rows[:, 0].double().mean(dim=(0, 2)), atol=1e-6)
    for band in (0, 1):
        expected = np.average(rows[:, 1, band].flatten(), weights=energy[:, band].flatten())
        assert frequency[band].item() == pytest.approx(expected, abs=1e-5)
    assert frequency[2] == 0


def test_sums_are_accumulated_in_double_precision():
    # In float32, adding 1 to 6000² has no effect.
    metric = ReconstructionR2(torch.zeros(1, 1))
    metric.update(torch.full((1, 1, 1, 1), 6000.0), torch.full((1, 1, 1, 1), 6000.0))
    one = torch.ones(1, 1, 1, 1)
    for _ in range(2000):
        metric.update(-one, one)
    assert metric.result()["magnitude_r2"] == pytest.approx(1 - 8000 / (6000**2 + 2000), abs=1e-10)


def test_r2_without_variance_is_zero_and_not_nan():
    rows = torch.ones(2, 2, 3, 4)
    metric = ReconstructionR2(torch.ones(2, 3))
    assert metric.result() == {"magnitude_r2": 0.0, "if_r2": 0.0}
    metric.update(rows + 1, rows, torch.zeros(2, 3, 4))
    assert metric.result() == {"magnitude_r2": 0.0, "if_r2": 0.0}


def test_one_channel_has_no_if_r2():
    target, energy = make_rows(channels=1)
    assert score(target, target, energy, torch.zeros(1, 3)) == {"magnitude_r2": 1.0}
