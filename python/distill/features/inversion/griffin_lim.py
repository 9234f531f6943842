"""Features back to sound: power of the bins, a phase to start from, and fast Griffin-Lim; and chunks joined."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from distill.features.inversion.bin_power import bin_power
from distill.features.inversion.phase import start_phase
from distill.features.mel import hann_window
from distill.features.reference import IF_LIMIT, Numbers

# Fast Griffin-Lim's; 0, 0.9 and 1.2 were worse.
_MOMENTUM = 0.99
# Frames worked on at once: on a CPU about one chunk, whose spectra then stay in the cache.
_FRAMES = {"cpu": 128, "cuda": 1 << 15}
# Square of the window, of its sum over frames, below which a sample is not made louder: outermost samples, and between
# frames that hardly overlap.
_THIN = 1e-2
_TINY = 1e-20
# Log power to hold what a model says to: far above all sound, and yet a waveform.
_LOUDEST = 30.0
# Channel 0 above which its power would not be a float32; sound within ±1 and frames of 65 536 samples reach 22.
_HIGHEST = 80.0
# Standard deviations of the magnitude, about what a model errs by where it is nearly silent. Weighed down like noise,
# this hiss leaves sonic-pi's samples 5.5 dB from what they were instead of 8.4 (log-spectral distance), at the same
# level and convergence. With 0.3 and more, levels fall; features without an error in them go from 2.5 to 3.4 dB.
_HISS = 0.2


@torch.no_grad()
def hold_to_sound(features: torch.Tensor, deviation: float) -> torch.Tensor:
    """What a model says, as it becomes sound: within what features can be, its hiss weighed down.

    Parameters
    ----------
    features : torch.Tensor
        Shape (B, 1 or 2, M, T), before normalisation, finite; changed in place.
    deviation : float
        Standard deviation of channel 0 in the data, above 0: the hiss goes with it.

    Returns
    -------
    torch.Tensor
        `features`: a log power p of channel 0 as ``p³ / (p² + h²)``, h a fifth of `deviation`; 0 where it was below.
    """
    power = features[:, :1].clamp_(0.0, _LOUDEST)
    power *= power.square() / (power.square() + (_HISS * deviation) ** 2)
    features[:, 1:].clamp_(-IF_LIMIT, IF_LIMIT)
    return features


@torch.no_grad()
def invert(features: torch.Tensor, numbers: Numbers, n_iter: int, length: int | None) -> torch.Tensor:
    """Waveform whose features come near to `features`.

    Parameters
    ----------
    features : torch.Tensor
        Shape (B, 2, M, T), or (B, 1, M, T) where `numbers` has no threshold; any floating type.
    numbers : Numbers
        What the feature is.
    n_iter : int
        Iterations of fast Griffin-Lim [1]_; each costs two FFTs a frame.
    length : int or None
        Samples S of the result; None for ``(T - 1) * hop_length``. Up to ``n_fft / 2`` more hold sound, then zeros.

    Returns
    -------
    torch.Tensor
        Shape (B, 1, S), float32, on the device of `features`; the same for the same features, bit for bit.

    Raises
    ------
    ValueError
        If the shape, the type or `n_iter` does not fit, or a value is not finite or no log power of sound.

    References
    ----------
    .. [1] N. Perraudin, P. Balazs, P. L. Sondergaard, "A fast Griffin-Lim algorithm", WASPAA 2013.
    """
    _check(features, numbers, n_iter, length)
    n_frames, hop_length = features.shape[-1], numbers.hop_length
    length = (n_frames - 1) * hop_length if length is None else length
    # Where the ends were reflected: at the length asked for, if sound of that length has as many frames.
    samples = length if length // hop_length + 1 == n_frames else (n_frames - 1) * hop_length
    samples = max(samples, numbers.n_fft // 2 + 1)
    # MPS lacks the integer reductions of the phase's tree.
    device = features.device if features.device.type in _FRAMES else torch.device("cpu")
    clips = max(1, _FRAMES[device.type] // n_frames)
    parts = [_invert(part.to(device).float(), numbers, n_iter, samples) for part in features.split(clips) if len(part)]
    sound = torch.cat(parts) if parts else torch.zeros((0, samples), device=device)
    return _to_length(sound, length)[:, None].to(features.device)


def _invert(features: torch.Tensor, numbers: Numbers, n_iter: int, samples: int) -> torch.Tensor:
    """Sound (B, samples) of features that were checked."""
    power = features[:, 0].clamp(min=0).expm1()
    # At a scale of their own, quiet clips are not lost among the small numbers that keep divisions safe.
    loudest = power.amax(dim=(1, 2), keepdim=True)
    loudest = torch.where(loudest > 0, loudest, 1.0)
    given = None if numbers.if_masking_threshold is None else _columns(features[:, 1])
    fitted = bin_power(_columns(power / loudest), given, numbers)
    power, frequency = (None if part is None else _clips(part, len(features)) for part in fitted)
    magnitude = power.sqrt()
    phase = start_phase(magnitude, frequency, numbers.hop_length)
    sound = _griffin_lim(magnitude.mT, phase.mT, numbers, n_iter, samples)
    return sound * loudest.sqrt()[:, 0]


def _columns(clips: torch.Tensor) -> torch.Tensor:
    """Shape (B, M, T) as (M, B·T)."""
    return clips.transpose(0, 1).flatten(1)


def _clips(columns: torch.Tensor, batch: int) -> torch.Tensor:
    """Shape (K, B·T) as (B, K, T)."""
    return columns.unflatten(1, (batch, -1)).transpose(0, 1)


def _griffin_lim(
    magnitude: torch.Tensor, phase: torch.Tensor, numbers: Numbers, n_iter: int, samples: int
) -> torch.Tensor:
    """Sound (B, samples) of spectra (B, T, K), whose ends are reflected as the features' are."""
    n_fft, hop_length, half = numbers.n_fft, numbers.hop_length, numbers.n_fft // 2
    count = magnitude.shape[1]
    window = hann_window(n_fft, device=magnitude.device)
    weight = _overlap_add(window.square().expand(1, count, n_fft), hop_length)
    weight = weight.clamp(min=_THIN * float(weight.max()))

    def synthesis(spectrum: torch.Tensor) -> torch.Tensor:
        sound = _overlap_add(torch.fft.irfft(spectrum, n=n_fft) * window, hop_length) / weight
        return _to_length(sound[:, half:], samples)

    spectrum, before = torch.polar(magnitude.contiguous(), phase.contiguous()), None
    for _ in range(n_iter):
        frames = F.pad(synthesis(spectrum), (half, half), mode="reflect").unfold(-1, n_fft, hop_length)[:, :count]
        consistent = torch.view_as_real(torch.fft.rfft(frames * window))
        ahead = consistent if before is None else torch.lerp(before, consistent, 1 + _MOMENTUM)
        before = consistent
        scale = magnitude * ahead.square().sum(dim=-1).add_(_TINY).rsqrt_()
        spectrum = torch.view_as_complex(ahead * scale[..., None])
    return synthesis(spectrum)


