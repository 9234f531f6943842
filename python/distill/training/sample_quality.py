"""Distances between samples of a model and its data: per band, as distributions, and to the nearest training row."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_POOL = 4
_LARGEST_DIM = 16


@dataclass(frozen=True)
class Summary:
    """Statistics of channel 0 of rows, by which samples and data are compared."""

    mean: Tensor
    """Mean of each band over frames, [N, M], float64."""
    spread: Tensor
    """Standard deviation of each band over frames, [N, M], float64."""
    pooled: Tensor
    """Rows averaged over patches of 4 bands and 4 frames and flattened, [N, P], float32."""

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def descriptors(self) -> Tensor:
        """`mean` and `spread` concatenated, [N, 2M]: the vectors whose Fréchet distance is computed."""
        return torch.cat([self.mean, self.spread], dim=1)


def summarize(batches: Iterable[Tensor], max_rows: int) -> Summary:
    """Return the summary of the first `max_rows` rows of `batches`, which are read one at a time.

    Parameters
    ----------
    batches : iterable of Tensor [b, C, M, T]
        Normalised features on any device. Only channel 0, the magnitude, is used.
    max_rows : int
        At least 1.

    Raises
    ------
    ValueError
        If there are no rows.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    left = max_rows
    for batch in batches:
        rows = batch[:left, :1].detach().to("cpu", torch.float32)
        spread, mean = torch.std_mean(rows[:, 0].double(), dim=2, correction=0)
        # Patches at the edge are averaged over the values they have, so a constant row stays constant.
        pooled = F.avg_pool2d(rows, _POOL, ceil_mode=True, count_include_pad=False)
        parts.append((mean, spread, pooled.flatten(1)))
        left -= len(rows)
        if left <= 0:
            break
    if not parts:
        raise ValueError("there are no rows to summarize")
    return Summary(*(torch.cat(column) for column in zip(*parts, strict=True)))


def compare_samples(samples: Summary, training: Summary, held_out: Summary) -> dict[str, float | None]:
    """Compare samples with the training rows, and held-out rows with them as a reference.

    Parameters
    ----------
    samples, training, held_out : Summary

    Returns
    -------
    dict
        `prior_mean`: difference of the bands' means in standard deviations of the training rows, root mean square over
        bands; 0 is best. `prior_spread`: relative difference of the bands' standard deviations, root mean square over
        bands; 0 is best, a constant has 1. `prior_frechet`: `frechet_distance` between the descriptors of the samples
        and of the training rows, along at most 16 principal axes of the latter and divided by their variance along
        these; a constant has at least 1. `held_out_frechet`: the same for the held-out rows, as a reference.
        `prior_nearest`: median distance of a sample to the nearest training row, divided by that of a held-out row;
        near 0 for copies, None if the held-out rows are copies themselves. Bands that do not vary are ignored; a figure
        is None if nothing varies.
    """
    mean, spread = _band_differences(samples, training)
    of_samples, of_held_out = (
        nearest_distances(rows.pooled, training.pooled).median().item() for rows in (samples, held_out)
    )
    return {
        "prior_mean": mean,
        "prior_spread": spread,
        "prior_frechet": _relative_frechet(samples.descriptors, training.descriptors),
        "held_out_frechet": _relative_frechet(held_out.descriptors, training.descriptors),
        "prior_nearest": of_samples / of_held_out if of_held_out > 0 else None,
    }


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Compute the squared Fréchet distance between normal distributions fitted to two sets of points.

    It is ``|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½)`` [1]_. The covariance of a single point is zero.

    Parameters
    ----------
    first : Tensor [N, k]
    second : Tensor [M, k]

    Returns
    -------
    float
        At least 0, in squared units of the points.

    References
    ----------
    .. [1] D. C. Dowson, B. V. Landau, "The Fréchet distance between multivariate normal distributions", J. Multivariate
       Analysis 12 (1982).
    """
    (mean1, cov1), (mean2, cov2) = _moments(first), _moments(second)
    # C1 C2 has the same eigenvalues as the symmetric matrix R C2 R, where R is the square root of C1.
    values, vectors = torch.linalg.eigh(cov1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()
    distance = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * shared
    return max(0.0, float(distance))


def nearest_distances(rows: Tensor, others: Tensor) -> Tensor:
    """Return the Euclidean distance [N] of each of `rows` [N, P] to the nearest of `others` [M, P]."""
    # By differences: distances from matrix products lose all precision for near copies.
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)


def _band_differences(samples: Summary, training: Summary) -> tuple[float | None, float | None]:
    """Return `prior_mean` and `prior_spread` of `compare_samples`."""
    (mean, spread), (data_mean, data_spread) = _bands(samples), _bands(training)
    varies = data_spread > 0
    if not varies.any():
        return None, None
    offsets = ((mean - data_mean) / data_spread)[varies]
    ratios = (spread / data_spread)[varies]
    return _rms(offsets), _rms(ratios - 1)


def _bands(rows: Summary) -> tuple[Tensor, Tensor]:
    """Return mean [M] and standard deviation [M] of each band over rows and frames."""
    mean = rows.mean.mean(dim=0)
    variance = rows.spread.square().mean(dim=0) + (rows.mean - mean).square().mean(dim=0)
    return mean, variance.sqrt()


def _rms(values: Tensor) -> float:
    return math.sqrt(values.square().mean().item())


def _relative_frechet(rows: Tensor, data: Tensor) -> float | None:
    """Return the Fréchet distance along the principal axes of `data` [N, D], divided by its variance along them."""
    mean = data.mean(dim=0)
    # N rows vary along at most N - 1 axes.
    count = min(_LARGEST_DIM, data.shape[1], len(data) - 1)
    if count < 1:
        return None
    axes = torch.linalg.svd(data - mean, full_matrices=False).Vh[:count].T
    rows, data = (rows - mean) @ axes, (data - mean) @ axes
    variance = data.var(dim=0, correction=0).sum().item()
    return frechet_distance(rows, data) / variance if variance > 0 else None


def _moments(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean [k] and covariance [k, k] of points [N, k]."""
    points = points.double()
    centred = points - points.mean(dim=0)
    return points.mean(dim=0), centred.T @ centred / len(points)
