"""The mathematics of an analysis: principal axes, their correlations and names, and nearest neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

LEAST_CORRELATION = 0.3
"""|r| below which an axis is not named after a feature."""

LEAST_SHARE = 0.02
"""Share of the variance below which an axis is not named, however strong its correlations.

Moving along such an axis is hardly heard; the figures are in docs/notes/sound.md."""

# Standard deviation, in the unit of a feature, below which it counts as constant: measures are no more precise.
_RESOLUTION = 1e-3
# An axis whose standard deviation is a smaller share of the largest one is a rounding error of float32.
_LEAST_SCALE = 1e-5
_BLOCK_ROWS = 1024
# Of a course: a covariance of all units at all times would be too large.
_COURSE_VALUES = 768
_BLOCK_DISTANCES = 1 << 22


class PrincipalAxes(NamedTuple):
    """Principal axes in order of decreasing variance; K of them, at most D and at most N - 1."""

    mean: Tensor
    """Mean of the vectors, [D]."""
    components: Tensor
    """Directions of the axes, orthonormal, [K, D]."""
    scale: Tensor
    """Standard deviation of the latent vectors along each axis (divided by N, not N - 1), positive, [K]."""
    share: Tensor
    """Share of the variance that each axis adds to those before it, [K]."""
    is_course: Tensor
    """Whether an axis changes the course of a sound in time, not its mean, [K], bool."""


def principal_axes(latents: Tensor, effect: Tensor) -> PrincipalAxes:
    """Compute the principal axes of latent vectors whose units are weighted by their effect on the sound, in float64.

    A latent space close to its prior has about the same variance in all directions, so an unweighted PCA gives
    arbitrary axes. This function finds the principal components of ``effect * latents``, takes the directions in latent
    space that compute them, and makes these orthonormal in order. The first k axes then carry exactly the information
    of the first k weighted components, whose share of the variance is returned. If all effects are equal, the result is
    that of an unweighted PCA.

    Parameters
    ----------
    latents : Tensor [N, D]
        Latent vectors.
    effect : Tensor [D]
        Weight of each unit, not negative. Only the proportions matter.

    Returns
    -------
    PrincipalAxes
        The entry with the largest magnitude of each axis is positive. There are no axes if all vectors are the same.
    """
    blocks = latents.split(_BLOCK_ROWS)
    mean = torch.stack([block.sum(dim=0, dtype=torch.float64) for block in blocks]).sum(dim=0) / len(latents)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for block in blocks:
        centred = block.double() - mean
        covariance += centred.T @ centred / len(latents)
    effect = effect.double()
    variance, vectors = torch.linalg.eigh(effect[:, None] * covariance * effect)
    variance, vectors = variance.flip(0), vectors.flip(1)
    # Rounding errors of float32 values near the mean do not count as variance.
    noise = (torch.finfo(torch.float32).eps * (effect * mean).abs().max()) ** 2
    floor = max(float(noise), float(variance[0]) * _LEAST_SCALE**2)
    count = min(int((variance > floor).sum()), len(latents) - 1)
    axes, _ = torch.linalg.qr(effect[:, None] * vectors[:, :count])
    # The solver returns arbitrary signs.
    peak = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    axes = (axes * peak.sign()).T
    scale = ((axes @ covariance) * axes).sum(dim=1).sqrt()
    share = variance[:count] / variance.clamp(min=0).sum()
    return PrincipalAxes(mean, axes, scale, share, torch.zeros(count, dtype=torch.bool))


def sequence_axes(latents: Tensor, effect: Tensor) -> PrincipalAxes:
    """Compute the principal axes of sequences: those of their means, and those of their courses about their means.

    A move along an axis of the first kind changes a sound throughout, along one of the second kind over time. Both are
    directions of whole sequences of D = L·k values, ordered together by the variance that they explain.

    Parameters
    ----------
    latents : Tensor [N, L, k]
        Sequences of latent vectors.
    effect : Tensor [k]
        Weight of each unit, as for `principal_axes`.

    Returns
    -------
    PrincipalAxes
        Of flattened sequences.
    """
    count, length, units = latents.shape
    if length == 1:
        return principal_axes(latents[:, 0], effect)
    # In float64: a course must not keep a rounding error of its mean, which would not be orthogonal to the other axes.
    latents, effect = latents.double(), effect.double()
    means = latents.mean(dim=1)
    of_mean = principal_axes(means, effect)
    courses = latents - means[:, None]
    # The units that are heard most.
    most = max(1, _COURSE_VALUES // length)
    heard = (effect * courses.flatten(0, 1).std(dim=0)).topk(min(units, most)).indices.sort().values
    of_course = principal_axes(courses[..., heard].flatten(1), effect[heard].repeat(length))
    axes = torch.zeros(len(of_course.scale), length, units, dtype=torch.float64)
    axes[..., heard] = of_course.components.unflatten(1, (length, len(heard)))
    weights = [_variance(means, effect) * length, _variance(courses.flatten(1), effect.repeat(length))]
    shares = torch.cat([part.share * weight for part, weight in zip((of_mean, of_course), weights, strict=True)])
    # The same shift at every time has sqrt(L) times the length of the shift at one.
    constant = of_mean.components[:, None].expand(-1, length, -1).flatten(1) / math.sqrt(length)
    components = torch.cat([constant, axes.flatten(1)])
    scale = torch.cat([of_mean.scale * math.sqrt(length), of_course.scale])
    is_course = torch.cat([torch.zeros(len(of_mean.scale)), torch.ones(len(axes))]).bool()
    order = shares.argsort(descending=True, stable=True)[: min(count - 1, len(shares))]
    mean = latents.mean(dim=0).flatten()
    total = sum(weights)
    return PrincipalAxes(mean, components[order], scale[order], shares[order] / total, is_course[order])


def _variance(points: Tensor, effect: Tensor) -> float:
    """Return the variance of points [N, D] weighted by `effect` [D], added over dimensions."""
    return float((points * effect).var(dim=0, correction=0).sum())


def correlations(coordinates: Tensor, features: Tensor) -> tuple[Tensor, list[bool]]:
    """Compute Pearson's r of each feature with each axis.

    Parameters
    ----------
    coordinates : Tensor [N, K], float64
        Coordinates of the latent vectors along the axes, none of them constant.
    features : Tensor [N, F], float64
        The features of the same rows.

    Returns
    -------
    r : Tensor [F, K]
        0 for constant features.
    constant : list of bool
        Whether each feature is constant.
    """
    deviations = features - features.mean(dim=0)
    spread = deviations.square().mean(dim=0).sqrt()
    constant = spread < _RESOLUTION
    centred = coordinates - coordinates.mean(dim=0)
    scale = centred.square().mean(dim=0).sqrt()
    r = (deviations.T @ centred) / len(features) / (spread[:, None] * scale).clamp(min=torch.finfo(torch.float64).tiny)
    r[constant] = 0.0
    return r.clamp(-1, 1), constant.tolist()


def name_axes(r: Tensor, share: Tensor, features: Sequence[str], n_chunks: int) -> tuple[list[str], list[int | None]]:
    """Name axes after the features that they correlate with.

    The strongest |r| names its axis after its feature; then the strongest one among the remaining axes and features,
    and so on, as long as |r| is at least 0.3 and at least ``3 / sqrt(n_chunks)``, which is unlikely by chance. All
    other axes, and those with less than 2 % of the variance, are called axis1, axis2 and so on, by their number.

    Parameters
    ----------
    r : Tensor [F, K]
        The result of `correlations`.
    share : Tensor [K]
        Share of the variance, from `principal_axes`.
    features : sequence of str
        The names of the F features.
    n_chunks : int
        Number of chunks that r was computed from; augmented variants of a chunk do not count.

    Returns
    -------
    names : list of str
        K names, all different.
    feature_of : list of int or None
        Index of the feature that each axis is named after; None for an axis without a feature.
    """
    strength = r.abs() * (share >= LEAST_SHARE)
    least = max(LEAST_CORRELATION, 3 / math.sqrt(n_chunks))
    feature_of: list[int | None] = [None] * r.shape[1]
    for _ in range(min(r.shape)):
        feature, axis = divmod(int(strength.argmax()), r.shape[1])
        if strength[feature, axis] < least:
            break
        feature_of[axis] = feature
        strength[feature] = strength[:, axis] = -1.0
    names = [f"axis{axis}" if feature is None else features[feature] for axis, feature in enumerate(feature_of, 1)]
    return names, feature_of


def nearest(
    latents: Tensor,
    candidates: Tensor,
    chunk_of: Tensor,
    k: int,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the nearest neighbours of every latent vector among the candidates from other chunks.

    Parameters
    ----------
    latents : Tensor [N, L]
        Latent vectors.
    candidates : Tensor [n], int64
        Indices of the vectors that may be neighbours, at most one for each chunk.
    chunk_of : Tensor [N], int64
        The chunk of each vector.
    k : int
        Number of neighbours, at most n - 1.
    progress : callable, optional
        Called with (vectors done, N).

    Returns
    -------
    indices : Tensor [N, k], int64
        Indices of the neighbours, nearest first.
    distances : Tensor [N, k], float64
        Euclidean distances.
    """
    points, chunks = latents[candidates].double(), chunk_of[candidates]
    indices = torch.empty(len(latents), k, dtype=torch.int64)
    distances = torch.empty(len(latents), k, dtype=torch.float64)
    step = max(1, _BLOCK_DISTANCES // len(candidates))
    for start in range(0, len(latents), step):
        stop = min(start + step, len(latents))
        block = latents[start:stop].double()
        approximate = torch.cdist(block, points)
        approximate[chunk_of[start:stop, None] == chunks] = math.inf
        found = approximate.topk(k, largest=False).indices
        # Computed again from differences: cdist uses a matrix product, which loses small distances to rounding.
        exact = (block[:, None] - points[found]).square().sum(dim=2).sqrt()
        exact, order = exact.sort(dim=1, stable=True)
        indices[start:stop], distances[start:stop] = candidates[found.gather(1, order)], exact
        if progress is not None:
            progress(stop, len(latents))
    return indices, distances
