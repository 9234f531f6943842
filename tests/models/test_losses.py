"""The loss, compared with torch.distributions and with explicit sums."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from distill.models import vae_loss

WEIGHTS = {"if_weight": 0.5, "kl_weight": 0.25, "free_bits": 0.0}


def make_batch(channels=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target, reconstruction = torch.randn(2, 3, channels, 4, 5, generator=generator)
    mu, logvar = torch.randn(2, 3, 6, generator=generator)
    energy = torch.rand(3, 4, 5, generator=generator) * 4
    return reconstruction, target, mu, logvar, energy


def test_kl_equals_that_of_torch_distributions():
    reconstruction, target, mu, logvar, energy = make_batch()
    expected = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).mean()
    losses = vae_loss(reconstruction, target, mu, logvar, energy, **WEIGHTS)
    torch.testing.assert_close(losses["kl"], expected)


def test_terms_equal_explicit_means_and_add_up_to_the_loss():
    reconstruction, target, mu, logvar, energy = make_batch()
    losses = vae_loss(reconstruction, target, mu, logvar, energy, **WEIGHTS)
    magnitude = sum(((reconstruction - target)[:, 0] ** 2).flatten().tolist()) / 60
    weighted = (energy * (reconstruction - target)[:, 1] ** 2).sum() / energy.sum()
    assert losses["magnitude"].item() == pytest.approx(magnitude, rel=1e-5)
    torch.testing.assert_close(losses["instantaneous_frequency"], weighted)
    total = losses["magnitude"] + 0.5 * losses["instantaneous_frequency"] + 0.25 * losses["kl"]
    torch.testing.assert_close(losses["loss"], total)


def test_a_share_of_the_error_of_the_magnitude_is_weighted_by_loudness_relative_to_its_row():
    reconstruction, target, mu, logvar, energy = make_batch()
    power = np.expm1(energy.double().numpy())
    error = np.square((reconstruction - target)[:, 0].double().numpy())
    loudness = (power + 1e-3) ** 0.25
    weights = loudness / loudness.mean(axis=(1, 2), keepdims=True)
    expected = (0.7 * error + 0.3 * weights * error).mean()
    losses = vae_loss(reconstruction, target, mu, logvar, energy, **WEIGHTS, loud_share=0.3)
    assert losses["magnitude"].item() == pytest.approx(expected, rel=1e-5)
    assert losses["magnitude"].item() != pytest.approx(error.mean(), rel=1e-3)
    total = losses["magnitude"] + 0.5 * losses["instantaneous_frequency"] + 0.25 * losses["kl"]
    torch.testing.assert_close(losses["loss"], total)
    # Silence weights all bands alike.
    silent = vae_loss(reconstruction, target, mu, logvar, 0 * energy, **WEIGHTS, loud_share=1.0)
    assert silent["magnitude"].item() == pytest.approx(error.mean(), rel=1e-5)


def test_free_bits_clamp_a_dimension_and_remove_its_gradient():
    # Batch means of the two dimensions: 0.02 and 2 nats.
    mu = torch.tensor([[0.2, 2.0], [-0.2, -2.0]], requires_grad=True)
    rows = torch.randn(2, 2, 3, 3)
    losses = vae_loss(rows, rows, mu, torch.zeros(2, 2), if_weight=1.0, kl_weight=1.0, free_bits=0.05)
    assert losses["kl"].item() == pytest.approx((0.05 + 2.0) / 2)
    losses["loss"].backward()
    assert mu.grad[:, 0].eq(0).all()
    assert mu.grad[:, 1].ne(0).all()


def test_frequency_errors_count_only_where_there_is_energy():
    _, target, mu, logvar, energy = make_batch()
    energy[:, :2] = 0
    silent, loud = target.clone(), target.clone()
    silent[:, 1, :2] += 3
    loud[:, 1, 2:] += 3
    terms = [vae_loss(r, target, mu, logvar, energy, **WEIGHTS)["instantaneous_frequency"] for r in (silent, loud)]
    assert terms[0] == 0
    # Only points with an error of 3 have weight.
    assert terms[1].item() == pytest.approx(9, rel=1e-5)


def test_the_loss_does_not_depend_on_the_scale_of_the_energy():
    reconstruction, target, mu, logvar, energy = make_batch()
    terms = [vae_loss(reconstruction, target, mu, logvar, e, **WEIGHTS)["loss"] for e in (energy, 100 * energy)]
    torch.testing.assert_close(*terms)


def test_a_silent_batch_has_no_frequency_term_and_finite_gradients():
    reconstruction, target, mu, logvar, energy = make_batch()
    reconstruction.requires_grad_()
    losses = vae_loss(reconstruction, target, mu, logvar, torch.zeros_like(energy), **WEIGHTS)
    assert losses["instantaneous_frequency"] == 0
    losses["loss"].backward()
    assert torch.isfinite(reconstruction.grad).all()
    assert reconstruction.grad[:, 0].ne(0).all()


def test_without_energy_all_points_have_equal_weight():
    reconstruction, target, mu, logvar, _ = make_batch()
    losses = vae_loss(reconstruction, target, mu, logvar, **WEIGHTS)
    expected = ((reconstruction - target)[:, 1] ** 2).mean()
    torch.testing.assert_close(losses["instantaneous_frequency"], expected)


def test_the_loss_of_one_channel_is_magnitude_and_kl():
    reconstruction, target, mu, logvar, energy = make_batch(channels=1)
    losses = vae_loss(reconstruction, target, mu, logvar, energy, **WEIGHTS)
    assert losses["instantaneous_frequency"] == 0
    torch.testing.assert_close(losses["loss"], losses["magnitude"] + 0.25 * losses["kl"])
