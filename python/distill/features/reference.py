"""The features in plain torch: the definition that the kernels are tested against, and the fallback.

One real FFT of the *unwindowed* frame gives ``R[k]``; the periodic Hann window is then a three-point stencil::

    X[k] = R[k]/2 - (R[k-1] + R[k+1])/4               the STFT
    C[k] = Re((R[k-1] - R[k+1]) · conj(X[k]))/4       |X|² times the offset of the reassigned frequency from k, in bins

Each band is three sums over its bins, so that no phase angle has to be computed::

    channel 0 = log1p(Σ fb·|X|²)
    channel 1 = Σ fb·((k - c)·|X|² + C)/h  /  Σ fb·|X|²

DC and Nyquist are left out: no triangular band has weight there. That is the feature with its defaults; channel 0 may
add up ``|X|`` and may be compressed otherwise. A window shorter than the frame is no stencil, so that two windowed FFTs
give ``X`` and ``C``.

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
from torch.autograd import forward_ad

from distill.features.compression import compress
from distill.features.mel import MelBands, MelSpec, mel_bands, short_windows

IF_LIMIT = 2.0
"""Channel 1 is clamped to ± this value; 0.2 % of real sound, attacks, lies beyond."""

# Device types that have embedding_bag; on others the band sums are a dense matrix product.
_BAG_DEVICES = ("cpu", "cuda")

# Frames per tile on the CPU: one second at the defaults, so that the spectra stay in the CPU cache.
_TILE = 96

# The stencil computes -4·X and R[k-1] - R[k+1], which saves a pass over the spectrum. Products are 16 times too large.
_SCALE = 1.0 / 16.0


class BandTables(NamedTuple):
    """The weights of every band as one list, band after band; see :func:`band_tables`."""

    rows: torch.Tensor
    """Row of the bin table that each weight multiplies, int32: power in rows 0 to K-3, C in rows K-2 to 2K-5."""
    offsets: torch.Tensor
    """Start of each sum in `rows`, then the end, int32: M sums for channel 0 and, with frequency, M for channel 1."""
    weights: torch.Tensor
    """One weight per entry of `rows`."""
    n_mels: int
    """Number of bands M."""
    with_frequency: bool
    """Whether there are sums for channel 1."""
    windows: torch.Tensor | None
    """4 times a window shorter than the frame and, with frequency, its scaled derivative, (1 or 2, n_fft)."""
    power_rows: int
    """Number of entries of `rows` for channel 0."""


@lru_cache(maxsize=32)
def band_tables(spec: MelSpec, dtype: torch.dtype, device: torch.device) -> BandTables:
    """Return the weights of the sums over each band, of `dtype` on `device`; cached."""
    bands = mel_bands(spec)
    bins = spec.n_fft // 2 - 1
    with_frequency = spec.if_masking_threshold is not None
    power = [_band_rows(bands, band) for band in range(spec.n_mels)]
    frequency = []
    for band, (rows, weights) in enumerate(power if with_frequency else []):
        scaled = weights / bands.half_support[band]
        # Relative to the band's centre: weights as large as the bin number would cost digits.
        distance = rows + 1 - bands.centre[band]
        frequency.append((np.concatenate([rows, rows + bins]), np.concatenate([scaled * distance, scaled])))
    sums = power + frequency
    offsets = np.cumsum([0, *(len(rows) for rows, _ in sums)])
    windows = None if spec.win_length is None else 4.0 * short_windows(spec)[: spec.channels]
    # The first call may come from inference mode or a transform of torch.func; cached tensors must work outside, too.
    with torch.inference_mode(mode=False), torch._C._DisableFuncTorch():
        return BandTables(
            torch.tensor(np.concatenate([rows for rows, _ in sums]), dtype=torch.int32).to(device),
            torch.tensor(offsets, dtype=torch.int32).to(device),
            torch.tensor(np.concatenate([weights for _, weights in sums]) * _SCALE, dtype=dtype).to(device),
            spec.n_mels,
            with_frequency,
            None if windows is None else torch.tensor(windows, dtype=dtype).to(device),
            int(offsets[spec.n_mels]),
        )


def _band_rows(bands: MelBands, band: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (bin 1 is row 0) and weights of one band."""
    first, width = int(bands.first[band]), int(bands.width[band])
    return np.arange(first, first + width) - 1, bands.filterbank[first : first + width, band]


