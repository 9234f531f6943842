r"""Windows of features, or chunks of sound, cross-faded into one waveform.

Consecutive windows are joined as features, so that one phase runs through them all::

    window 0    |-----------\
    window 1            /-----------\
    window 2                    /-----------|
                        |---| overlap

A long sound is inverted in segments, so that memory does not grow with its length. Only where two segments meet are
waveforms cross-faded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.features.inversion.peaks import spread_peaks

# Frames times n_fft of a segment: 11 s at the defaults. Inverting one takes about 250 MB, whatever the n_fft.
_SEGMENT_VALUES = 1 << 21
# Frames that a segment shares with the next.
_SEGMENT_OVERLAP = 16
_TINY = 1e-20


class Invertible(Protocol):
    """ComplexSpectrogram or AudioSpectrogram."""

    def inverse(self, features: Tensor, *, n_iter: int = 8, length: int | None = None) -> Tensor:
        """Compute a waveform from features."""


def join_windows(batches: Iterable[Tensor], overlap: int) -> Iterator[Tensor]:
    """Cross-fade consecutive windows of features into one sequence of frames.

    Parameters
    ----------
    batches : iterable of Tensor [b, C, M, T]
        The windows in order.
    overlap : int
        Frames that a window shares with the next, from 0 to T / 2.

    Yields
    ------
    Tensor [C, M, n]
        The next frames: N·T - (N - 1)·overlap in all, for N windows.
    """
    rise = torch.sin((torch.arange(overlap, dtype=torch.float32) + 0.5) / max(overlap, 1) * (math.pi / 2)) ** 2
    tail: Tensor | None = None
    for window in (window for batch in batches for window in batch):
        body = window[..., : window.shape[-1] - overlap]
        if tail is not None:
            head = torch.lerp(tail, window[..., :overlap], rise.to(window))
            body = torch.cat([head, body[..., overlap:]], dim=-1)
        yield body
        tail = window[..., window.shape[-1] - overlap :]
    if tail is not None and overlap:
        yield tail


def invert_in_segments(
    features: Iterable[Tensor], spectrogram: Invertible, samples: int, hop_length: int, n_fft: int
) -> Iterator[Tensor]:
    """Invert features that arrive in parts, and spread the peaks that are above those of any source.

    Parameters
    ----------
    features : iterable of Tensor [C, M, n]
        ``samples // hop_length + 1`` frames before normalisation; further frames are ignored.
    spectrogram : ComplexSpectrogram or AudioSpectrogram
        The module that inverts them.
    samples : int
        Length of the waveform.
    hop_length, n_fft : int
        Of `spectrogram`, samples.

    Yields
    ------
    Tensor [n], float32
        The next samples, `samples` in all.
    """
    frames = samples // hop_length + 1
    longest = max(4 * _SEGMENT_OVERLAP, _SEGMENT_VALUES // n_fft)
    if frames <= longest:
        whole = next(_segments(features, frames, 0))
        yield spread_peaks(spectrogram.inverse(whole[None], length=samples)[0, 0], n_fft)
        return
    # One frame more, because up to a hop of sound follows the last frame.
    count = math.ceil((frames + 1 - _SEGMENT_OVERLAP) / (longest - _SEGMENT_OVERLAP))
    size = math.ceil((frames + 1 - _SEGMENT_OVERLAP) / count) + _SEGMENT_OVERLAP
    overlap = (_SEGMENT_OVERLAP - 1) * hop_length
    pending: Tensor | None = None
    left = samples
    for segment in _segments(features, size, _SEGMENT_OVERLAP):
        sound = spread_peaks(spectrogram.inverse(segment[None])[0, 0], n_fft)[None]
        if pending is not None:
            both = join_chunks(torch.stack([pending, sound]), overlap)[0]
            done, sound = both.split([both.shape[-1] - sound.shape[-1], sound.shape[-1]], dim=-1)
            yield done[0]
            left -= done.shape[-1]
        pending = sound
        if left <= sound.shape[-1]:
            break
    assert pending is not None
    yield pending[0, :left]


def _segments(features: Iterable[Tensor], size: int, overlap: int) -> Iterator[Tensor]:
    """Yield segments [C, M, size], each sharing `overlap` frames with the next; the last frame pads the last one."""
    held: Tensor | None = None
    for part in features:
        held = part if held is None else torch.cat([held, part], dim=-1)
        while held.shape[-1] >= size:
            yield held[..., :size]
            held = held[..., size - overlap :]
    if held is not None and held.shape[-1] > overlap:
        missing = size - held.shape[-1]
        yield torch.cat([held, held[..., -1:].expand(*held.shape[:2], missing)], dim=-1)


@torch.no_grad()
def join_chunks(chunks: Tensor, overlap: int) -> Tensor:
    r"""Cross-fade consecutive chunks of one sound into one waveform.

    The fades depend on how similar two chunks are where they overlap. For equal chunks the gains add up to 1, so that a
    sound that was cut comes back unchanged; for uncorrelated chunks their squares do, so that the level stays constant;
    in between, the gains are interpolated. Features do not determine the sign of a waveform: a chunk that is negatively
    correlated with the previous one is inverted.

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
        similarity = F.cosine_similarity(before.double(), after.double(), dim=0, eps=_TINY).item() if overlap else 0.0
        sign = -1.0 if similarity < 0 else 1.0
        rise = (torch.arange(overlap, dtype=torch.float64, device=chunk.device) + 0.5) / max(overlap, 1)
        level = (1 - 2 * (1 - abs(similarity)) * rise * (1 - rise)).sqrt()
        sound[start : start + samples] = sign * chunk
        sound[start : start + overlap] = before * ((1 - rise) / level) + sign * after * (rise / level)
    return sound[None, None]


def fade_ends(blocks: Iterable[Tensor], samples: int, fade_in: int, fade_out: int) -> Iterator[Tensor]:
    """Fade a waveform that arrives in blocks in and out, so that it neither begins nor ends with a click.

    Parameters
    ----------
    blocks : iterable of Tensor [n]
        `samples` in all.
    samples : int
        Length of the waveform.
    fade_in, fade_out : int
        Samples of the fades; each takes a quarter of the waveform at most.

    Yields
    ------
    Tensor [n]
        Each block, faded.
    """
    fade_in, fade_out = (max(1, min(fade, samples // 4)) for fade in (fade_in, fade_out))
    done = 0
    for block in blocks:
        place = torch.arange(done, done + block.shape[-1], dtype=torch.float32, device=block.device) + 0.5
        yield block * torch.minimum(place / fade_in, (samples - place) / fade_out).clamp(max=1.0)
        done += block.shape[-1]
