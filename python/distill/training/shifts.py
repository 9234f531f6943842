"""Data augmentation while training: rows shifted in time and in mel."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.models.part import Part

_LARGEST_TIME_SHARE = 0.4
_MELS_PER_SHIFTED_BAND = 64


def shift_rows(
    rows: Tensor,
    share: float,
    silence: Tensor,
    generator: torch.Generator | None = None,
    *,
    part: Part | None = None,
) -> Tensor:
    """Shift randomly chosen rows by up to 40 % of their frames and 1/64 of their mel bands, each by a different amount.

    A shift by whole frames gives the features of the same sound earlier or later, except for the frames at the edge.
    A shift by so few bands is close to the features of the sound at another pitch. The edge is filled with silence.

    Parameters
    ----------
    rows : Tensor [B, C, M, T]
        Normalised features.
    share : float
        Probability with which a row is shifted, from 0 to 1; 0 draws nothing.
    silence : Tensor [C, 1, 1]
        Normalised value of silence in each channel, as `silence_of` returns it.
    generator : torch.Generator, optional
        On the CPU. Default: torch's global generator.
    part : Part, optional
        Which rows of a batch these are, if other processes compute the others. Default: they are the whole batch.

    Returns
    -------
    Tensor [B, C, M, T]
        A copy with the shifted rows; `rows` itself if `share` is 0.
    """
    if not share:
        return rows
    count, _, n_mels, n_frames = rows.shape
    first, total = (0, count) if part is None else (part.first, part.total)
    frames, bands = int(_LARGEST_TIME_SHARE * n_frames), n_mels // _MELS_PER_SHIFTED_BAND
    # On the CPU, because a checkpoint holds the state of its generator; for every row, so that a row's shift does not
    # depend on whether others are shifted.
    is_chosen = (torch.rand(total, generator=generator, dtype=torch.float32) < share).tolist()[first:]
    frame_steps = torch.randint(-frames, frames + 1, (total,), generator=generator).tolist()[first:]
    band_steps = torch.randint(-bands, bands + 1, (total,), generator=generator).tolist()[first:]
    shifted = rows.clone()
    silence = silence.to(rows.device)
    for row in (row for row in range(count) if is_chosen[row]):
        to_mels, from_mels = _overlap(n_mels, band_steps[row])
        to_frames, from_frames = _overlap(n_frames, frame_steps[row])
        shifted[row] = silence
        shifted[row, :, to_mels, to_frames] = rows[row, :, from_mels, from_frames]
    return shifted


def _overlap(size: int, step: int) -> tuple[slice, slice]:
    """Return the destination and the source slice of an axis of `size` that is shifted by `step`."""
    return slice(max(step, 0), size + min(step, 0)), slice(max(-step, 0), size - max(step, 0))
