"""The baselines of the fused kernel on a GPU: each is a function from waveforms (B, S) to features.

The most important one is cuFFT with all other work fused by hand into two kernels around it: the best that is possible
without writing an FFT. Only frames and spectra go through device memory.
"""

# In kernels, names of sizes are upper case.
# ruff: noqa: N803

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from distill.features.mel import MelSpec, mel_bands
from distill.features.reference import complex_mel
from gpu_report import one_line

LANES = 32
FRAMES = 4


class Method(NamedTuple):
    """A method to compute the features."""

    call: Callable[[torch.Tensor], torch.Tensor]
    """From waveforms (B, S) to (B, channels, M, T)."""
    channels: int
    """2, or 1 for log power alone."""
    is_log: bool = True
    """Whether channel 0 is `log1p` of the power, and not the power itself."""


@triton.jit
def frame_kernel(x_p, frames_p, S, T, x_stride, HOP: tl.constexpr, N_FFT: tl.constexpr):
    """Copy frame t of a clip, reflected at its edges; one frame per program."""
    i_frame = tl.program_id(0).to(tl.int64)
    i_clip, t = i_frame // T, i_frame % T
    o_sample = tl.arange(0, N_FFT)
    o_x = tl.abs(t * HOP + o_sample - N_FFT // 2)
    o_x = tl.minimum(o_x, 2 * (S - 1).to(tl.int64) - o_x)
    tl.store(frames_p + i_frame * N_FFT + o_sample, tl.load(x_p + i_clip * x_stride + o_x))


@triton.jit
def load_bins(spectrum_p, o_frame, SHIFT: tl.constexpr, N_BINS: tl.constexpr, FRAMES: tl.constexpr):
    """Load bins SHIFT to N_BINS + SHIFT - 1 of FRAMES frames, re and im [FRAMES, N_BINS]; bin -1 is 0."""
    o_number = tl.arange(0, 2 * N_BINS)[None, :] + 2 * SHIFT
    b_pairs = tl.load(spectrum_p + o_frame[:, None] * (2 * N_BINS + 2) + o_number, mask=o_number >= 0, other=0.0)
    return tl.split(tl.reshape(b_pairs, (FRAMES, N_BINS, 2)))


@triton.jit
def band_sums(
    power, shift, b_first, weight_p, offset_p, N_BINS: tl.constexpr, FRAMES: tl.constexpr, WIDTH: tl.constexpr
):
    """Sum power and moment [FRAMES, 32] of 32 bands of at most WIDTH bins each; `power` and `shift` are flat."""
    o_bin = tl.minimum(b_first[:, None] + tl.arange(0, WIDTH)[None, :], N_BINS - 1)[None, :, :]
    # One dimension: Triton 3.6 fails to compile many gathers of two.
    o_bin = tl.reshape(o_bin + tl.arange(0, FRAMES)[:, None, None] * N_BINS, (FRAMES * 32 * WIDTH,))
    o_weight = (tl.arange(0, 32)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :])[None, :, :]
    b_weight, b_offset = tl.load(weight_p + o_weight), tl.load(offset_p + o_weight)
    b_power = tl.reshape(tl.gather(power, o_bin, 0), (FRAMES, 32, WIDTH))
    b_shift = tl.reshape(tl.gather(shift, o_bin, 0), (FRAMES, 32, WIDTH))
    return tl.sum(b_power * b_weight, 2), tl.sum(b_power * b_offset + b_shift * b_weight, 2)


