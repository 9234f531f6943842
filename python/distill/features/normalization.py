"""Normalisation of features: mean and standard deviation of each channel, z-scores and back.

Statistics are a dict with ``mag_mean`` and ``mag_std`` for channel 0, ``if_mean`` and ``if_std`` for channel 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from distill import _native
from distill.features.statistics import CHANNELS

if TYPE_CHECKING:
    from torch import Tensor


def row_sums(rows: np.ndarray) -> np.ndarray:
    """Return [n, sum, sum of squares, sum, sum of squares] over both channels of rows [k, 2, M, T], in float64."""
    sums = _native.row_sums(np.ascontiguousarray(rows).reshape(len(rows), 2, -1))
    return np.array([rows[:, 0].size, *sums[0], *sums[1]])


def normalization_arrays(stats: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and reciprocal standard deviation, [2, 1, 1] each, float32, for (rows - mean) * reciprocal."""
    mean, std = (np.array(values, np.float32).reshape(2, 1, 1) for values in _means_and_stds(stats, 2))
    return mean, 1 / std


def normalize(features: Tensor, stats: Mapping[str, float] | None) -> Tensor:
    """Return the z-scores of features.

    Parameters
    ----------
    features : torch.Tensor
        Shape (..., C, M, T), as from ``ComplexSpectrogram`` (C = 2) or ``AudioSpectrogram`` (C = 1), any floating type.
    stats : mapping or None
        ``mag_mean`` and ``mag_std`` of channel 0, ``if_mean`` and ``if_std`` of channel 1: the ``normalization_stats``
        of a dataset, of ``load_cache_manifest`` or of an export. None: return `features` as they are.

    Returns
    -------
    torch.Tensor
        The same shape, type and device.

    Raises
    ------
    ValueError
        If the shape is wrong, or a figure of `stats` is missing, not finite or no standard deviation.

    Examples
    --------
    >>> import torch
    >>> from distill.audio import normalize
    >>> stats = {"mag_mean": 1.0, "mag_std": 2.0, "if_mean": 0.0, "if_std": 0.5}
    >>> normalize(torch.ones(1, 2, 128, 94), stats)[0, :, 0, 0]
    tensor([0., 2.])
    """
    if stats is None:
        return features
    mean, std = _mean_and_std(features, stats)
    return (features - mean) / std


def denormalize(features: Tensor, stats: Mapping[str, float] | None) -> Tensor:
    """Return features from their z-scores: the inverse of :func:`normalize`.

    What a cache, an export or a model gives has to be denormalised before ``ComplexSpectrogram.inverse``.

    Parameters
    ----------
    features : torch.Tensor
        Shape (..., C, M, T), normalised.
    stats : mapping or None
        As for :func:`normalize`.

    Returns
    -------
    torch.Tensor
        The same shape, type and device.

    Raises
    ------
    ValueError
        If the shape is wrong, or a figure of `stats` is missing, not finite or no standard deviation.

    Examples
    --------
    >>> import torch
    >>> from distill.audio import denormalize
    >>> stats = {"mag_mean": 1.0, "mag_std": 2.0, "if_mean": 0.0, "if_std": 0.5}
    >>> denormalize(torch.ones(1, 2, 128, 94), stats)[0, :, 0, 0]
    tensor([3.0000, 0.5000])
    """
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
    names = CHANNELS[:channels]
    return [_figure(stats, f"{name}_mean") for name in names], [_figure(stats, f"{name}_std") for name in names]


def _figure(stats: Mapping[str, float], name: str) -> float:
    if name not in stats:
        raise ValueError(f"the statistics lack {name}: pass the normalization_stats of the dataset")
    value = stats[name]
    if not math.isfinite(value) or (name.endswith("_std") and value <= 0):
        raise ValueError(f"{name}={value} of the statistics must be finite, and above 0 if it is a standard deviation")
    return value


def _mean_and_std(features: Tensor, stats: Mapping[str, float]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel of `features`, [C, 1, 1] each, on their device."""
    if not hasattr(features, "new_tensor"):
        raise TypeError(f"features must be a torch.Tensor, not {type(features).__name__}")
    if features.ndim < 3 or features.shape[-3] not in (1, 2):
        raise ValueError(f"features of shape {list(features.shape)} must be [..., 1 or 2, n_mels, frames]")
    values = _means_and_stds(stats, features.shape[-3])
    mean, std = (features.new_tensor(figures).view(-1, 1, 1) for figures in values)
    return mean, std
