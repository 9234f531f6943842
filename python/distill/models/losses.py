"""The training loss: magnitude, energy-weighted instantaneous frequency, and KL with free bits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from distill.models.part import Part

_SMALLEST_ENERGY = 1e-8
# Power to which the power of a band weights its error, and what keeps the weight of silence above 0.
_LOUDNESS_EXPONENT = 0.25
_SMALLEST_POWER = 1e-3


def vae_loss(
    reconstruction: Tensor,
    target: Tensor,
    mu: Tensor,
    logvar: Tensor,
    energy: Tensor | None = None,
    *,
    if_weight: float,
    kl_weight: float,
    free_bits: float,
    loud_share: float = 0.0,
    part: Part | None = None,
) -> dict[str, Tensor]:
    """Compute ``magnitude + if_weight * instantaneous_frequency + kl_weight * kl`` and its terms.

    Parameters
    ----------
    reconstruction, target : Tensor [B, C, M, T]
        Normalised features, C 1 or 2.
    mu, logvar : Tensor [B, ..., k]
        Mean and log variance of the posterior of the latent vectors.
    energy : Tensor [B, M, T], optional
        Channel 0 before normalisation, at least 0. The instantaneous frequency is weighted by it, and the magnitude by
        the loudness that follows from it. Default: equal weights.
    if_weight : float
        Weight of the instantaneous frequency.
    kl_weight : float
        Weight of the KL term.
    free_bits : float
        Lower limit of the KL term of each latent dimension in nats, see `kl_divergence`.
    loud_share : float
        Share of the magnitude's weights that follow loudness, the fourth root of a band's power relative to its mean
        over the row; the rest are equal. Default: 0.
    part : Part, optional
        Which rows of a batch these are, if other processes compute the others. The values are then those of the whole
        batch. The gradient of `loss` is this part's share: the gradient of the whole batch is its sum over processes.

    Returns
    -------
    dict of scalar Tensor
        `loss`; `magnitude`: weighted mean squared error of channel 0; `instantaneous_frequency`: mean squared error of
        channel 1 weighted by energy, 0 for one channel; `kl`: in nats, mean over latent dimensions.

    Examples
    --------
    >>> import torch
    >>> from distill.models import ConvVAE, vae_loss
    >>> rows = torch.randn(3, 2, 128, 94)
    >>> reconstruction, mu, logvar = ConvVAE(in_channels=2, latent_dim=16)(rows)
    >>> losses = vae_loss(reconstruction, rows, mu, logvar, if_weight=0.5, kl_weight=2e-3, free_bits=0.05)
    >>> losses["loss"].backward()
    """
    if part is not None:
        return _loss_of_part(
            reconstruction,
            target,
            mu,
            logvar,
            energy,
            part,
            if_weight=if_weight,
            kl_weight=kl_weight,
            free_bits=free_bits,
            loud_share=loud_share,
        )
    magnitude = ((reconstruction[:, 0] - target[:, 0]).square() * _loudness_weights(energy, loud_share)).mean()
    if target.shape[1] == 1:
        frequency = magnitude.new_zeros(())
    else:
        frequency = _weighted_error(reconstruction[:, 1], target[:, 1], energy)
    kl = kl_divergence(mu, logvar, free_bits=free_bits)
    loss = magnitude + if_weight * frequency + kl_weight * kl
    return {"loss": loss, "magnitude": magnitude, "instantaneous_frequency": frequency, "kl": kl}


def kl_divergence(mu: Tensor, logvar: Tensor, *, free_bits: float = 0.0) -> Tensor:
    """Compute the KL divergence of N(mu, exp(logvar)) from N(0, 1) in nats, mean over latent dimensions.

    Each dimension's mean over all latent vectors is clamped to at least `free_bits`. Below that it has no gradient, so
    that dimensions with little information are not driven to have none.

    Parameters
    ----------
    mu, logvar : Tensor [B, ..., k]
    free_bits : float
        Nats per dimension, at least 0. Default: 0.

    Returns
    -------
    scalar Tensor
    """
    return kl_of_units(mu, logvar).flatten(0, -2).mean(dim=0).clamp(min=free_bits).mean()


def kl_of_units(mu: Tensor, logvar: Tensor) -> Tensor:
    """Return the KL divergence [..., k] of N(mu, exp(logvar)) from N(0, 1) in nats, for each latent dimension."""
    return 0.5 * (mu.square() + logvar.exp() - 1.0 - logvar)


def _loudness_weights(energy: Tensor | None, share: float) -> Tensor | float:
    """Return weights [B, M, T] of the magnitude's error, whose mean over each row is 1."""
    if energy is None or not share:
        return 1.0
    loudness = (energy.expm1() + _SMALLEST_POWER) ** _LOUDNESS_EXPONENT
    # Relative to the row, not to the batch: a quiet sound counts as much as a loud one.
    return 1 - share + share * loudness / loudness.mean(dim=(1, 2), keepdim=True)


def _weighted_error(reconstruction: Tensor, target: Tensor, energy: Tensor | None) -> Tensor:
    """Return the mean squared error of [B, M, T] weighted by energy; 0 for a silent batch."""
    error = (reconstruction - target).square()
    if energy is None:
        return error.mean()
    # Divided by the mean energy of the batch, not of each row, so that nearly silent rows have little weight.
    return (error * energy).mean() / energy.mean().clamp(min=_SMALLEST_ENERGY)


def _loss_of_part(
    reconstruction: Tensor,
    target: Tensor,
    mu: Tensor,
    logvar: Tensor,
    energy: Tensor | None,
    part: Part,
    *,
    if_weight: float,
    kl_weight: float,
    free_bits: float,
    loud_share: float,
) -> dict[str, Tensor]:
    """Compute `vae_loss` of a part of a batch. Its terms are sums over rows, divided by what the whole batch has."""
    values = part.total * target.shape[2] * target.shape[3]
    error = (reconstruction - target).square()
    magnitude = (error[:, 0] * _loudness_weights(energy, loud_share)).sum() / values
    if target.shape[1] == 1:
        weighted, weight = magnitude.new_zeros(()), magnitude.new_ones(())
    else:
        weights = torch.ones_like(target[:, 1]) if energy is None else energy
        weighted, weight = (error[:, 1] * weights).sum() / values, weights.sum() / values
    kl = kl_of_units(mu, logvar).flatten(0, -2).sum(dim=0) / (part.total * math.prod(mu.shape[1:-1]))
    # One reduction for all terms. Its result is a constant for the gradient: neither the energy nor which latent
    # dimensions are below `free_bits` is differentiated.
    whole = part.add_up(torch.cat([torch.stack([magnitude, weighted, weight]), kl]).detach())
    all_magnitude, all_weighted, all_weight, all_kl = whole[0], whole[1], whole[2], whole[3:]
    all_weight = all_weight.clamp(min=_SMALLEST_ENERGY)
    is_free = all_kl < free_bits
    share = magnitude + if_weight * weighted / all_weight + kl_weight * kl.masked_fill(is_free, 0.0).mean()
    frequency, all_kl = all_weighted / all_weight, all_kl.clamp(min=free_bits).mean()
    loss = all_magnitude + if_weight * frequency + kl_weight * all_kl
    # The value of the whole batch, with the gradient of this part.
    loss = loss + (share - share.detach())
    return {"loss": loss, "magnitude": all_magnitude, "instantaneous_frequency": frequency, "kl": all_kl}
