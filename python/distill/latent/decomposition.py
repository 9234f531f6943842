"""The numbers of an analysis: principal axes of latent vectors, what they go with, their names, and neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

LEAST_CORRELATION = 0.3
"""|r| below which an axis is not named after a feature."""

LEAST_SHARE = 0.02
"""Share of the variance below which an axis is not named, whatever it goes with: moving along it is hardly heard.

In runs on the demo's sounds and on sonic-pi's, a standard deviation along an axis above it that has a feature's name
moves that feature by 0.3 to 0.9 of its own; along those below that would have got one, by 0.05 to 0.1."""

# A feature that varies by less, in its unit, is the same in all rows: measures do not resolve more.
_RESOLUTION = 1e-3
# A standard deviation below this share of the largest is rounding of float32 and no axis.
_LEAST_SCALE = 1e-5
_BLOCK_ROWS = 1024
_BLOCK_DISTANCES = 1 << 22


class PrincipalAxes(NamedTuple):
    """PrincipalAxes axes, most variance first; K of them, at most L and N - 1."""

    mean: Tensor
    """[L]"""
    components: Tensor
    """Orthonormal rows, [K, L]."""
    scale: Tensor
    """Standard deviation of the latent vectors along each (over N), [K], > 0."""
    share: Tensor
    """Share of the variance that each adds to those before it, [K]."""


def principal_axes(latents: Tensor, effect: Tensor) -> PrincipalAxes:
    """PrincipalAxes axes of latent vectors in which each unit counts by how much it changes the sound; float64.

    A latent space that is near its prior has about the same variance in all directions, so that its plain principal
    axes are any. Here those of ``effect * latents`` are found, and the directions in latent space that read them off,
    made orthonormal in their order: the first k axes tell exactly what the first k principal components tell, whose
    share of the variance is given. Where all units have the same effect, this is the plain PCA.

    Parameters
    ----------
    latents : Tensor [N, L]
    effect : Tensor [L]
        Not negative; only the proportions matter.

    Returns
    -------
    PrincipalAxes
        With the largest entry of each axis positive; without axes if all vectors are the same.
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
    # What float32 rounds away of the mean is no variance either.
    noise = (torch.finfo(torch.float32).eps * (effect * mean).abs().max()) ** 2
    floor = max(float(noise), float(variance[0]) * _LEAST_SCALE**2)
    count = min(int((variance > floor).sum()), len(latents) - 1)
    axes, _ = torch.linalg.qr(effect[:, None] * vectors[:, :count])
    # A direction's sign is the solver's whim.
    peak = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    axes = (axes * peak.sign()).T
    scale = ((axes @ covariance) * axes).sum(dim=1).sqrt()
    return PrincipalAxes(mean, axes, scale, variance[:count] / variance.clamp(min=0).sum())


def correlations(coordinates: Tensor, features: Tensor) -> tuple[Tensor, list[bool]]:
    """Pearson's r of each feature with each axis.

    Parameters
    ----------
    coordinates : Tensor [N, K], float64
        Of the latent vectors along the axes, none of them constant.
    features : Tensor [N, F], float64

    Returns
    -------
    r : Tensor [F, K]
        0 for a feature that is constant.
    constant : list of bool
        Whether each feature is the same in all rows.
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
    """Names of axes by what they go with.

    The strongest |r| of all names its axis after its feature; then the strongest of the axes and features that are
    left, and so on while it is at least 0.3, and at least ``3 / sqrt(n_chunks)``, which chance rarely makes. The rest,
    and all with less than 2 % of the variance, are called axis1, axis2 and so on, by their number.

    Parameters
    ----------
    r : Tensor [F, K]
        As `correlations` gives it.
    share : Tensor [K]
        Of the variance, as `principal_axes` gives it.
    features : sequence of str
        The F names.
    n_chunks : int
        Sounds that r comes from; variants of one count once.

    Returns
    -------
    names : list of str
        K of them, all different.
    feature_of : list of int or None
        The feature that each axis is named after.
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
    names = [f"axis{axis + 1}" if of is None else features[of] for axis, of in enumerate(feature_of)]
    return names, feature_of


def nearest(
    latents: Tensor,
    candidates: Tensor,
    chunk_of: Tensor,
    k: int,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[Tensor, Tensor]:
    """Nearest neighbours of every latent vector among some of them, never of its own chunk.

    Parameters
    ----------
    latents : Tensor [N, L]
    candidates : Tensor [n], int64
        Which of the N may be neighbours: at most one of each chunk.
    chunk_of : Tensor [N], int64
        Which chunk each is of.
    k : int
        How many, at most n - 1.
    progress : callable, optional
        Called with (vectors done, N).

    Returns
    -------
    indices : Tensor [N, k], int64
        Of the N, nearest first.
    distances : Tensor [N, k], float64
        Euclidean.
    """
    points, chunks = latents[candidates].double(), chunk_of[candidates]
    indices = torch.empty(len(latents), k, dtype=torch.int64)
    distances = torch.empty(len(latents), k, dtype=torch.float64)
    step = max(1, _BLOCK_DISTANCES // len(candidates))
    for start in range(0, len(latents), step):
        stop = min(start + step, len(latents))
        block = latents[start:stop].double()
        far = torch.cdist(block, points)
        far[chunk_of[start:stop, None] == chunks] = math.inf
        found = far.topk(k, largest=False).indices
        # Anew: a matrix product rounds away small distances.
        exact = (block[:, None] - points[found]).square().sum(dim=2).sqrt()
        exact, order = exact.sort(dim=1, stable=True)
        indices[start:stop], distances[start:stop] = candidates[found.gather(1, order)], exact
        if progress is not None:
            progress(stop, len(latents))
    return indices, distances
