"""The features in plain torch: the truth that the other backends are held to, and what runs where they do not.

One real FFT of the *unwindowed* frame gives ``R[k]``; the periodic Hann window is then a three-point stencil::

    X[k] = R[k]/2 - (R[k-1] + R[k+1])/4               the STFT
    C[k] = Re((R[k-1] - R[k+1]) · conj(X[k]))/4       |X|² times how far the reassigned frequency lies from k, in bins

and each band is three sums over its bins, so that no angle is ever taken::

    channel 0 = log1p(Σ fb·|X|²)
    channel 1 = Σ fb·((k - c)·|X|² + C)/h  /  Σ fb·|X|²

DC and Nyquist are left out: no triangular band has weight there.

References
----------
.. [1] K. Kodera, C. de Villedary, R. Gendrin, "A new method for the numerical analysis of non-stationary signals",
       Physics of the Earth and Planetary Interiors 12, 1976.
.. [2] F. Auger, P. Flandrin, "Improving the readability of time-frequency and time-scale representations by the
       reassignment method", IEEE Transactions on Signal Processing 43, 1995.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from distill.config import ComplexSpectrogramConfig, SpectrogramConfig
from distill.features.mel import MelBands, mel_bands

IF_LIMIT = 2.0
"""Channel 1 is clamped to this either way; 0.2 % of real sound, attacks, lies beyond."""

# Devices with embedding_bag; elsewhere the bands are a dense product.
_BAG_DEVICES = ("cpu", "cuda")

# Frames worked on at once on the CPU: one second at the defaults, so that the spectra stay in the cache.
_TILE = 96

# X and R[k-1] - R[k+1] are formed times -4, to spare a pass over the spectrum; their products are 16 times too large.
_SCALE = 1.0 / 16.0


class Numbers(NamedTuple):
    """What the feature is; as the arguments of :func:`complex_mel`, and in the order of the operator's."""

    sample_rate: int
    n_fft: int
    hop_length: int
    n_mels: int
    f_min: float
    f_max: float | None
    if_masking_threshold: float | None

    @property
    def channels(self) -> int:
        """Channels of the result."""
        return 1 if self.if_masking_threshold is None else 2

    def bands(self) -> MelBands:
        """The mel bands of the feature."""
        return mel_bands(
            sample_rate=self.sample_rate,
            n_fft=self.n_fft,
            hop_length=self.hop_length,
            n_mels=self.n_mels,
            f_min=self.f_min,
            f_max=self.f_max,
        )


def numbers_of(config: SpectrogramConfig) -> Numbers:
    """What the feature of a configuration is."""
    threshold = config.if_masking_threshold if isinstance(config, ComplexSpectrogramConfig) else None
    return Numbers(
        config.sample_rate, config.n_fft, config.hop_length, config.n_mels, config.f_min, config.f_max, threshold
    )


def centres_hertz(config: SpectrogramConfig) -> np.ndarray:
    """Centres of the mel bands, Hz, shape (M,)."""
    return numbers_of(config).bands().centre * config.sample_rate / config.n_fft


class BandTables(NamedTuple):
    """The weights of every band as one list, band after band; see :func:`band_tables`."""

    rows: torch.Tensor
    """Row of the table of bins that each weight multiplies, int32: power in rows 0 to K-3, C in rows K-2 to 2K-5."""
    offsets: torch.Tensor
    """Where each sum starts in `rows`, then the end, int32: M sums of power and, with frequency, M more of it."""
    weights: torch.Tensor
    """One weight a row."""
    n_mels: int
    """Bands M."""
    with_frequency: bool
    """Whether there are sums for channel 1."""


