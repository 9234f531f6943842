"""The level of features: the power of a sound as its mel bands have it, and features with another level."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_BOOST_DB = 30.0
"""How much a level is raised at most, so that what is next to silence does not become loud."""

# How much the other frames of a row are raised for those that are limited. The rest of a drum must not become a drone.
_MOST_RETURNED_DB = 3.0
# Relative to the loudest row; above it, a row counts as audible.
_AUDIBLE_DB = -60.0
_TINY = 1e-20
_LIMITING_STEPS = 4


def level_of(features: Tensor) -> Tensor:
    """Return the level of features [B, C, M, T] before normalisation, dB, [B].

    The bands are triangles that overlap by half, so the sum of their powers is the power of a frame; the level is that
    of the mean over frames. The inverse keeps it within 0.3 dB, so differences of it are differences of the sound's.
    """
    return to_db(features[:, 0].clamp_min(0.0).expm1().sum(dim=1).mean(dim=1))


def to_db(power: Tensor) -> Tensor:
    """Return powers in dB; -200 for silence."""
    return 10 * power.clamp_min(_TINY).log10()


def total_db(levels: Tensor) -> Tensor:
    """Return the level of the mean power of `levels` [N], dB, a scalar."""
    return to_db((10 ** (levels / 10)).mean())


def change_level(features: Tensor, change_db: Tensor | float) -> Tensor:
    """Return features [B, C, M, T] before normalisation with their power changed by `change_db`: [B, T], [B] or one."""
    factor = 10 ** (torch.as_tensor(change_db, dtype=torch.float32).to(features) / 10)
    factor = factor[:, None, None] if factor.ndim == 2 else factor.reshape(-1, 1, 1, 1)
    power = features[:, :1].clamp_min(0.0).expm1() * factor
    return torch.cat([power.log1p(), features[:, 1:]], dim=1)


def hold_level(features: Tensor, target_db: Tensor) -> tuple[Tensor, Tensor]:
    """Return features [B, C, M, T] with the levels `target_db` [B], and by how much they were changed, dB, [B].

    They are raised by at most `MOST_BOOST_DB`.
    """
    change = (target_db.to(features) - level_of(features)).clamp_max(MOST_BOOST_DB)
    return change_level(features, change), change


def limit_frames(features: Tensor, n_fft: int, target_db: Tensor) -> Tensor:
    """Return features [B, C, M, T] in which no frame is louder than a sine with a peak of 1, or than `target_db` [B].

    Few frames of a source are louder than that sine, or, as in a square wave, most are. What a frame loses is given to
    the other frames of its row, which are raised by at most 3 dB.
    """
    power = features[:, 0].clamp_min(0.0).expm1().sum(dim=1)
    highest = (10 ** (target_db.to(power) / 10)).clamp_min(3 / 32 * n_fft**2)[:, None]
    if (power <= highest).all():
        return features
    limited = torch.minimum(power, highest)
    for _ in range(_LIMITING_STEPS):
        raised = limited * (power.sum(dim=1) / limited.sum(dim=1).clamp_min(_TINY))[:, None]
        most = torch.minimum(power * 10 ** (_MOST_RETURNED_DB / 10), highest)
        limited = torch.minimum(raised, most)
    return change_level(features, to_db(limited) - to_db(power))


def median_error_db(outputs: Tensor, inputs: Tensor) -> float:
    """Return the median of by how much `outputs` are louder than `inputs`, dB; 0 if no row of `inputs` is audible."""
    wanted = level_of(inputs)
    errors = level_of(outputs) - wanted
    is_used = (wanted > wanted.max() + _AUDIBLE_DB) & errors.isfinite() & inputs[:, 0].any(2).any(1)
    return float(errors[is_used].median()) if is_used.any() else 0.0
