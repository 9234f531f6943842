"""Peaks of an inverted waveform: where the phase piles energy up, it is changed until the energy is spread."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Measured: see docs/notes/sound.md. Frames are clipped to this magnitude, or to their root mean square if
# that is higher, and are left as they are up to `_TOLERANCE` times that. The peaks of a sine are never so high.
_CLIP = 0.8
_TOLERANCE = 1.5
# How far samples are moved, relative to their distance from the clipped waveform.
_RELAXATION = 1.5
_MOST_ITERATIONS = 16
_TINY = 1e-12
# Frames that share a sample.
_OVERLAP = 4


@torch.no_grad()
def spread_peaks(sound: Tensor, n_fft: int) -> Tensor:
    """Lower the peaks of a waveform that are above those of any source, by changes of phase only.

    Sources have peaks of 1 at most, but the phase that is estimated for a model's smooth features can be nearly equal
    in all bins of a frame, whose energy is then in one click. As in Griffin-Lim, such frames are alternately clipped
    and given the magnitudes back that they had.

    Parameters
    ----------
    sound : Tensor [n]
        Floating type.
    n_fft : int
        Length of the frames that keep their magnitudes, samples; at least 4.

    Returns
    -------
    Tensor [n]
        `sound` itself if no peak is too high. Peaks of 1.2 (+1.6 dBFS) at most, unless a frame is so loud that they do
        not rise above 1.5 times its root mean square, or the iterations end before. A click that is alone in its frame
        stays: to clip it changes no phase.
    """
    if not len(sound) or sound.abs().max() <= _CLIP * _TOLERANCE:
        return sound
    hop = n_fft // _OVERLAP
    size = hop * _OVERLAP
    padded = F.pad(sound, (size, size + -len(sound) % hop))
    window = torch.hann_window(size, dtype=sound.dtype, device=sound.device)
    power = _per_frame(padded.square().view(-1, hop).mean(dim=1)).mean(dim=1)
    clip = power.sqrt().clamp_min(_CLIP)
    original, current = padded.unfold(0, size, hop), padded.clone()
    for _ in range(_MOST_ITERATIONS):
        peaks = _per_frame(current.abs().view(-1, hop).amax(dim=1)).amax(dim=1)
        high = (peaks > _TOLERANCE * clip).nonzero()[:, 0]
        if not len(high):
            break
        frames, limit = current.unfold(0, size, hop)[high], clip[high, None]
        moved = frames + _RELAXATION * (frames.clamp(-limit, limit) - frames)
        spectra = torch.fft.rfft(moved * window)
        magnitudes = torch.fft.rfft(original[high] * window).abs()
        restored = torch.fft.irfft(spectra * (magnitudes / spectra.abs().clamp_min(_TINY)), n=size)
        change = current.new_zeros(len(clip), _OVERLAP, hop)
        # The squares of the windows add up to 3/8 of their number.
        change[high] = ((restored - frames * window) * window / (_OVERLAP * 3 / 8)).view(-1, _OVERLAP, hop)
        blocks = current.view(-1, hop)
        for part in range(_OVERLAP):
            blocks[part : part + len(clip)] += change[:, part]
    return current[size : size + len(sound)]


def _per_frame(values: Tensor) -> Tensor:
    """Return the values of the hops in each frame, [frames, 4], of those of all hops, [frames + 3]."""
    return values.unfold(0, _OVERLAP, 1)