@triton.jit
def band_kernel(
    spectrum_p, out_p, first_p, weight_p, offset_p, scale_p,
    n_frames, T, threshold,
    N_BINS: tl.constexpr, M: tl.constexpr, FRAMES: tl.constexpr, WIDTHS: tl.constexpr, STARTS: tl.constexpr,
):  # fmt: skip
    """Compute both channels from the spectrum R of unwindowed frames: stencil, power, band sums, log1p and ratio."""
    o_frame = tl.program_id(0).to(tl.int64) * FRAMES + tl.arange(0, FRAMES)
    m_frame = o_frame < n_frames
    o_read = tl.minimum(o_frame, n_frames - 1)
    lr, li = load_bins(spectrum_p, o_read, -1, N_BINS, FRAMES)
    r, i = load_bins(spectrum_p, o_read, 0, N_BINS, FRAMES)
    hr, hi = load_bins(spectrum_p, o_read, 1, N_BINS, FRAMES)
    xr, xi = 0.5 * r - 0.25 * (lr + hr), 0.5 * i - 0.25 * (li + hi)
    power = tl.reshape(xr * xr + xi * xi, (FRAMES * N_BINS,))
    shift = tl.reshape(0.25 * ((lr - hr) * xr + (li - hi) * xi), (FRAMES * N_BINS,))
    out_p += (o_frame // T * (2 * M) * T + o_frame % T)[:, None]
    for group in tl.static_range(len(WIDTHS)):
        o_lane = 32 * group + tl.arange(0, 32)
        b_first = tl.load(first_p + o_lane)
        energy, moment = band_sums(
            power, shift, b_first, weight_p + STARTS[group], offset_p + STARTS[group], N_BINS, FRAMES, WIDTHS[group]
        )
        is_heard = energy > threshold
        offset = tl.where(is_heard, moment / tl.where(is_heard, energy, 1.0), 0.0) * tl.load(scale_p + o_lane)[None, :]
        o_band = o_lane.to(tl.int64)[None, :]
        m_out = m_frame[:, None] & (o_band < M)
        tl.store(out_p + o_band * T, tl.log(1.0 + energy), mask=m_out)
        tl.store(out_p + (o_band + M) * T, tl.minimum(tl.maximum(offset, -2.0), 2.0), mask=m_out)


class PointwiseTables(NamedTuple):
    """Bands in groups of 32, each group's weights padded to a power of two of bins."""

    first: torch.Tensor
    weights: torch.Tensor
    offsets: torch.Tensor
    scales: torch.Tensor
    widths: tuple[int, ...]
    starts: tuple[int, ...]


def pointwise_tables(spec: MelSpec, device: torch.device) -> PointwiseTables:
    """Return the tables of :func:`band_kernel` for a feature."""
    bands, n_mels = mel_bands(spec), spec.n_mels
    groups = [range(start, min(start + LANES, n_mels)) for start in range(0, n_mels, LANES)]
    widths = tuple(max(2, triton.next_power_of_2(max(int(bands.width[m]) for m in group))) for group in groups)
    starts = tuple(LANES * sum(widths[:index]) for index in range(len(groups)))
    weights = torch.zeros((2, LANES * sum(widths)), dtype=torch.float64)
    for group, width, start in zip(groups, widths, starts, strict=True):
        for lane, m in enumerate(group):
            for step in range(int(bands.width[m])):
                k = int(bands.first[m]) + step
                weights[0, start + lane * width + step] = bands.filterbank[k, m]
                weights[1, start + lane * width + step] = bands.filterbank[k, m] * (k - bands.centre[m])
    padding = (0, LANES * len(groups) - n_mels)
    first = torch.nn.functional.pad(torch.tensor(bands.first, dtype=torch.int32), padding)
    scales = torch.nn.functional.pad(torch.tensor(1 / bands.half_support, dtype=torch.float32), padding)
    weights = weights.float().to(device)
    return PointwiseTables(first.to(device), weights[0], weights[1], scales.to(device), widths, starts)


def cufft_and_pointwise(spec: MelSpec, device: torch.device) -> Method:
    """Return cuFFT on framed input, with one Triton kernel before and one after it."""
    tables = pointwise_tables(spec, device)
    n_fft, hop, n_mels = spec.n_fft, spec.hop_length, spec.n_mels

    def call(x: torch.Tensor) -> torch.Tensor:
        n_clips, n_samples = x.shape
        n_frames = spec.n_frames(n_samples)
        total = n_clips * n_frames
        frames = x.new_empty((total, n_fft))
        frame_kernel[(total,)](x, frames, n_samples, n_frames, x.stride(0), HOP=hop, N_FFT=n_fft)
        spectrum = torch.view_as_real(torch.fft.rfft(frames))
        out = x.new_empty((n_clips, 2, n_mels, n_frames))
        band_kernel[(triton.cdiv(total, FRAMES),)](
            spectrum, out, tables.first, tables.weights, tables.offsets, tables.scales,
            total, n_frames, spec.if_masking_threshold,
            N_BINS=n_fft // 2, M=n_mels, FRAMES=FRAMES, WIDTHS=tables.widths, STARTS=tables.starts,
            num_warps=8, enable_fp_fusion=True,
        )  # fmt: skip
        return out

    return Method(call, channels=2)


def baselines(spec: MelSpec, device: torch.device) -> dict[str, Method | str]:
    """Return every baseline by its name, or the reason why it is left out."""

    def reference(x: torch.Tensor) -> torch.Tensor:
        return complex_mel(x, spec)

    makers: dict[str, Callable[[], Method | str]] = {
        "eager reference": lambda: Method(reference, channels=2),
        # Compiled for each shape: with static shapes the compiler does its best.
        "compiled reference": lambda: Method(torch.compile(reference, fullgraph=True, dynamic=False), channels=2),
        "cuFFT + pointwise": lambda: cufft_and_pointwise(spec, device),
        "torchaudio": lambda: _mel_spectrogram("torchaudio.transforms", spec, device),
        "flashmel": lambda: _mel_spectrogram("flashmel", spec, device),
    }
    return {name: _made(make) for name, make in makers.items()}


def _made(make: Callable[[], Method | str]) -> Method | str:
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - the others are measured, whatever one lacks
        return one_line(error)


def _mel_spectrogram(library: str, spec: MelSpec, device: torch.device) -> Method | str:
    """Return the power of a library's MelSpectrogram, which is one channel and no log."""
    try:
        mel_spectrogram = importlib.import_module(library).MelSpectrogram
    except ImportError as error:
        return f"not importable: {error}"
    module = mel_spectrogram(
        sample_rate=spec.sample_rate, n_fft=spec.n_fft, hop_length=spec.hop_length, n_mels=spec.n_mels
    ).to(device)
    return Method(lambda x: module(x)[:, None], channels=1, is_log=False)