def _to_length(sound: torch.Tensor, samples: int) -> torch.Tensor:
    """Cut, or with zeros at the end."""
    return F.pad(sound[:, :samples], (0, max(0, samples - sound.shape[1])))


def _overlap_add(frames: torch.Tensor, hop_length: int) -> torch.Tensor:
    """Sum of frames (B, T, n_fft), `hop_length` apart: (B, (T - 1)·hop_length + n_fft), in the same order always."""
    batch, count, n_fft = frames.shape
    steps = math.ceil(n_fft / hop_length)
    frames = F.pad(frames, (0, steps * hop_length - n_fft)).unflatten(-1, (steps, hop_length))
    total = frames.new_zeros((batch, count + steps - 1, hop_length))
    for step in range(steps):
        total[:, step : step + count] += frames[:, :, step]
    return total.flatten(1)[:, : (count - 1) * hop_length + n_fft]


def _check(features: torch.Tensor, numbers: Numbers, n_iter: int, length: int | None) -> None:
    channels, shape = numbers.channels, (numbers.channels, numbers.n_mels)
    if features.ndim != 4 or features.shape[1:3] != shape or not features.shape[3]:
        wanted = f"[batch, {channels}, n_mels={numbers.n_mels}, frames]"
        raise ValueError(f"features of shape {list(features.shape)} must be {wanted}, at least one frame")
    if not features.is_floating_point():
        raise ValueError(f"features of type {features.dtype} must be of a floating type, before normalisation")
    wrong = (~features.isfinite()).nonzero()
    if len(wrong):
        place = dict(zip(("clip", "channel", "mel", "frame"), wrong[0].tolist(), strict=True))
        value = features[tuple(wrong[0])].item()
        where = ", ".join(f"{name} {index}" for name, index in place.items())
        raise ValueError(f"features hold {value} at {where}: all must be finite")
    if features.numel() and (highest := features[:, 0].max().item()) > _HIGHEST:
        raise ValueError(f"features hold a log power of {highest:g}, above {_HIGHEST:g}: undo the normalisation first")
    if n_iter < 0:
        raise ValueError(f"n_iter={n_iter} must be at least 0")
    if length is not None and length < 0:
        raise ValueError(f"length={length} must be at least 0 samples")


