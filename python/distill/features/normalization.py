"""Normalisation of features: mean and standard deviation of each channel, z-scores and back.

Statistics are a dict with ``mag_mean`` and ``mag_std`` for channel 0, ``if_mean`` and ``if_std`` for channel 1.
``distill status`` reads them and imports no torch, so this module must not import it either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from distill import _native

if TYPE_CHECKING:
    from torch import Tensor

_CHANNELS = ("mag", "if")


def normalization_stats(sums: Sequence[float]) -> dict[str, float]:
    """Compute mean and standard deviation of both channels from [n, sum, sum of squares, sum, sum of squares]."""
    n, *moments = sums
    stats = {}
    for name, total, squares in zip(_CHANNELS, moments[::2], moments[1::2], strict=True):
        mean = total / n if n else 0.0
        variance = squares / n - mean * mean if n else 0.0
        stats[f"{name}_mean"] = mean
        # A constant channel keeps its scale: divided by its rounding errors, it would explode.
        stats[f"{name}_std"] = math.sqrt(variance) if variance > 1e-12 else 1.0
    return stats


def row_sums(rows: np.ndarray) -> np.ndarray:
    """Return [n, sum, sum of squares, sum, sum of squares] over both channels of rows [k, 2, M, T], in float64."""
    sums = _native.row_sums(np.ascontiguousarray(rows).reshape(len(rows), 2, -1))
    return np.array([rows[:, 0].size, *sums[0], *sums[1]])


def normalization_arrays(stats: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and reciprocal standard deviation, [2, 1, 1] each, float32, for (rows - mean) * reciprocal."""
    mean, std = (np.array(values, np.float32).reshape(2, 1, 1) for values in _means_and_stds(stats, 2))
    return mean, 1 / std


def normalize(features: Tensor, stats: Mapping[str, float] | None) -> Tensor:
    """Return the z-scores of features [B, C, M, T], or `features` if `stats` is None."""
    if stats is None:
        return features
    mean, std = _mean_and_std(features, stats)
    return (features - mean) / std


def denormalize(features: Tensor, stats: Mapping[str, float] | None) -> Tensor:
    """Return features [B, C, M, T] from their z-scores: the inverse of :func:`normalize`."""
    if stats is None:
        return features
    mean, std = _mean_and_std(features, stats)
    return features * std + mean


def energy_of(features: Tensor, stats: Mapping[str, float] | None) -> Tensor:
    """Return channel 0 [B, M, T] of normalised features [B, C, M, T] before normalisation, at least 0.

    The loss is weighted by it.
    """
    return denormalize(features[:, :1], stats)[:, 0].clamp_min(0.0)


def silence_of(features: Tensor, stats: Mapping[str, float] | None) -> Tensor:
    """Return each channel's normalised value of silence, [C, 1, 1], for normalised features [B, C, M, T]."""
    return normalize(features.new_zeros((1, features.shape[1], 1, 1)), stats)[0]


def _means_and_stds(stats: Mapping[str, float], channels: int) -> tuple[list[float], list[float]]:
    names = _CHANNELS[:channels]
    return [stats[f"{name}_mean"] for name in names], [stats[f"{name}_std"] for name in names]


def _mean_and_std(features: Tensor, stats: Mapping[str, float]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel of `features`, [C, 1, 1] each, on their device."""
    mean, std = (features.new_tensor(values).view(-1, 1, 1) for values in _means_and_stds(stats, features.shape[1]))
    return mean, std
