"""Window and mel bands: the tables of the features, computed once in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

SUPPORT_THRESHOLD = 1e-5
"""Weight above which a bin counts towards the width of a band."""

# What is left of an edge that falls exactly on a bin: rounding, not weight.
_ROUNDING = 1e-10


@dataclass(frozen=True, eq=False)
class MelBands:
    """Triangular bands over the bins of a DFT, all float64 and read-only.

    Attributes
    ----------
    filterbank : np.ndarray
        Weights, shape (K, M), with K = n_fft / 2 + 1. The rows of DC and Nyquist are 0: every triangle ends there.
    first : np.ndarray
        First bin of non-zero weight, shape (M,), int64; 0 for a band without bins.
    width : np.ndarray
        Bins from the first to the last of non-zero weight, shape (M,), int64; 0 for a band without bins.
    centre : np.ndarray
        Weighted centre of each band, shape (M,), bins; the peak of the triangle for a band without bins.
    half_support : np.ndarray
        Half the support of each band, shape (M,), bins: the scale of the instantaneous frequency.
    """

    filterbank: np.ndarray
    first: np.ndarray
    width: np.ndarray
    centre: np.ndarray
    half_support: np.ndarray


def hertz_to_mel(frequency: float) -> float:
    """Mels (HTK) of a frequency in Hz."""
    return 2595.0 * math.log10(1.0 + frequency / 700.0)


@lru_cache(maxsize=32)
def mel_bands(
    *, sample_rate: int, n_fft: int, hop_length: int, n_mels: int, f_min: float = 0.0, f_max: float | None = None
) -> MelBands:
    """HTK mel bands without normalisation, as ``torchaudio.functional.melscale_fbanks(norm=None)``.

    Parameters
    ----------
    sample_rate : int
        Rate of the waveform, Hz.
    n_fft : int
        Length of the DFT, samples; even.
    hop_length : int
        Step between frames, samples. No band's half support is below ``n_fft / (2 * hop_length)``, the frequency
        in bins beyond which the phase turns by more than half a cycle a hop.
    n_mels : int
        Number of bands.
    f_min : float, default 0
        Lower edge of the lowest band, Hz.
    f_max : float, optional
        Upper edge of the highest band, Hz. Default: half of `sample_rate`.

    Returns
    -------
    MelBands
        Cached: the same object for the same numbers.
    """
    edges_mel = np.linspace(hertz_to_mel(f_min), hertz_to_mel(sample_rate / 2 if f_max is None else f_max), n_mels + 2)
    edges = 700.0 * (10.0 ** (edges_mel / 2595.0) - 1.0) * n_fft / sample_rate
    bins = np.arange(n_fft // 2 + 1, dtype=np.float64)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filterbank = np.minimum(rising, falling)
    filterbank[filterbank < _ROUNDING] = 0.0
    filterbank[[0, -1]] = 0.0

    first, width = _extent(filterbank, 0.0)
    _, support = _extent(filterbank, SUPPORT_THRESHOLD)
    total = filterbank.sum(axis=0)
    weighted = (bins * filterbank).sum(axis=0)
    centre = np.where(total > 0, weighted / np.where(total > 0, total, 1.0), edges[1:-1])
    # (last - first)/2 + 1, with `support` = last - first + 1.
    half_support = np.maximum(np.where(support > 0, (support + 1) / 2, 0.0), n_fft / (2 * hop_length))
    bands = MelBands(filterbank, first, width, centre, half_support)
    for array in vars(bands).values():
        array.flags.writeable = False
    return bands


def _extent(filterbank: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """First bin above `threshold` and the number of bins from there to the last, a band; 0 and 0 where none is."""
    above = filterbank > threshold
    first = above.argmax(axis=0)
    last = len(above) - 1 - above[::-1].argmax(axis=0)
    return first, np.where(above.any(axis=0), last - first + 1, 0)


def hann_window(
    n_fft: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> torch.Tensor:
    """Periodic Hann window.

    Parameters
    ----------
    n_fft : int
        Length, samples.
    dtype : torch.dtype, default torch.float32
        Type of the result; it is computed in float64.
    device : torch.device or str, optional
        Where the result goes. Default: the CPU.

    Returns
    -------
    torch.Tensor
        Shape (n_fft,).
    """
    return _tensor(0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(n_fft) / n_fft), dtype, device)


def mel_filterbank(
    *,
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    f_min: float = 0.0,
    f_max: float | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Dense weights of :func:`mel_bands`, shape (K, M), as a tensor of `dtype` on `device` (default: the CPU)."""
    bands = mel_bands(sample_rate=sample_rate, n_fft=n_fft, hop_length=n_fft, n_mels=n_mels, f_min=f_min, f_max=f_max)
    return _tensor(bands.filterbank, dtype, device)


def _tensor(array: np.ndarray, dtype: torch.dtype, device: torch.device | str | None) -> torch.Tensor:
    # Rounded before it moves: MPS has no float64.
    return torch.tensor(array, dtype=dtype).to(device or "cpu")
