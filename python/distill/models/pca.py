"""PCA of feature rows: the linear path of the VAE, and the baseline that a trained model has to beat."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

GATE_WIDTH = 0.1
"""Normalised magnitude above silence at which `gate_frequency` halves the instantaneous frequency."""

_BLOCK_ROWS = 256
_SMALLEST_ENERGY = 1e-6


def gate_frequency(rows: Tensor, silence: float | Tensor, width: float | Tensor = GATE_WIDTH) -> Tensor:
    """Fade out the instantaneous frequency where a band is nearly silent, because it is noise there.

    Channel 1 becomes ``channel 1 * e / (e + width)`` with ``e = max(channel 0 - silence, 0)``. Rows of one channel are
    returned unchanged.

    Parameters
    ----------
    rows : Tensor [B, C, M, T]
        Normalised features, C 1 or 2.
    silence : float
        Normalised magnitude of a band without energy: ``-mean / std`` of channel 0.
    width : float
        Magnitude above silence at which the factor is one half; 0 leaves `rows` unchanged. Default: 0.1.

    Returns
    -------
    Tensor [B, C, M, T]
    """
    if rows.shape[1] == 1:
        return rows
    magnitude, frequency = rows.split(1, dim=1)
    energy = (magnitude - silence).clamp(min=0) + _SMALLEST_ENERGY
    return torch.cat([magnitude, frequency * (energy / (energy + width))], dim=1)


@dataclass(frozen=True)
class PCA:
    """Mean, principal axes and standard deviations of gated rows, flattened to D = C·M·T values."""

    mean: Tensor
    """Mean row, [D]."""
    components: Tensor
    """Orthonormal axes by decreasing variance, [k, D]; zeros beyond the rank of the data."""
    scale: Tensor
    """Standard deviation of the rows along each axis, [k]; zeros beyond the rank."""
    silence: float = 0.0
    """The `silence` of `gate_frequency`."""
    gate_width: float = 0.0
    """The `width` of `gate_frequency`; 0 if rows were not gated."""

    @property
    def rank(self) -> int:
        """Number of axes with variance."""
        return int((self.scale > 0).sum())

    def project(self, rows: Tensor) -> Tensor:
        """Return the coordinates [B, k] of rows [B, C, M, T] along the axes, not whitened."""
        gated = gate_frequency(rows, self.silence, self.gate_width)
        return (gated.flatten(1) - self.mean) @ self.components.T

    def reconstruct(self, rows: Tensor) -> Tensor:
        """Return rows [B, C, M, T] reconstructed from their projection."""
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
    """Fit a PCA to at most `max_rows` rows.

    The axes are computed from the N x N Gram matrix if N is at most D, because the covariance matrix would be D x D
    with D = 24 064 by default. If there are more than `max_rows` rows, a uniform sample of them is used. An iterable is
    sampled in one pass, by reservoir sampling.

    Parameters
    ----------
    rows : Tensor [N, C, M, T], or iterable of Tensor [b, C, M, T]
        Normalised features, float32.
    n_components : int
        Number of axes k, at least 1. Those beyond the rank, which is at most N - 1, are zeros.
    max_rows : int
        Largest sample, at least 1. Default: 4096.
    silence : float, optional
        Normalised magnitude of silence, with which rows go through `gate_frequency` first. Default: no gate.
    gate_width : float
        The `width` of `gate_frequency`. Default: 0.1.
    seed : int
        Seed of the sample; the fit itself is deterministic. Default: 0.

    Returns
    -------
    PCA

    Raises
    ------
    ValueError
        If there are no rows, rows are not finite, or n_components or max_rows is below 1.

    Examples
    --------
    >>> import torch
    >>> from distill.models import fit_pca
    >>> pca = fit_pca(torch.randn(100, 2, 8, 5), n_components=3)
    >>> pca.components.shape, pca.rank
    (torch.Size([3, 80]), 3)
    """
    if n_components < 1:
        raise ValueError(f"n_components={n_components} must be at least 1")
    if max_rows < 1:
        raise ValueError(f"max_rows={max_rows} must be at least 1")
    sample = _sample(rows, max_rows, torch.Generator().manual_seed(seed))
    width = 0.0 if silence is None else gate_width
    silence = silence or 0.0
    # In blocks and in place, because the sample may take most of the memory.
    for block in sample.split(_BLOCK_ROWS):
        block.copy_(gate_frequency(block, silence, width))
    matrix = sample.flatten(1)
    blocks = matrix.split(_BLOCK_ROWS)
    mean = (torch.stack([block.sum(dim=0, dtype=torch.float64) for block in blocks]).sum(dim=0) / len(matrix)).float()
    if not bool(torch.isfinite(mean).all()):
        raise ValueError("rows must be finite")
    matrix -= mean
    # Differences within the float32 rounding of the mean do not count as variance.
    noise = (torch.finfo(torch.float32).eps * float(torch.linalg.vector_norm(mean))) ** 2
    components, scale = _principal_axes(matrix, n_components, noise)
    return PCA(mean, components, scale, silence, width)


def _principal_axes(centred: Tensor, n_components: int, noise: float) -> tuple[Tensor, Tensor]:
    """Return axes [k, D] and standard deviations [k] of centred rows [N, D]; zeros for variances up to `noise`."""
    n_rows, width = centred.shape
    # The smaller one of the Gram and the covariance matrix; they have the same eigenvalues.
    is_gram = n_rows <= width
    products = centred @ centred.T if is_gram else centred.T @ centred
    variance, vectors = torch.linalg.eigh(products.double() / n_rows)
    variance, vectors = variance.flip(0), vectors.flip(1)
    # Rounding in the float32 product adds about sqrt(N)·eps of the largest variance to axes that have none.
    floor = max(noise, float(variance[0]) * math.sqrt(n_rows) * torch.finfo(torch.float32).eps)
    rank = min(int((variance > floor).sum()), n_components, max(n_rows - 1, 0), width)
    components, scale = (torch.zeros(size, dtype=torch.float32) for size in ((n_components, width), n_components))
    if rank:
        axes = vectors[:, :rank].float().T
        axes = axes @ centred if is_gram else axes.contiguous()
        axes /= torch.linalg.vector_norm(axes, dim=1, keepdim=True)
        # The sign of an eigenvector is arbitrary: make its largest entry positive.
        peak = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
        components[:rank] = axes * peak.sign()
        scale[:rank] = variance[:rank].sqrt().float()
    return components, scale


def _sample(rows: Tensor | Iterable[Tensor], max_rows: int, generator: torch.Generator) -> Tensor:
    """Return at most `max_rows` uniformly chosen rows as a new float32 tensor on the CPU."""
    if isinstance(rows, Tensor):
        chosen = torch.randperm(len(rows), generator=generator)[:max_rows].sort().values
        rows = [rows[chosen.to(rows.device)]]
    kept: list[Tensor] = []
    for seen, row in enumerate(_single_rows(rows)):
        if seen < max_rows:
            kept.append(row)
            continue
        place = int(torch.randint(seen + 1, (), generator=generator))
        if place < max_rows:
            kept[place] = row
    if not kept:
        raise ValueError("rows must hold at least one row")
    sample = torch.empty(len(kept), *kept[0].shape, dtype=torch.float32)
    # Each row is freed once it is copied, so that the sample is never in memory twice.
    for place in range(len(kept)):
        sample[place] = kept[place]
        kept[place] = sample[place]
    return sample


def _single_rows(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    for batch in batches:
        # Copies, because a view of one sampled row would keep its whole batch in memory.
        yield from (row.clone() for row in batch.detach().to("cpu", torch.float32))
