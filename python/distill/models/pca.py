"""Principal components of feature rows: where the linear path of the VAE starts, and the baseline it has to beat."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

GATE_WIDTH = 0.1
"""Magnitude above silence, in standard deviations, at which the instantaneous frequency counts by half."""

_BATCH_ROWS = 256
_TINY = 1e-6


def gate_frequency(rows: Tensor, silence: float | Tensor, width: float | Tensor = GATE_WIDTH) -> Tensor:
    """Fade out the instantaneous frequency where a band is silent and its frequency is noise.

    ``channel 1 * e / (e + width)`` with ``e = max(channel 0 - silence, 0)``. One channel passes unchanged.

    Parameters
    ----------
    rows : Tensor [B, C, M, T]
        Z-scored features, C 1 or 2.
    silence : float
        Z-scored magnitude of a band without energy: ``-mean / std`` of channel 0.
    width : float
        Magnitude above silence at which the factor is one half; 0 passes `rows` unchanged.

    Returns
    -------
    Tensor [B, C, M, T]
    """
    if rows.shape[1] == 1:
        return rows
    magnitude, frequency = rows.split(1, dim=1)
    energy = (magnitude - silence).clamp(min=0) + _TINY
    return torch.cat([magnitude, frequency * (energy / (energy + width))], dim=1)


@dataclass(frozen=True)
class PCA:
    """Mean, principal axes and standard deviations of gated rows, flattened to D = C·M·T."""

    mean: Tensor
    """Mean row, [D]."""
    components: Tensor
    """Orthonormal axes, most variance first, [k, D]; rows of zeros beyond the rank of the data."""
    scale: Tensor
    """Standard deviation of the rows along each axis, [k]; 0 beyond the rank."""
    silence: float = 0.0
    """The `silence` of `gate_frequency`."""
    gate_width: float = 0.0
    """The `width` of `gate_frequency` that the rows went through; 0: none."""

    @property
    def rank(self) -> int:
        """How many of the axes carry variance."""
        return int((self.scale > 0).sum())

    def project(self, rows: Tensor) -> Tensor:
        """Coordinates [B, k] of rows [B, C, M, T] along the axes, not whitened."""
        gated = gate_frequency(rows, self.silence, self.gate_width)
        return (gated.flatten(1) - self.mean) @ self.components.T

    def reconstruct(self, rows: Tensor) -> Tensor:
        """Rows [B, C, M, T] from their own projection: the baseline for a trained model."""
        return (self.project(rows) @ self.components + self.mean).reshape(rows.shape)


def fit_pca(
    rows: Tensor | Iterable[Tensor],
    n_components: int,
    *,
    max_rows: int = 4096,
    silence: float | None = None,
    gate_width: float = GATE_WIDTH,
    seed: int = 0,
) -> PCA:
    """Fit principal components through the Gram matrix of at most `max_rows` rows.

    The Gram matrix is N x N, so its cost does not explode with D (24 064 by default). Where there are more rows than
    `max_rows`, a uniform sample is taken: from an iterable by reservoir sampling, so that one pass and the memory of
    the sample are enough.

    Parameters
    ----------
    rows : Tensor [N, C, M, T], or iterable of Tensor [b, C, M, T]
        Z-scored features, float32.
    n_components : int
        Axes to return, k >= 1; those beyond the rank (at most N - 1) are zero.
    max_rows : int
        Largest sample, at least 1.
    silence : float, optional
        Z-scored magnitude of silence; given, rows of two channels go through `gate_frequency` first.
    gate_width : float
        The `width` of `gate_frequency`.
    seed : int
        Seed of the sample and of nothing else; the fit is deterministic.

    Returns
    -------
    PCA

    Raises
    ------
    ValueError
        No rows, rows that are not finite, or n_components or max_rows below 1.
    """
    if n_components < 1:
        raise ValueError(f"n_components={n_components} must be at least 1")
    if max_rows < 1:
        raise ValueError(f"max_rows={max_rows} must be at least 1")
    sample = _sample(rows, max_rows, torch.Generator().manual_seed(seed))
    width = 0.0 if silence is None else gate_width
    silence = silence or 0.0
    # In blocks and in place: the sample may be most of the memory there is.
    for block in sample.split(_BATCH_ROWS):
        block.copy_(gate_frequency(block, silence, width))
    matrix = sample.flatten(1)
    blocks = matrix.split(_BATCH_ROWS)
    mean = (torch.stack([block.sum(dim=0, dtype=torch.float64) for block in blocks]).sum(dim=0) / len(matrix)).float()
    if not bool(torch.isfinite(mean).all()):
        raise ValueError("rows must be finite")
    matrix -= mean
    # What float32 rounds away of the mean is no variance.
    noise = (torch.finfo(torch.float32).eps * float(torch.linalg.vector_norm(mean))) ** 2
    components, scale = _principal_axes(matrix, n_components, noise)
    return PCA(mean, components, scale, silence, width)


def _principal_axes(centred: Tensor, n_components: int, noise: float) -> tuple[Tensor, Tensor]:
    """Axes [k, D] and standard deviations [k] of centred rows [N, D]; zeros where there is but `noise`."""
    n_rows, width = centred.shape
    gram = (centred @ centred.T).double()
    variance, vectors = torch.linalg.eigh(gram / n_rows)
    variance, vectors = variance.flip(0), vectors.flip(1)
    # Rounding of a float32 product leaves some sqrt(N)·eps of the largest variance on axes that have none.
    floor = max(noise, float(variance[0]) * math.sqrt(n_rows) * torch.finfo(torch.float32).eps)
    rank = min(int((variance > floor).sum()), n_components, max(n_rows - 1, 0), width)
    components, scale = torch.zeros(n_components, width), torch.zeros(n_components)
    if rank:
        axes = vectors[:, :rank].float().T @ centred
        axes /= torch.linalg.vector_norm(axes, dim=1, keepdim=True)
        # An eigenvector's sign is the solver's whim: make the largest entry positive.
        peak = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
        components[:rank] = axes * peak.sign()
        scale[:rank] = variance[:rank].sqrt().float()
    return components, scale


def _sample(rows: Tensor | Iterable[Tensor], max_rows: int, generator: torch.Generator) -> Tensor:
    """At most `max_rows` rows, uniformly chosen, as a new float32 tensor on the CPU."""
    if isinstance(rows, Tensor):
        chosen = torch.randperm(len(rows), generator=generator)[:max_rows].sort().values
        rows = [rows[chosen.to(rows.device)]]
    kept: list[Tensor] = []
    for seen, row in enumerate(_single(rows)):
        if seen < max_rows:
            kept.append(row)
            continue
        place = int(torch.randint(seen + 1, (), generator=generator))
        if place < max_rows:
            kept[place] = row
    if not kept:
        raise ValueError("rows must hold at least one row")
    sample = torch.empty(len(kept), *kept[0].shape)
    # One row in, one row freed: the sample is never in memory twice.
    for place in range(len(kept)):
        sample[place] = kept[place]
        kept[place] = sample[place]
    return sample


def _single(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    for batch in batches:
        # A copy a row: a view would keep the whole batch in memory for one sampled row.
        yield from (row.clone() for row in batch.detach().to("cpu", torch.float32))
