"""The training loss: magnitude, energy-weighted instantaneous frequency, and KL with free bits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_LEAST_WEIGHT = 1e-8


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
) -> dict[str, Tensor]:
    """``magnitude + if_weight * instantaneous_frequency + kl_weight * kl``, and its parts.

    Parameters
    ----------
    reconstruction, target : Tensor [B, C, M, T]
        Z-scored features, C 1 or 2.
    mu, logvar : Tensor [B, k]
        Posterior of the latent vector.
    energy : Tensor [B, M, T], optional
        Channel 0 before z-scoring, >= 0: how much the frequency of each point counts. Default: all points alike.
    if_weight : float
        Weight of the instantaneous frequency.
    kl_weight : float
        Weight of the KL term.
    free_bits : float
        Nats a latent dimension may carry before the KL term counts.

    Returns
    -------
    dict of scalar Tensor
        `loss`; `magnitude`, mean squared error of channel 0; `instantaneous_frequency`, mean squared error of
        channel 1 weighted by energy, 0 for one channel; `kl`, nats, mean over latent dimensions.
    """
    magnitude = F.mse_loss(reconstruction[:, 0], target[:, 0])
    if target.shape[1] == 1:
        frequency = magnitude.new_zeros(())
    else:
        frequency = _weighted_error(reconstruction[:, 1], target[:, 1], energy)
    kl = kl_divergence(mu, logvar, free_bits=free_bits)
    loss = magnitude + if_weight * frequency + kl_weight * kl
    return {"loss": loss, "magnitude": magnitude, "instantaneous_frequency": frequency, "kl": kl}


def kl_divergence(mu: Tensor, logvar: Tensor, *, free_bits: float = 0.0) -> Tensor:
    """KL divergence of N(mu, exp(logvar)) from N(0, 1), nats, mean over latent dimensions.

    Each dimension's mean over the batch counts as at least `free_bits`: below that it has no gradient, so that
    dimensions of little use are not pressed to nothing.

    Parameters
    ----------
    mu, logvar : Tensor [B, k]
    free_bits : float
        Nats a dimension, >= 0.

    Returns
    -------
    scalar Tensor
    """
    return kl_of_units(mu, logvar).mean(dim=0).clamp(min=free_bits).mean()


def kl_of_units(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of N(mu, exp(logvar)) from N(0, 1), nats, [B, k] as they are."""
    return 0.5 * (mu.square() + logvar.exp() - 1.0 - logvar)


def _weighted_error(reconstruction: Tensor, target: Tensor, energy: Tensor | None) -> Tensor:
    """Mean squared error of [B, M, T], weighted by energy over the batch's mean energy; 0 for a silent batch."""
    error = (reconstruction - target).square()
    if energy is None:
        return error.mean()
    # The batch's mean, not each row's: a row that is nearly silent has little frequency to learn.
    return (error * energy).mean() / energy.mean().clamp(min=_LEAST_WEIGHT)
