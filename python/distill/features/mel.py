"""What a mel feature is (:class:`MelSpec`), and its tables: mel bands and window, computed once in float64."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from distill.config import ComplexSpectrogramConfig, SpectrogramConfig

if TYPE_CHECKING:
    import torch

SUPPORT_THRESHOLD = 1e-5
"""Weight above which a bin counts towards the width of a band."""

# Weights below this are rounding errors of a band edge that falls exactly on a bin.
_ROUNDING = 1e-10


class MelSpec(NamedTuple):
    """The numbers that define a mel feature, in the order of the operator ``torch.ops.distill.complex_mel``."""

    sample_rate: int
    """Sample rate of the waveform, Hz."""
    n_fft: int
    """Length of a frame and of its DFT, samples; even."""
    hop_length: int
    """Step between frames, samples."""
    n_mels: int
    """Number of mel bands M."""
    f_min: float = 0.0
    """Lower edge of the lowest band, Hz."""
    f_max: float | None = None
    """Upper edge of the highest band, Hz; None: half of `sample_rate`."""
    if_masking_threshold: float | None = 1e-5
    """Band power at or below which channel 1 is 0; None: the feature is channel 0 alone."""

    @classmethod
    def of(cls, config: SpectrogramConfig) -> MelSpec:
        """Return the spec of a configuration: two channels for a :class:`ComplexSpectrogramConfig`, else one."""
        threshold = config.if_masking_threshold if isinstance(config, ComplexSpectrogramConfig) else None
        return MelSpec(
            config.sample_rate, config.n_fft, config.hop_length, config.n_mels, config.f_min, config.f_max, threshold
        )

    @property
    def channels(self) -> int:
        """Number of channels: 1 or 2."""
        return 1 if self.if_masking_threshold is None else 2

    def n_frames(self, samples: int) -> int:
        """Return the number of frames of a waveform of `samples` samples."""
        return samples // self.hop_length + 1

    def centres_hz(self) -> np.ndarray:
        """Return the centre frequencies of the mel bands, Hz, shape (M,), float64."""
        return mel_bands(self).centre * self.sample_rate / self.n_fft


@dataclass(frozen=True, eq=False)
class MelBands:
    """Triangular bands over the bins of a DFT. All arrays are read-only.

    Attributes
    ----------
    filterbank : np.ndarray
        Weights, shape (K, M), float64, with K = n_fft / 2 + 1. The rows of DC and Nyquist are 0, because every
        triangle ends there.
    first : np.ndarray
        First bin of non-zero weight, shape (M,), int64; 0 for a band without bins.
    width : np.ndarray
        Number of bins from the first to the last of non-zero weight, shape (M,), int64; 0 for a band without bins.
    centre : np.ndarray
        Weighted mean bin of each band, shape (M,), float64; the peak of the triangle for a band without bins.
    half_support : np.ndarray
        Half the support of each band, bins, shape (M,), float64: the unit of channel 1.
    """

    filterbank: np.ndarray
    first: np.ndarray
    width: np.ndarray
    centre: np.ndarray
    half_support: np.ndarray


def hertz_to_mel(frequency: float) -> float:
    """Return a frequency in Hz as mels (HTK)."""
    return 2595.0 * math.log10(1.0 + frequency / 700.0)


@lru_cache(maxsize=32)
def mel_bands(spec: MelSpec) -> MelBands:
    """Compute HTK mel bands without normalisation, as ``torchaudio.functional.melscale_fbanks(norm=None)``.

    The half support of a band is at least ``n_fft / (2 * hop_length)`` bins: beyond that frequency, the phase turns by
    more than half a cycle per hop.

    Parameters
    ----------
    spec : MelSpec
        The feature.

    Returns
    -------
    MelBands
        Cached: the same object for the same spec.
    """
    n_fft = spec.n_fft
    edges = _edges_hz(spec) * n_fft / spec.sample_rate
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
    half_support = np.maximum(np.where(support > 0, (support + 1) / 2, 0.0), n_fft / (2 * spec.hop_length))
    bands = MelBands(filterbank, first, width, centre, half_support)
    for array in vars(bands).values():
        array.flags.writeable = False
    return bands


def empty_bands(spec: MelSpec) -> str | None:
    """Return what is to be said about bands that contain no bin and are 0 in every row; None if there are none."""
    empty = np.flatnonzero(_is_empty(spec))
    if not len(empty):
        return None
    low, high = _edges_hz(spec)[[empty[0], empty[-1] + 2]]
    sizes = (2**power for power in range(spec.n_fft.bit_length(), 17))
    remedies = [f"n_fft={size}" for size in sizes if not _is_empty(spec._replace(n_fft=size)).any()][:1]
    # The more bands, the narrower they are.
    fewer = bisect_left(range(1, spec.n_mels), True, key=lambda n: bool(_is_empty(spec._replace(n_mels=n)).any()))
    remedies += [f"n_mels={fewer}"] if fewer else []
    bins = f"with n_fft={spec.n_fft}, bins are {spec.sample_rate / spec.n_fft:.0f} Hz apart"
    found = f"{len(empty)} of {spec.n_mels} mel bands, between {low:.0f} and {high:.0f} Hz, are empty: {bins}"
    return f"{found}; {' or '.join(remedies)} leaves none empty" if remedies else found


def _is_empty(spec: MelSpec) -> np.ndarray:
    """Return which bands contain no bin between DC and Nyquist, (M,), without computing the filterbank."""
    edges = _edges_hz(spec) * spec.n_fft / spec.sample_rate
    first = np.maximum(np.floor(edges[:-2] + _ROUNDING) + 1, 1)
    last = np.minimum(np.ceil(edges[2:] - _ROUNDING) - 1, spec.n_fft // 2 - 1)
    is_empty: np.ndarray = first > last
    return is_empty


def _edges_hz(spec: MelSpec) -> np.ndarray:
    """Return the edges of the bands, Hz, (M + 2,): band m reaches from edge m to edge m + 2."""
    top = spec.sample_rate / 2 if spec.f_max is None else spec.f_max
    edges_mel = np.linspace(hertz_to_mel(spec.f_min), hertz_to_mel(top), spec.n_mels + 2)
    return 700.0 * (10.0 ** (edges_mel / 2595.0) - 1.0)


def _extent(filterbank: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return each band's first bin above `threshold` and the number of bins up to the last; 0 and 0 if none is."""
    above = filterbank > threshold
    first = above.argmax(axis=0)
    last = len(above) - 1 - above[::-1].argmax(axis=0)
    return first, np.where(above.any(axis=0), last - first + 1, 0)


def hann_window(
    n_fft: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> torch.Tensor:
    """Return a periodic Hann window, computed in float64.

    Parameters
    ----------
    n_fft : int
        Length, samples.
    dtype : torch.dtype, optional
        Type of the result. Default: float32.
    device : torch.device or str, optional
        Device of the result. Default: the CPU.

    Returns
    -------
    torch.Tensor
        Shape (n_fft,).
    """
    import torch  # noqa: PLC0415 - bands are made without waiting for torch

    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(n_fft) / n_fft)
    # Rounded before it moves: MPS has no float64.
    return torch.tensor(window, dtype=dtype or torch.float32).to(device or "cpu")
