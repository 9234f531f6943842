"""How far samples from a model's prior lie from its data: bands, distribution, and whether they are copies."""

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
    """What samples and data are compared by: channel 0 of rows, reduced."""

    mean: Tensor
    """Each band's mean over frames, [N, M], float64."""
    spread: Tensor
    """Each band's standard deviation over frames, [N, M], float64."""
    pooled: Tensor
    """Rows averaged over 4 bands and 4 frames, flattened, [N, P], float32."""

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def descriptors(self) -> Tensor:
        """`mean` and `spread` side by side, [N, 2M]: the simple features of the Fréchet distance."""
        return torch.cat([self.mean, self.spread], dim=1)


def summarize(batches: Iterable[Tensor], max_rows: int) -> Summary:
    """Reduce the first `max_rows` rows of `batches`; only the batch in hand is in memory.

    Parameters
    ----------
    batches : iterable of Tensor [b, C, M, T]
        Z-scored features on any device; of the channels, the magnitude counts.
    max_rows : int
        At least 1.

    Raises
    ------
    ValueError
        There are no rows.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    left = max_rows
    for batch in batches:
        rows = batch[:left, :1].detach().to("cpu", torch.float32)
        spread, mean = torch.std_mean(rows[:, 0].double(), dim=2, correction=0)
        # Half bands at the edge count too: a constant row stays constant.
        pooled = F.avg_pool2d(rows, _POOL, ceil_mode=True, count_include_pad=False)
        parts.append((mean, spread, pooled.flatten(1)))
        left -= len(rows)
        if left <= 0:
            break
    if not parts:
        raise ValueError("there are no rows to summarize")
    return Summary(*(torch.cat(column) for column in zip(*parts, strict=True)))


def prior_figures(samples: Summary, training: Summary, held_out: Summary) -> dict[str, float | None]:
    """Compare samples from the prior with the training rows, and with how held-out rows compare.

    Parameters
    ----------
    samples, training, held_out : Summary

    Returns
    -------
    dict
        `prior_mean`: root mean square over bands of the difference of means, in standard deviations of the band;
        0 is best. `prior_spread`: root mean square over bands of the difference of standard deviations, relative; 0 is
        best, a constant has 1. `prior_frechet`: `frechet_distance` of the descriptors to the training rows', along at
        most 16 principal axes of these, over their variance there; a constant has at least 1. `held_out_frechet`: the
        same of the held-out rows: what real sound has. `prior_nearest`: median distance of a sample to the nearest
        training row, over that of a held-out row; near 0 for copies, None where held-out rows are copies themselves.
        Bands and rows that do not vary are left out; None where nothing varies.
    """
    mean, spread = _band_differences(samples, training)
    ours, theirs = (nearest_distances(rows.pooled, training.pooled).median().item() for rows in (samples, held_out))
    return {
        "prior_mean": mean,
        "prior_spread": spread,
        "prior_frechet": _relative_frechet(samples.descriptors, training.descriptors),
        "held_out_frechet": _relative_frechet(held_out.descriptors, training.descriptors),
        "prior_nearest": ours / theirs if theirs > 0 else None,
    }


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Squared Fréchet distance between the normal distributions with the means and covariances of two sets.

    ``|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½)`` [1]_; a set of one point has no covariance.

    Parameters
    ----------
    first : Tensor [N, k]
    second : Tensor [M, k]

    Returns
    -------
    float
        At least 0, in squared units of the sets.

    References
    ----------
    .. [1] D. C. Dowson, B. V. Landau, "The Fréchet distance between multivariate normal distributions", J. Multivariate
       Analysis 12 (1982).
    """
    (mean1, cov1), (mean2, cov2) = _moments(first), _moments(second)
    # C1 C2 has the eigenvalues of R C2 R with R the root of C1, which is symmetric.
    values, vectors = torch.linalg.eigh(cov1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()
    distance = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * shared
    return max(0.0, float(distance))


def nearest_distances(rows: Tensor, others: Tensor) -> Tensor:
    """Euclidean distance [N] of each of `rows` [N, P] to the nearest of `others` [M, P]."""
    # Differences, not products: those of near copies cancel.
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)


def _band_differences(samples: Summary, training: Summary) -> tuple[float | None, float | None]:
    (mean, spread), (data_mean, data_spread) = _bands(samples), _bands(training)
    varies = data_spread > 0
    if not varies.any():
        return None, None
    offsets = ((mean - data_mean) / data_spread)[varies]
    ratios = (spread / data_spread)[varies]
    return _rms(offsets), _rms(ratios - 1)


def _bands(rows: Summary) -> tuple[Tensor, Tensor]:
    """Mean [M] and standard deviation [M] of each band, over rows and frames."""
    mean = rows.mean.mean(dim=0)
    variance = rows.spread.square().mean(dim=0) + (rows.mean - mean).square().mean(dim=0)
    return mean, variance.sqrt()


def _rms(values: Tensor) -> float:
    return math.sqrt(values.square().mean().item())


def _relative_frechet(rows: Tensor, data: Tensor) -> float | None:
    """Fréchet distance along the principal axes of `data` [N, D], over its variance along them; None without any."""
    mean = data.mean(dim=0)
    # Fewer axes than rows on either side, or a covariance would lack some.
    count = min(_LARGEST_DIM, data.shape[1], len(data) - 1)
    if count < 1:
        return None
    axes = torch.linalg.svd(data - mean, full_matrices=False).Vh[:count].T
    rows, data = (rows - mean) @ axes, (data - mean) @ axes
    variance = data.var(dim=0, correction=0).sum().item()
    return frechet_distance(rows, data) / variance if variance > 0 else None


def _moments(points: Tensor) -> tuple[Tensor, Tensor]:
    points = points.double()
    centred = points - points.mean(dim=0)
    return points.mean(dim=0), centred.T @ centred / len(points)
