"""Consecutive windows of features to one sound, a stretch at a time, so that memory does not grow with its length.

windows are joined as features, so that one phase runs through them all:

window 0    |-----------\
window 1            /-----------\
window 2                    /-----------|
                    |---| fade

and only where a sound is longer than a stretch, the sounds of two stretches fade into each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from distill.features.inversion.griffin_lim import join_chunks

# Eleven seconds at the defaults, which take 250 MB to invert, and about as much with frames of another length.
_STRETCH_VALUES = 1 << 21
_SHARED_FRAMES = 16


class Invertible(Protocol):
    """ComplexSpectrogram or AudioSpectrogram."""

    def inverse(self, features: Tensor, *, n_iter: int = 8, length: int | None = None) -> Tensor:
        """Waveform of features."""


def join_rows(batches: Iterable[Tensor], fade: int) -> Iterator[Tensor]:
    """Consecutive rows of features as one, each faded into the next.

    Parameters
    ----------
    batches : iterable of Tensor [b, C, M, T]
        The rows in order.
    fade : int
        Frames that a row shares with the next, from 0 to T / 2.

    Yields
    ------
    Tensor [C, M, n]
        What follows; N rows give N·T - (N - 1)·fade frames in all.
    """
    rise = torch.sin((torch.arange(fade) + 0.5) / max(fade, 1) * (math.pi / 2)) ** 2
    before: Tensor | None = None
    for row in (row for batch in batches for row in batch):
        body = row[..., : row.shape[-1] - fade]
        if before is not None:
            head = torch.lerp(before, row[..., :fade], rise.to(row))
            body = torch.cat([head, body[..., fade:]], dim=-1)
        yield body
        before = row[..., row.shape[-1] - fade :]
    if before is not None and fade:
        yield before


def to_sound(
    features: Iterable[Tensor], spectrogram: Invertible, samples: int, hop_length: int, n_fft: int
) -> Iterator[Tensor]:
    """Sound of features that come bit by bit.

    Parameters
    ----------
    features : iterable of Tensor [C, M, n]
        ``samples // hop_length + 1`` frames before normalisation; more are left out.
    spectrogram : ComplexSpectrogram or AudioSpectrogram
        What inverts them.
    samples : int
        Length of the sound.
    hop_length, n_fft : int
        Samples.

    Yields
    ------
    Tensor [n], float32
        What follows, `samples` in all.
    """
    frames = samples // hop_length + 1
    longest = max(4 * _SHARED_FRAMES, _STRETCH_VALUES // n_fft)
    if frames <= longest:
        whole = next(_cut(features, frames, 0))
        yield spectrogram.inverse(whole[None], length=samples)[0, 0]
        return
    # One frame more: what lies behind the last one is sound, too.
    count = math.ceil((frames + 1 - _SHARED_FRAMES) / (longest - _SHARED_FRAMES))
    size = math.ceil((frames + 1 - _SHARED_FRAMES) / count) + _SHARED_FRAMES
    shared = (_SHARED_FRAMES - 1) * hop_length
    before: Tensor | None = None
    left = samples
    for stretch in _cut(features, size, _SHARED_FRAMES):
        sound = spectrogram.inverse(stretch[None])[0]
        if before is not None:
            both = join_chunks(torch.stack([before, sound]), shared)[0]
            done, sound = both.split([both.shape[-1] - sound.shape[-1], sound.shape[-1]], dim=-1)
            yield done[0]
            left -= done.shape[-1]
        before = sound
        if left <= sound.shape[-1]:
            break
    assert before is not None
    yield before[0, :left]


def _cut(features: Iterable[Tensor], size: int, shared: int) -> Iterator[Tensor]:
    """Stretches of `size` frames, each sharing some with the next; the last frame is repeated where they end."""
    held: Tensor | None = None
    for part in features:
        held = part if held is None else torch.cat([held, part], dim=-1)
        while held.shape[-1] >= size:
            yield held[..., :size]
            held = held[..., size - shared :]
    if held is not None and held.shape[-1] > shared:
        missing = size - held.shape[-1]
        yield torch.cat([held, held[..., -1:].expand(*held.shape[:2], missing)], dim=-1)


def fade_ends(blocks: Iterable[Tensor], samples: int, rise: int, fall: int) -> Iterator[Tensor]:
    """Sound that comes bit by bit, faded in and out, so that it neither begins nor ends with a click.

    Parameters
    ----------
    blocks : iterable of Tensor [n]
        `samples` in all.
    samples : int
        Length of the sound.
    rise, fall : int
        Samples of the fades; each takes at most a quarter of the sound.

    Yields
    ------
    Tensor [n]
    """
    rise, fall = (max(1, min(fade, samples // 4)) for fade in (rise, fall))
    done = 0
    for block in blocks:
        place = torch.arange(done, done + block.shape[-1], device=block.device) + 0.5
        yield block * torch.minimum(place / rise, (samples - place) / fall).clamp(max=1.0)
        done += block.shape[-1]
