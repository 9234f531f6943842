"""Features to a waveform: power of single bins, an initial phase, and fast Griffin-Lim."""

from __future__ import annotations

import logging
import math
from functools import cache

import torch
import torch.nn.functional as F

from distill.errors import BackendError
from distill.features.backend_names import BACKEND_VARIABLE, Backend
from distill.features.backends.rust import fault
from distill.features.inversion import rust
from distill.features.inversion.bin_power import bin_power
from distill.features.inversion.limits import check_features, check_power, plain_features
from distill.features.inversion.phase import initial_phase
from distill.features.mel import MelSpec, hann_window

logger = logging.getLogger(__name__)

# Of fast Griffin-Lim; 0, 0.9 and 1.2 were worse.
_MOMENTUM = 0.99
# Frames inverted at once: on a CPU about one chunk, whose spectra then stay in the CPU cache.
_FRAMES = {"cpu": 128, "cuda": 1 << 15}
# Smallest divisor of overlap-add, relative to the largest sum of squared windows. It keeps the outermost samples, and
# those between frames that hardly overlap, from being amplified.
_LEAST_WEIGHT = 1e-2
_TINY = 1e-20


def invert(
    features: torch.Tensor, spec: MelSpec, n_iter: int, length: int | None, backend: Backend = "auto"
) -> torch.Tensor:
    """Compute a waveform whose features are close to `features`.

    Parameters
    ----------
    features : torch.Tensor
        Shape (B, C, M, T), C and M as in `spec`; any floating type.
    spec : MelSpec
        The feature.
    n_iter : int
        Iterations of fast Griffin-Lim [1]_, at two FFTs per frame each.
    length : int or None
        Samples S of the result; None for ``(T - 1) * hop_length``. Samples beyond that are sound for another
        ``n_fft / 2`` at most, then zeros.
    backend : {"auto", "fused", "rust", "reference"}
        "rust": the Rust kernel, on a CPU. "reference": torch. Otherwise the Rust kernel on a CPU, torch on a GPU.

    Returns
    -------
    torch.Tensor
        Shape (B, 1, S), float32, on the device of `features`, without a gradient; deterministic, bit for bit.

    Raises
    ------
    ValueError
        If the shape, the type or `n_iter` does not fit, a value is not finite or above any log power of sound, or
        `features` are differentiated forwards or transformed by torch.func.
    ConfigError
        If the feature has an option that cannot be inverted.
    BackendError
        If `backend` is "rust" and the kernel cannot compute it.

    References
    ----------
    .. [1] N. Perraudin, P. Balazs, P. L. Sondergaard, "A fast Griffin-Lim algorithm", WASPAA 2013.
    """
    check_features(features, spec)
    if n_iter < 0:
        raise ValueError(f"n_iter={n_iter} must be at least 0")
    if length is not None and length < 0:
        raise ValueError(f"length={length} must be at least 0 samples")
    n_frames = features.shape[-1]
    length = (n_frames - 1) * spec.hop_length if length is None else length
    # The forward transform reflected the waveform at its end: at `length`, if such a waveform has as many frames.
    samples = length if spec.n_frames(length) == n_frames else (n_frames - 1) * spec.hop_length
    samples = max(samples, spec.n_fft // 2 + 1)
    # MPS lacks the integer reductions of the phase's spanning tree.
    device = features.device if features.device.type in _FRAMES else torch.device("cpu")
    # A transform of torch.func that is about other tensors would wrap those that are made here, and those in caches.
    with torch.no_grad(), torch._C._DisableFuncTorch():
        features, spec = plain_features(features, spec)
        check_power(features)
        if _use_rust(device, spec, backend):
            waveforms = rust.invert(features.to(device), spec, n_iter, samples)
        else:
            waveforms = _in_parts(features, spec, n_iter, samples, device)
        return _to_length(waveforms, length)[:, None].to(features.device)


def _use_rust(device: torch.device, spec: MelSpec, backend: Backend) -> bool:
    """Return whether the Rust kernel inverts features on `device`; raise if it was requested and cannot."""
    if backend == "reference" or (backend != "rust" and device.type != "cpu"):
        return False
    reason = fault(device, "the features are")
    if spec.n_fft.bit_count() > 1:
        reason = reason or f"n_fft={spec.n_fft} is no power of two"
    if reason and backend == "rust":
        raise BackendError(
            f"backend 'rust' cannot invert this: {reason}; "
            f"choose 'auto' or 'reference', as backend or as {BACKEND_VARIABLE}"
        )
    if reason:
        _warn_once(reason)
    return reason is None


@cache
def _warn_once(reason: str) -> None:
    logger.warning("the rust kernel cannot be used, features are inverted by the slower reference: %s", reason)


def _in_parts(features: torch.Tensor, spec: MelSpec, n_iter: int, samples: int, device: torch.device) -> torch.Tensor:
    """Compute waveforms (B, samples) with torch on `device`, several clips at a time."""
    clips = max(1, _FRAMES[device.type] // features.shape[-1])
    parts = [
        _invert(part.to(device).float().contiguous(), spec, n_iter, samples)
        for part in features.split(clips)
        if len(part)
    ]
    return torch.cat(parts) if parts else torch.zeros((0, samples), dtype=torch.float32, device=device)


def _invert(features: torch.Tensor, spec: MelSpec, n_iter: int, samples: int) -> torch.Tensor:
    """Compute waveforms (B, samples) of valid features."""
    power = features[:, 0].clamp(min=0).expm1()
    # Each clip is scaled by its loudest band, so that the constants which keep divisions safe do not hide quiet clips.
    loudest = power.amax(dim=(1, 2), keepdim=True)
    loudest = torch.where(loudest > 0, loudest, 1.0)
    mel_frequency = None if spec.if_masking_threshold is None else _columns(features[:, 1])
    fitted_power, fitted_frequency = bin_power(_columns(power / loudest), mel_frequency, spec)
    magnitude = _clips(fitted_power, len(features)).sqrt()
    frequency = None if fitted_frequency is None else _clips(fitted_frequency, len(features))
    phase = initial_phase(magnitude, frequency, spec.hop_length)
    waveforms = _griffin_lim(magnitude.mT, phase.mT, spec, n_iter, samples)
    return waveforms * loudest.sqrt()[:, 0]


def _columns(clips: torch.Tensor) -> torch.Tensor:
    """Reshape (B, M, T) to (M, B·T)."""
    return clips.transpose(0, 1).flatten(1)


def _clips(columns: torch.Tensor, batch: int) -> torch.Tensor:
    """Reshape (K, B·T) to (B, K, T)."""
    clips: torch.Tensor = columns.unflatten(1, (batch, -1)).transpose(0, 1)
    return clips


def _griffin_lim(
    magnitude: torch.Tensor, phase: torch.Tensor, spec: MelSpec, n_iter: int, samples: int
) -> torch.Tensor:
    """Compute waveforms (B, samples) of spectra (B, T, K), with ends reflected as by the forward transform."""
    n_fft, hop_length, half = spec.n_fft, spec.hop_length, spec.n_fft // 2
    count = magnitude.shape[1]
    window = hann_window(n_fft, device=magnitude.device)
    weight = _overlap_add(window.square().expand(1, count, n_fft), hop_length)
    weight = weight.clamp(min=_LEAST_WEIGHT * float(weight.max()))

    def synthesize(spectrum: torch.Tensor) -> torch.Tensor:
        waveforms = _overlap_add(torch.fft.irfft(spectrum, n=n_fft) * window, hop_length) / weight
        return _to_length(waveforms[:, half:], samples)

    spectrum, previous = torch.polar(magnitude.contiguous(), phase.contiguous()), None
    for _ in range(n_iter):
        frames = F.pad(synthesize(spectrum), (half, half), mode="reflect").unfold(-1, n_fft, hop_length)[:, :count]
        consistent = torch.view_as_real(torch.fft.rfft(frames * window))
        ahead = consistent if previous is None else torch.lerp(previous, consistent, 1 + _MOMENTUM)
        previous = consistent
        scale = magnitude * ahead.square().sum(dim=-1).add_(_TINY).rsqrt_()
        spectrum = torch.view_as_complex(ahead * scale[..., None])
    return synthesize(spectrum)


def _to_length(waveforms: torch.Tensor, samples: int) -> torch.Tensor:
    """Cut waveforms (B, S) to `samples`, or pad them with zeros at the end."""
    return F.pad(waveforms[:, :samples], (0, max(0, samples - waveforms.shape[1])))


def _overlap_add(frames: torch.Tensor, hop_length: int) -> torch.Tensor:
    """Add frames (B, T, n_fft), `hop_length` apart, to (B, (T - 1)·hop_length + n_fft), always in the same order."""
    batch, count, n_fft = frames.shape
    steps = math.ceil(n_fft / hop_length)
    frames = F.pad(frames, (0, steps * hop_length - n_fft)).unflatten(-1, (steps, hop_length))
    total = frames.new_zeros((batch, count + steps - 1, hop_length))
    for step in range(steps):
        total[:, step : step + count] += frames[:, :, step]
    return total.flatten(1)[:, : (count - 1) * hop_length + n_fft]