@lru_cache(maxsize=32)
def band_tables(
    *,
    sample_rate: int,
    n_fft: int,
    hop_length: int,
    n_mels: int,
    f_min: float,
    f_max: float | None,
    with_frequency: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> BandTables:
    """Weights of the sums over each band, on `device`; cached. Parameters as :func:`complex_mel`."""
    bands = mel_bands(
        sample_rate=sample_rate, n_fft=n_fft, hop_length=hop_length, n_mels=n_mels, f_min=f_min, f_max=f_max
    )
    bins = n_fft // 2 - 1
    power = [_support(bands, band) for band in range(n_mels)]
    frequency = []
    for band, (rows, weights) in enumerate(power if with_frequency else []):
        scaled = weights / bands.half_support[band]
        # Relative to the band's centre: a weight as large as the bin's index would cost digits.
        distance = rows + 1 - bands.centre[band]
        frequency.append((np.concatenate([rows, rows + bins]), np.concatenate([scaled * distance, scaled])))
    sums = power + frequency
    offsets = np.cumsum([0, *(len(rows) for rows, _ in sums)])
    # Cached tensors must be ordinary ones, also when the first call comes from inference mode.
    with torch.inference_mode(mode=False):
        return BandTables(
            torch.tensor(np.concatenate([rows for rows, _ in sums]), dtype=torch.int32).to(device),
            torch.tensor(offsets, dtype=torch.int32).to(device),
            torch.tensor(np.concatenate([weights for _, weights in sums]) * _SCALE, dtype=dtype).to(device),
            n_mels,
            with_frequency,
        )


def _support(bands: MelBands, band: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (bin 1 is row 0) and weights of one band."""
    first, width = int(bands.first[band]), int(bands.width[band])
    return np.arange(first, first + width) - 1, bands.filterbank[first : first + width, band]


def complex_mel(
    waveform: torch.Tensor,
    *,
    sample_rate: int,
    n_fft: int,
    hop_length: int,
    n_mels: int,
    f_min: float = 0.0,
    f_max: float | None = None,
    if_masking_threshold: float | None = 1e-5,
) -> torch.Tensor:
    """Log-mel power and instantaneous frequency.

    Parameters
    ----------
    waveform : torch.Tensor
        Shape (B, S), S above n_fft / 2; any floating type on any device. Differentiable.
    sample_rate : int
        Rate of the waveform, Hz.
    n_fft : int
        Length of a frame and of its DFT, samples; even.
    hop_length : int
        Step between frames, samples.
    n_mels : int
        Number of mel bands M.
    f_min : float, default 0
        Lower edge of the lowest band, Hz.
    f_max : float, optional
        Upper edge of the highest band, Hz. Default: half of `sample_rate`.
    if_masking_threshold : float or None, default 1e-5
        Band power at or below which channel 1 is 0; None for channel 0 alone.

    Returns
    -------
    torch.Tensor
        Shape (B, 2, M, T), or (B, 1, M, T) for channel 0 alone, T = S // hop_length + 1; float64 for float64, else
        float32. Channel 0: log1p of the band's power. Channel 1: energy-weighted mean of the reassigned frequency over
        the band, less the band's centre, over half its support, within ±2.
    """
    tables = _tables_for(
        waveform,
        sample_rate=sample_rate,
        n_fft=n_fft,
        hop_length=hop_length,
        n_mels=n_mels,
        f_min=f_min,
        f_max=f_max,
        with_frequency=if_masking_threshold is not None,
    )
    return _features(waveform, tables, n_fft, hop_length, if_masking_threshold or 0.0)


def reassigned_bins(waveform: torch.Tensor, *, n_fft: int, hop_length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Power and reassigned frequency of single bins, before any band.

    Parameters
    ----------
    waveform : torch.Tensor
        Shape (B, S), S above n_fft / 2.
    n_fft, hop_length : int
        Length of a frame and step between frames, samples.

    Returns
    -------
    power : torch.Tensor
        |X|², shape (B, K - 2, T): bins 1 to n_fft/2 - 1.
    frequency : torch.Tensor
        Reassigned frequency of each of them, bins, same shape; the bin's own where it has no power.
    """
    frames = _frames(_working(waveform), n_fft, hop_length)
    parts = _bin_table(frames.flatten(0, 1), with_frequency=True) * _SCALE
    sums = parts[:, ::2] + parts[:, 1::2]
    power, shift = sums.unflatten(0, (2, -1)).unflatten(-1, frames.shape[:2]).movedim(2, 1)
    index = torch.arange(1, n_fft // 2, device=power.device, dtype=power.dtype)[:, None]
    return power, index + shift / F.threshold(power, 0.0, float("inf"))


def _tables_for(waveform: torch.Tensor, **numbers: float | None) -> BandTables:
    dtype = torch.float64 if waveform.dtype == torch.float64 else torch.float32
    if type(waveform) in (torch.Tensor, torch.nn.Parameter):
        return _constant_tables(dtype, waveform.device, **numbers)
    # A stand-in that traces: tables made under it are stand-ins too, and must not stay in the cache.
    return band_tables.__wrapped__(dtype=dtype, device=waveform.device, **numbers)


def _constant_tables(dtype: torch.dtype, device: torch.device, **numbers: float | None) -> BandTables:
    return band_tables(dtype=dtype, device=device, **numbers)


# What torch.compiler.assume_constant_result sets; calling that imports the compiler, which takes seconds.
_constant_tables._dynamo_marked_constant = True


def _working(waveform: torch.Tensor) -> torch.Tensor:
    return waveform if waveform.dtype == torch.float64 else waveform.float()


def _features(
    waveform: torch.Tensor, tables: BandTables, n_fft: int, hop_length: int, threshold: float
) -> torch.Tensor:
    """Features (B, C, M, T) of a waveform (B, S), C as in `tables`."""
    waveform = _working(waveform)
    frames = _frames(waveform, n_fft, hop_length)
    tracked = torch.is_grad_enabled() and waveform.requires_grad
    if waveform.device.type != "cpu" or tracked or torch.compiler.is_compiling():
        features = _frame_features(frames.flatten(0, 1), tables, threshold)
        return features.unflatten(-1, frames.shape[:2]).movedim(2, 0)
    out = waveform.new_empty((frames.shape[0], 1 + tables.with_frequency, tables.n_mels, frames.shape[1]))
    for clip, clip_out in zip(frames, out, strict=True):
        for start in range(0, clip.shape[0], _TILE):
            clip_out[..., start : start + _TILE] = _frame_features(clip[start : start + _TILE], tables, threshold)
    return out


def _frames(waveform: torch.Tensor, n_fft: int, hop_length: int) -> torch.Tensor:
    """Centred frames (B, T, n_fft), a view of the reflect-padded waveform.

    ::

        frame 0            |<------- n_fft ------->|
        padded     [x2 x1] [x0 x1 x2 ...            ... x(S-1)] [x(S-2) x(S-3)]
                   n_fft/2                                           n_fft/2
    """
    half = n_fft // 2
    # Two flips and one copy; F.pad's reflect takes half as long again.
    before, after = waveform[:, 1 : half + 1].flip(1), waveform[:, -half - 1 : -1].flip(1)
    return torch.cat((before, waveform, after), dim=1).unfold(1, n_fft, hop_length)


def _frame_features(frames: torch.Tensor, tables: BandTables, threshold: float) -> torch.Tensor:
    """Features (C, M, F) of frames (F, n_fft)."""
    # Mixed precision would round spectra and sums to 8 or 11 bits.
    with torch.autocast(frames.device.type, enabled=False):
        parts = _band_sums(_bin_table(frames, with_frequency=tables.with_frequency), tables)
    sums = parts[:, ::2] + parts[:, 1::2]
    power = sums[: tables.n_mels]
    if not tables.with_frequency:
        return power.log1p()[None]
    # Infinity below a masked sum gives 0 and a gradient of 0, in one pass and without 0/0.
    frequency = sums[tables.n_mels :] / F.threshold(power, threshold, float("inf"))
    return torch.stack((power.log1p(), frequency.clamp(-IF_LIMIT, IF_LIMIT)))


def _bin_table(frames: torch.Tensor, *, with_frequency: bool) -> torch.Tensor:
    """The terms of 16·|X|² and, in the rows below, of 16·C of frames (F, n_fft); shape (K - 2 or 2K - 4, 2F).

    Rows are bins, and a row holds re and im of each frame in turn: neighbouring bins are neighbouring rows, every pass
    runs over contiguous memory, and re and im are added only once there are M bands instead of K bins.
    """
    bins, columns = frames.shape[1] // 2 - 1, 2 * frames.shape[0]
    if frames.requires_grad or torch.compiler.is_compiling():
        below, here, above = _neighbours(torch.fft.rfft(frames).mT.contiguous())
        stft = (below + above).sub(here, alpha=2)
        return torch.cat((stft * stft, (above - below) * stft)) if with_frequency else stft * stft
    # The same with nothing allocated twice: half the time. The FFT writes columns itself, cheaper than turning them.
    spectrum = frames.new_empty((bins + 2, frames.shape[0]), dtype=frames.dtype.to_complex())
    below, here, above = _neighbours(torch.fft.rfft(frames, out=spectrum.mT).mT)
    table = frames.new_empty((1 + with_frequency, bins, columns))
    stft = torch.add(below, above, out=table[0]).sub_(here, alpha=2)
    if with_frequency:
        torch.sub(above, below, out=table[1]).mul_(stft)
    stft.mul_(stft)
    return table.flatten(0, 1)


def _neighbours(spectrum: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bins k-1, k and k+1 of a complex spectrum (K, F), k from 1 to K - 2, as rows of plain numbers (K - 2, 2F)."""
    rows = torch.view_as_real(spectrum).flatten(1)
    return rows[:-2], rows[1:-1], rows[2:]


def _band_sums(table: torch.Tensor, tables: BandTables) -> torch.Tensor:
    """Sums over bands, shape (M or 2M, F), of a table of bins (rows, F).

    A bin lies in two bands at most, so nearly all of the K·M weights are 0. A band as a bag of rows is several times
    faster on one core than the best dense blocks, and indifferent to the precision chosen for matrix products.
    """
    if table.device.type in _BAG_DEVICES:
        return F.embedding_bag(
            tables.rows,
            table,
            tables.offsets,
            mode="sum",
            per_sample_weights=tables.weights,
            include_last_offset=True,
        )
    count = len(tables.offsets) - 1
    sums = torch.repeat_interleave(torch.arange(count, device=table.device), tables.offsets.diff())
    dense = table.new_zeros((count, table.shape[0]))
    dense[sums, tables.rows] = tables.weights
    return dense @ table
