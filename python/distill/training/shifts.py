"""Rows moved a little in time and in mel: more to learn from than the cache holds."""

from __future__ import annotations

import torch
from torch import Tensor

_TIME_SHARE = 0.4
_BANDS_A_MEL_BAND = 64


def shift_rows(rows: Tensor, share: float, silence: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Move a share of the rows, each by a step of its own, up to 40 % of their frames and a 64th of their bands.

    Whole frames, so a row is what its sound is when it comes sooner or later, but for the frames at the edge; bands are
    so few that what else a shift of pitch would change is small. Silence moves in.

    Parameters
    ----------
    rows : Tensor [B, C, M, T]
        Z-scored features.
    share : float
        Chance of each row to be moved, from 0 to 1.
    silence : Tensor [C, 1, 1]
        Each channel's value where there is no sound, as `silence_of` gives it.
    generator : torch.Generator, optional
        On the CPU. Default: torch's own.

    Returns
    -------
    Tensor [B, C, M, T]
        New where a row was moved; otherwise `rows`.
    """
    if not share:
        return rows
    count, _, n_mels, n_frames = rows.shape
    frames, bands = int(_TIME_SHARE * n_frames), n_mels // _BANDS_A_MEL_BAND
    # Drawn on the CPU, whose generator a run saves, and all at once, so that no row's draw hangs on another's.
    chosen = (torch.rand(count, generator=generator) < share).tolist()
    later = torch.randint(-frames, frames + 1, (count,), generator=generator).tolist()
    higher = torch.randint(-bands, bands + 1, (count,), generator=generator).tolist()
    moved = rows.clone()
    silence = silence.to(rows.device)
    for row in (row for row in range(count) if chosen[row]):
        to_mels, from_mels = _overlap(n_mels, higher[row])
        to_frames, from_frames = _overlap(n_frames, later[row])
        moved[row] = silence
        moved[row, :, to_mels, to_frames] = rows[row, :, from_mels, from_frames]
    return moved


def _overlap(size: int, step: int) -> tuple[slice, slice]:
    """Where a line moved by `step` lands, and where what lands there comes from."""
    return slice(max(step, 0), size + min(step, 0)), slice(max(-step, 0), size - max(step, 0))