def complex_mel(waveform: torch.Tensor, spec: MelSpec) -> torch.Tensor:
    """Compute log-mel power and instantaneous frequency.

    Parameters
    ----------
    waveform : torch.Tensor
        Shape (B, S), S at least ``spec.least_samples``; any floating type on any device. Differentiable.
    spec : MelSpec
        The feature.

    Returns
    -------
    torch.Tensor
        Shape (B, C, M, T) with C = ``spec.channels`` and T = ``spec.n_frames(S)``; float64 for float64, else float32.
        Channel 0: the band's power or magnitude, compressed. Channel 1: energy-weighted mean of the reassigned
        frequency over the band, minus the band's centre, divided by half its support, clamped to ±2.
    """
    return _features(waveform, _tables_for(waveform, spec), spec)


def _tables_for(waveform: torch.Tensor, spec: MelSpec) -> BandTables:
    dtype = torch.float64 if waveform.dtype == torch.float64 else torch.float32
    if type(waveform) in (torch.Tensor, torch.nn.Parameter):
        return _constant_tables(spec, dtype, waveform.device)
    # A fake tensor that traces: tables made meanwhile are fake, too, and must not enter the cache.
    return band_tables.__wrapped__(spec, dtype, waveform.device)


def _constant_tables(spec: MelSpec, dtype: torch.dtype, device: torch.device) -> BandTables:
    return band_tables(spec, dtype, device)


# What torch.compiler.assume_constant_result sets; calling that would import the compiler, which takes seconds.
_constant_tables._dynamo_marked_constant = True  # type: ignore[attr-defined]


def is_transformed(tensor: torch.Tensor) -> bool:
    """Whether a tensor is in forward-mode differentiation or a transform of torch.func, such as jvp or vmap."""
    if torch.compiler.is_compiling():
        return False
    # torch.func has no public name for this.
    is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return is_wrapped or forward_ad.unpack_dual(tensor).tangent is not None


def _features(waveform: torch.Tensor, tables: BandTables, spec: MelSpec) -> torch.Tensor:
    """Compute features (B, C, M, T) of waveforms (B, S)."""
    waveform = waveform if waveform.dtype == torch.float64 else waveform.float()
    frames = _frames(waveform, spec.n_fft, spec.hop_length, center=spec.center)
    tracked = (torch.is_grad_enabled() and waveform.requires_grad) or is_transformed(waveform)
    if waveform.device.type != "cpu" or tracked or torch.compiler.is_compiling():
        features = _frame_features(frames.flatten(0, 1), tables, spec)
        by_clip: torch.Tensor = features.unflatten(-1, frames.shape[:2]).movedim(2, 0)
        return by_clip
    out = waveform.new_empty((frames.shape[0], 1 + tables.with_frequency, tables.n_mels, frames.shape[1]))
    for clip, clip_out in zip(frames, out, strict=True):
        for start in range(0, clip.shape[0], _TILE):
            clip_out[..., start : start + _TILE] = _frame_features(clip[start : start + _TILE], tables, spec)
    return out


def _frames(waveform: torch.Tensor, n_fft: int, hop_length: int, *, center: bool = True) -> torch.Tensor:
    """Return centred frames (B, T, n_fft), a view of the reflect-padded waveform; else a view of the waveform.

    ::

        frame 0            |<------- n_fft ------->|
        padded     [x2 x1] [x0 x1 x2 ...            ... x(S-1)] [x(S-2) x(S-3)]
                   n_fft/2                                           n_fft/2
    """
    if not center:
        return waveform.unfold(1, n_fft, hop_length)
    half = n_fft // 2
    # Two flips and one copy: F.pad(mode="reflect") takes 1.5 times as long.
    before, after = waveform[:, 1 : half + 1].flip(1), waveform[:, -half - 1 : -1].flip(1)
    return torch.cat((before, waveform, after), dim=1).unfold(1, n_fft, hop_length)