@torch.no_grad()
def join_chunks(chunks: torch.Tensor, overlap: int) -> torch.Tensor:
    """Consecutive chunks of one sound as one, each faded into the next.

    Where two chunks agree the fades add up to 1, so that a sound that was cut comes back as it was; where they have
    nothing in common, the squares do, so that the level stays; in between in proportion. A chunk that is nearer to the
    mirror image of the one before is turned over: features do not tell a sound from its mirror image.

    ::

        chunk 0   |--------------------\
        chunk 1                    /------------------\
        chunk 2                                    /------------------|
                                  |--| overlap

    Parameters
    ----------
    chunks : torch.Tensor
        Shape (N, 1, S), N at least 1, a floating type.
    overlap : int
        Samples that each chunk shares with the next, from 0 to S / 2.

    Returns
    -------
    torch.Tensor
        Shape (1, 1, N·S - (N - 1)·overlap), the type of `chunks`.

    Raises
    ------
    ValueError
        If the shape, the type or `overlap` does not fit.
    """
    if chunks.ndim != 3 or chunks.shape[1] != 1 or not len(chunks) or not chunks.is_floating_point():
        shape = f"{list(chunks.shape)} and type {chunks.dtype}"
        raise ValueError(f"chunks of shape {shape} must be [chunks, 1, samples], at least one, of a floating type")
    samples = chunks.shape[-1]
    if not 0 <= overlap <= samples // 2:
        raise ValueError(f"overlap={overlap} must be from 0 to {samples // 2} samples, half a chunk")
    sound = chunks.new_empty(len(chunks) * (samples - overlap) + overlap)
    sound[:samples] = chunks[0, 0]
    for number, chunk in enumerate(chunks[1:, 0], 1):
        start = number * (samples - overlap)
        before, after = sound[start : start + overlap].clone(), chunk[:overlap]
        likeness = F.cosine_similarity(before.double(), after.double(), dim=0, eps=_TINY).item() if overlap else 0.0
        sign = -1.0 if likeness < 0 else 1.0
        rise = (torch.arange(overlap, dtype=torch.float64, device=chunk.device) + 0.5) / max(overlap, 1)
        level = (1 - 2 * (1 - abs(likeness)) * rise * (1 - rise)).sqrt()
        sound[start : start + samples] = sign * chunk
        sound[start : start + overlap] = before * ((1 - rise) / level) + sign * after * (rise / level)
    return sound[None, None]
