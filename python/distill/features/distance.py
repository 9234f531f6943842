"""Distances between waveforms that compare magnitudes and no phases."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from distill.features.mel import hann_window

WINDOWS = (512, 1024, 2048, 4096)
"""Window lengths over which each distance is averaged, samples; the hop is a quarter of each."""
FLOOR = 1e-4
"""Lower limit of magnitudes in logarithms, relative to the reference's loudest: -80 dB."""
_DECIBELS = 20 / math.log(10)


class Distances(NamedTuple):
    """Distances of each clip of a batch, each of shape (B,); 0 for the same magnitudes."""

    spectral_convergence: torch.Tensor
    """Norm of the difference of magnitudes, divided by the norm of the reference's [1]_; 1 for silence."""
    log_spectral_db: torch.Tensor
    """Root mean square over bins of the difference in dB, mean over frames."""
    multi_resolution: torch.Tensor
    """Spectral convergence plus the mean difference of log magnitudes [1]_, in nepers."""


@torch.no_grad()
def distances(reference: torch.Tensor, estimate: torch.Tensor) -> Distances:
    """Compute distances between waveforms, each averaged over :data:`WINDOWS`.

    Parameters
    ----------
    reference : torch.Tensor
        Shape (B, 1, S), S above 2048, any floating type. The distances are relative to it, so they are not symmetric.
    estimate : torch.Tensor
        The same shape.

    Returns
    -------
    Distances
        float64 for float64, else float32. Infinite where the reference is silent and the estimate is not; 0 where both
        are; NaN where a sample is.

    Raises
    ------
    ValueError
        If the shapes differ or do not fit.

    References
    ----------
    .. [1] R. Yamamoto, E. Song, J.-M. Kim, "Parallel WaveGAN", ICASSP 2020, equations 5 to 7.
    """
    if reference.shape != estimate.shape or reference.ndim != 3 or reference.shape[1] != 1:
        shapes = f"{list(reference.shape)} and {list(estimate.shape)}"
        raise ValueError(f"waveforms of shapes {shapes} must both be [batch, 1, samples]")
    if reference.shape[-1] <= max(WINDOWS) // 2:
        raise ValueError(f"waveforms of {reference.shape[-1]} samples must be longer than {max(WINDOWS) // 2}")
    first, second = (x[:, 0] if x.dtype == torch.float64 else x[:, 0].float() for x in (reference, estimate))
    found = [_at(first, second, n_fft) for n_fft in WINDOWS]
    return Distances(*(torch.stack(values).mean(dim=0) for values in zip(*found, strict=True)))


def _at(reference: torch.Tensor, estimate: torch.Tensor, n_fft: int) -> Distances:
    """Compute distances of waveforms (B, S) with one window length."""
    window = hann_window(n_fft, dtype=reference.dtype, device=reference.device)
    one, other = (
        torch.stft(waveform, n_fft, n_fft // 4, window=window, return_complex=True).abs()
        for waveform in (reference, estimate)
    )
    difference, scale = (one - other).flatten(1).norm(dim=1), one.flatten(1).norm(dim=1)
    # `difference == 0` and not `difference > 0`: NaN must stay NaN.
    convergence = torch.where(difference == 0, 0.0, difference / scale)
    least = one.amax(dim=(1, 2), keepdim=True) * FLOOR
    # The floor of a silent reference would be 0, whose logarithm is not finite.
    least = least.clamp(min=torch.finfo(one.dtype).tiny)
    logs = one.clamp(min=least).log() - other.clamp(min=least).log()
    decibels = logs.square().mean(dim=1).sqrt().mean(dim=1) * _DECIBELS
    silent = (scale == 0) & (difference > 0)
    decibels = decibels.masked_fill(silent, math.inf)
    return Distances(convergence, decibels, convergence + logs.abs().mean(dim=(1, 2)))