def _frame_features(frames: torch.Tensor, tables: BandTables, spec: MelSpec) -> torch.Tensor:
    """Compute features (C, M, F) of frames (F, n_fft)."""
    # Autocast would round spectra and sums to 8 or 11 bits.
    with torch.autocast(frames.device.type, enabled=False):
        table = _bin_table(frames, tables.windows, with_frequency=tables.with_frequency)
        if spec.power == 1:
            magnitude = compress(_magnitude_sums(table[: spec.n_fft // 2 - 1], tables), spec)
            if not tables.with_frequency:
                return magnitude[None]
        parts = _band_sums(table, tables.rows, tables.offsets, tables.weights)
    sums = parts[:, ::2] + parts[:, 1::2]
    power = sums[: tables.n_mels]
    if spec.power == 2:
        magnitude = compress(power, spec)
    if not tables.with_frequency:
        return magnitude[None]
    # Masked bands are divided by infinity: 0 with a gradient of 0, in one pass and without 0/0.
    frequency = sums[tables.n_mels :] / F.threshold(power, spec.if_masking_threshold or 0.0, float("inf"))
    return torch.stack((magnitude, frequency.clamp(-IF_LIMIT, IF_LIMIT)))


def _magnitude_sums(squares: torch.Tensor, tables: BandTables) -> torch.Tensor:
    """Compute the sums of |X| over bands, (M, F), from the terms of 16·|X|² of each bin (K - 2, 2F)."""
    power = squares[:, ::2] + squares[:, 1::2]
    is_silent = power == 0  # where the derivative of the root is infinite
    magnitude = power.masked_fill(is_silent, 1.0).sqrt().masked_fill(is_silent, 0.0)
    rows, weights = (values[: tables.power_rows] for values in (tables.rows, tables.weights))
    return 4.0 * _band_sums(magnitude, rows, tables.offsets[: tables.n_mels + 1], weights)


def _bin_table(frames: torch.Tensor, windows: torch.Tensor | None = None, *, with_frequency: bool) -> torch.Tensor:
    """Compute the terms of 16·|X|² and, in the rows below, of 16·C of frames (F, n_fft); shape (K - 2 or 2K - 4, 2F).

    Rows are bins. A row holds the real and the imaginary part of each frame in turn, so that neighbouring bins are
    neighbouring rows and every pass runs over contiguous memory. The two parts are added after the sums over bands,
    where there are M rows and not K.
    """
    if windows is not None:
        return _windowed_bin_table(frames, windows)
    bins, columns = frames.shape[1] // 2 - 1, 2 * frames.shape[0]
    if frames.requires_grad or torch.compiler.is_compiling() or is_transformed(frames):
        below, here, above = _neighbours(torch.fft.rfft(frames).mT.contiguous())
        stft = (below + above).sub(here, alpha=2)
        return torch.cat((stft * stft, (above - below) * stft)) if with_frequency else stft * stft
    # The same in half the time: in place, and transposed by the FFT as it writes.
    spectrum = frames.new_empty((bins + 2, frames.shape[0]), dtype=frames.dtype.to_complex())
    below, here, above = _neighbours(torch.fft.rfft(frames, out=spectrum.mT).mT)
    table = frames.new_empty((1 + with_frequency, bins, columns))
    stft = torch.add(below, above, out=table[0]).sub_(here, alpha=2)
    if with_frequency:
        torch.sub(above, below, out=table[1]).mul_(stft)
    stft.mul_(stft)
    return table.flatten(0, 1)


def _windowed_bin_table(frames: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
    """Compute the bin table of frames (F, n_fft) with a window that is no stencil, from one FFT for each window."""
    spectra = torch.fft.rfft(frames * windows[:, None])[..., 1:-1].mT
    stft, *slopes = (
        torch.view_as_real(spectrum.contiguous()).flatten(1) for spectrum in (spectra[0], *(spectra[1:] * 1j))
    )
    return torch.cat([stft * stft, *(slope * stft for slope in slopes)])


def _neighbours(spectrum: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return bins k-1, k and k+1, k from 1 to K - 2, of a complex spectrum (K, F) as real tensors (K - 2, 2F)."""
    rows = torch.view_as_real(spectrum).flatten(1)
    return rows[:-2], rows[1:-1], rows[2:]


def _band_sums(table: torch.Tensor, rows: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Compute the sums over bands, such as (2M, 2F), of a bin table (rows, 2F), with fields of :class:`BandTables`.

    A bin lies in two bands at most, so nearly all of the K·M weights are 0. On one core, embedding_bag is several times
    faster than the best dense blocks, and it does not depend on the precision set for matrix products.
    """
    # embedding_bag has neither a forward-mode derivative nor a rule for vmap.
    if table.device.type in _BAG_DEVICES and not is_transformed(table):
        return F.embedding_bag(
            rows,
            table,
            offsets,
            mode="sum",
            per_sample_weights=weights,
            include_last_offset=True,
        )
    count = len(offsets) - 1
    sums = torch.repeat_interleave(torch.arange(count, device=table.device), offsets.diff())
    dense = torch.zeros((count, table.shape[0]), dtype=table.dtype, device=table.device)
    dense = dense.index_put((sums, rows), weights)
    return dense @ table
