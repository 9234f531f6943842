"""The levels that generated sounds are held to: a level for each window of a sound, from those of known sounds."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from distill.features.level import change_level, hold_level, level_of, limit_frames, to_db, total_db
from distill.runs.instrument import BATCH_WINDOWS, Instrument

# What is quieter than the loudest window by more than this counts as silence, whose level has no meaning.
_RANGE_DB = 60.0
_BISECTIONS = 30


def audible_levels(levels: Tensor) -> Tensor:
    """Return levels [N] of windows, dB, with silent ones at the bottom of the range of the others."""
    return levels.clamp_min(float(levels.max()) - _RANGE_DB)


def interpolated_levels(start: Tensor, end: Tensor, fraction: float) -> Tensor:
    """Return levels [N] between those of two sounds [N]: dB are interpolated, for each window and for the whole sound.

    The mean power of a sound whose windows are interpolated would be below the line between the ends wherever these
    are loud at different times. So all windows are raised, but none above the louder of the two ends.
    """
    levels, highest = torch.lerp(start, end, fraction), torch.maximum(start, end)
    wanted = torch.lerp(total_db(start), total_db(end), fraction)
    low, high = 0.0, float((highest - levels).max())
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        is_less = total_db(torch.minimum(levels + middle, highest)) < wanted
        low, high = (middle, high) if is_less else (low, middle)
    return torch.minimum(levels + high, highest)


def filled_latents(start: tuple[Tensor, Tensor], end: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the latents [N, L, k] of the windows of two sounds, where one is silent those of the other one.

    `start` and `end` are latents [N, L, k] and `audible_levels` [N]. Between the latents of silence and of a sound, the
    model may decode silence, which cannot be held to a level.
    """
    is_silent = [(levels <= levels.max() - _RANGE_DB)[:, None, None] for _, levels in (start, end)]
    return (
        torch.where(is_silent[0] & ~is_silent[1], end[0], start[0]),
        torch.where(is_silent[1] & ~is_silent[0], start[0], end[0]),
    )


def varied_levels(source: Tensor, training: Tensor, radius: float) -> Tensor:
    """Return levels [N] of a variation: its source's, drawn towards the mean of `training`, as its latents are."""
    mean = training.mean()
    return mean + (source - mean) / math.sqrt(1 + radius**2)


def sampled_levels(anchors: Tensor, training: Tensor, temperature: float) -> Tensor:
    """Return levels [N] of a sample between anchors with the levels `anchors` [N], within the range of `training`.

    The temperature scales their distance from the mean.
    """
    mean = training.mean()
    return (mean + temperature * (anchors - mean)).clamp(training.min(), training.max())


class Hold:
    """Decodes latent vectors and holds the levels of their windows.

    Parameters
    ----------
    instrument : Instrument
    """

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self._n_fft = instrument.config.features.n_fft
        self._before = self._after = 0.0

    @property
    def change_db(self) -> float:
        """By how much the mean power of all windows decoded so far was changed, dB."""
        both = torch.tensor([self._before, self._after], dtype=torch.float64)
        return float(to_db(both).diff())

    def features(self, latents: Tensor, moved: Tensor, targets: Tensor) -> Iterator[Tensor]:
        """Yield features [b, C, M, T] of the latents of windows, `latents` [N, L, k], held to the levels `targets` [N].

        `moved` are the latents to decode instead; they are changed as much as `latents` would have been, so that a move
        along an axis of loudness is heard.
        """
        columns = (latents, moved, targets)
        for z, z_moved, target in zip(*(values.split(BATCH_WINDOWS) for values in columns), strict=True):
            decoded = self._instrument.decode(z)
            held, change = hold_level(decoded, target)
            held = limit_frames(held, self._n_fft, target)
            self._before += _power_of(decoded)
            self._after += _power_of(held)
            if not torch.equal(z, z_moved):
                held = limit_frames(change_level(self._instrument.decode(z_moved), change), self._n_fft, target)
            yield held


def _power_of(features: Tensor) -> float:
    return float((10 ** (level_of(features) / 10)).sum())
