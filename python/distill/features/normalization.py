"""Features to z-scores and back, by the statistics of a run."""

from __future__ import annotations

import torch
from torch import Tensor


def _mean_and_scale(features: Tensor, stats: dict[str, float]) -> tuple[Tensor, Tensor]:
    names = ("mag", "if")[: features.shape[1]]
    mean = features.new_tensor([stats[f"{name}_mean"] for name in names]).view(-1, 1, 1)
    scale = features.new_tensor([stats[f"{name}_std"] for name in names]).view(-1, 1, 1)
    return mean, scale


def normalize(features: Tensor, stats: dict[str, float] | None) -> Tensor:
    """Z-scores of features [B, C, M, T]; without statistics, the features."""
    if stats is None:
        return features
    mean, scale = _mean_and_scale(features, stats)
    return (features - mean) / scale


def denormalize(features: Tensor, stats: dict[str, float] | None) -> Tensor:
    """The inverse of `normalize`."""
    if stats is None:
        return features
    mean, scale = _mean_and_scale(features, stats)
    return features * scale + mean


def energy_of(features: Tensor, stats: dict[str, float] | None) -> Tensor | None:
    """Channel 0 of normalised features [B, 2, M, T] before normalisation, [B, M, T]: what the IF is weighted by.

    None for one channel: there is nothing to weigh.
    """
    if features.shape[1] == 1:
        return None
    return denormalize(features[:, :1], stats)[:, 0].clamp_min(0.0)


def silence_of(stats: dict[str, float] | None, channels: int) -> Tensor:
    """Each channel's normalised value where there is no sound, 0 before: [C, 1, 1]."""
    return normalize(torch.zeros(1, channels, 1, 1), stats)[0]
