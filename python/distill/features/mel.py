"""What a mel feature is (:class:`MelSpec`), and its tables: mel bands and window, computed once in float64."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from distill.config import (
    ComplexSpectrogramConfig,
    Compression,
    MelScale,
    SpectrogramConfig,
    count_frames,
    least_samples,
)
from distill.features.backend_names import Backend
from distill.features.scales import SLANEY_CORNER, SLANEY_HZ, SLANEY_STEP, hertz_to_mel

if TYPE_CHECKING:
    import torch

SUPPORT_THRESHOLD = 1e-5
"""Weight above which a bin counts towards the width of a band."""

# Weights below this are rounding errors of a band edge that falls exactly on a bin.
_ROUNDING = 1e-10


class MelSpec(NamedTuple):
    """The numbers that define a mel feature."""

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
    norm: Literal["slaney"] | None = None
    """None: the peak of each band is 1; "slaney": its area over Hz is 1."""
    mel_scale: MelScale = "htk"
    """The mel scale: "htk" or "slaney"."""
    win_length: int | None = None
    """Length of the window, samples, if it is shorter than the frame."""
    center: bool = True
    """Whether frames are centred and the waveform is reflected at its ends."""
    power: int = 2
    """What channel 0 adds up over the bins of a band: 2, |X|²; 1, |X|."""
    compression: Compression = "log1p"
    """What is done to the sums of channel 0."""
    floor: float = 1e-10
    """Least sum of which a logarithm is taken."""

    @classmethod
    def of(cls, config: SpectrogramConfig) -> MelSpec:
        """Return the spec of a configuration: two channels for a :class:`ComplexSpectrogramConfig`, else one."""
        values = {name: getattr(config, name) for name in cls._fields if name != "if_masking_threshold"}
        if config.win_length == config.n_fft:
            values["win_length"] = None
        threshold = config.if_masking_threshold if isinstance(config, ComplexSpectrogramConfig) else None
        return cls(**values, if_masking_threshold=threshold)

    def arguments(self, backend: Backend) -> tuple[Any, ...]:
        """Return the arguments of the operator ``torch.ops.distill.complex_mel`` after the waveform.

        The backend stands before the options that the operator did not always have. They are left out if all have their
        default, so that earlier versions take the call, too.
        """
        values = (*self,)  # torch 2.6 cannot compile a slice of a named tuple
        options = values[_BACKEND:]
        return (*values[:_BACKEND], backend, *(() if options == _OPTION_DEFAULTS else options))

    @classmethod
    def of_arguments(cls, arguments: Sequence[Any]) -> tuple[MelSpec, Backend]:
        """Return spec and backend from the operator's arguments; the last ones may be missing."""
        backend: Backend = arguments[_BACKEND] if len(arguments) > _BACKEND else "auto"
        return cls(*arguments[:_BACKEND], *arguments[_BACKEND + 1 :]), backend

    @property
    def channels(self) -> int:
        """Number of channels: 1 or 2."""
        return 1 if self.if_masking_threshold is None else 2

    def n_frames(self, samples: int) -> int:
        """Return the number of frames of a waveform of `samples` samples, `least_samples` or more."""
        return count_frames(samples, self.n_fft, self.hop_length, center=self.center)

    @property
    def least_samples(self) -> int:
        """Samples of the shortest waveform that has features."""
        return least_samples(self.n_fft, center=self.center)

    def centres_hz(self) -> np.ndarray:
        """Return the centre frequencies of the mel bands, Hz, shape (M,), float64."""
        return mel_bands(self).centre * self.sample_rate / self.n_fft


# Place of the backend among the operator's arguments.
_BACKEND = MelSpec._fields.index("if_masking_threshold") + 1
_OPTION_DEFAULTS = tuple(MelSpec._field_defaults[name] for name in MelSpec._fields[_BACKEND:])


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


def _mel_to_hertz(mels: np.ndarray, scale: MelScale) -> np.ndarray:
    """Return mels as frequencies in Hz."""
    if scale == "htk":
        return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    above = np.maximum(mels - SLANEY_CORNER / SLANEY_HZ, 0.0)
    return np.minimum(mels * SLANEY_HZ, SLANEY_CORNER) * np.exp(SLANEY_STEP * above)


@lru_cache(maxsize=32)
def mel_bands(spec: MelSpec) -> MelBands:
    """Compute mel bands, as ``torchaudio.functional.melscale_fbanks``.

    The half support of a band is at least ``n_fft / (2 * hop_length)`` bins: beyond that frequency, the phase turns by
    more than half a cycle per hop. It is that of the triangle whose peak is 1, whatever the norm.

    Parameters
    ----------
    spec : MelSpec
        The feature.

    Returns
    -------
    MelBands
        Cached: the same object for the same spec.

    References
    ----------
    .. [1] M. Slaney, "Auditory Toolbox, version 2", Interval Research Corporation, technical report 1998-010.
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
    bands = MelBands(filterbank * band_scale(spec), first, width, centre, half_support)
    for array in vars(bands).values():
        array.flags.writeable = False
    return bands


def band_scale(spec: MelSpec) -> np.ndarray:
    """Return what the norm multiplies each band with, (M,), float64: 1, or 2 over the band's width in Hz."""
    edges = _edges_hz(spec)
    return np.ones(spec.n_mels) if spec.norm is None else 2.0 / (edges[2:] - edges[:-2])


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
    low, high = (hertz_to_mel(frequency, spec.mel_scale) for frequency in (spec.f_min, top))
    return _mel_to_hertz(np.linspace(low, high, spec.n_mels + 2), spec.mel_scale)


def _extent(filterbank: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return each band's first bin above `threshold` and the number of bins up to the last; 0 and 0 if none is."""
    above = filterbank > threshold
    first = above.argmax(axis=0)
    last = len(above) - 1 - above[::-1].argmax(axis=0)
    return first, np.where(above.any(axis=0), last - first + 1, 0)


def short_windows(spec: MelSpec) -> np.ndarray:
    """Return a window shorter than the frame and its derivative, times n_fft / 2π, (2, n_fft), float64."""
    assert spec.win_length is not None
    angle = 2.0 * np.pi * np.arange(spec.win_length) / spec.win_length
    windows = np.zeros((2, spec.n_fft))
    start = (spec.n_fft - spec.win_length) // 2
    inside = windows[:, start : start + spec.win_length]
    inside[0] = 0.5 - 0.5 * np.cos(angle)
    inside[1] = 0.5 * spec.n_fft / spec.win_length * np.sin(angle)
    return windows


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
