"""The loss of a batch that is divided: each part has its share of the gradient."""

from __future__ import annotations

import pytest
import torch

from distill.models import vae_loss
from distill.models.part import Part, part_bounds

WEIGHTS = {"if_weight": 0.7, "kl_weight": 0.3, "free_bits": 0.2, "loud_share": 0.4}


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("has_energy", [False, True])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_parts_have_the_loss_of_the_batch_and_their_gradients_add_up_to_its(channels, has_energy, size):
    torch.manual_seed(0)
    target, output = torch.randn(2, 4, channels, 6, 5, dtype=torch.float64)
    mu, logvar = 0.6 * torch.randn(2, 4, 7, dtype=torch.float64)
    energy = torch.rand(4, 6, 5, dtype=torch.float64) ** 4 if has_energy else None
    variables = [output, mu, logvar]
    for value in variables:
        value.requires_grad_(True)
    whole = vae_loss(output, target, mu, logvar, energy, **WEIGHTS)
    expected = torch.autograd.grad(whole["loss"], variables)
    # Some latent dimensions are below the limit, others are not.
    units = (0.5 * (mu**2 + logvar.exp() - 1 - logvar)).mean(dim=0)
    assert 0 < (units < WEIGHTS["free_bits"]).sum() < 7

    def losses(rank: int, add_up) -> dict[str, torch.Tensor]:
        part = Part(*part_bounds(4, rank, size), 4, add_up)
        rows = [part.of(value) for value in (output, target, mu, logvar)]
        return vae_loss(*rows, None if energy is None else part.of(energy), **WEIGHTS, part=part)

    own = []
    for rank in range(size):
        losses(rank, lambda values: own.append(values) or values)
    assert not any(values.requires_grad for values in own)
    found = [losses(rank, lambda values: sum(own)) for rank in range(size)]
    for name, value in whole.items():
        assert all(each[name].item() == pytest.approx(value.item(), rel=1e-12) for each in found), name
    gradients = [torch.autograd.grad(each["loss"], variables) for each in found]
    for total, parts in zip(expected, zip(*gradients, strict=True), strict=True):
        assert torch.allclose(sum(parts), total, rtol=1e-10, atol=1e-14)
