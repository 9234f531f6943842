"""The levels that are kept with a model: by how much its output is raised, and those of the rows it draws near."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.features.inversion.limits import limit_features
from distill.features.level import level_of, median_error_db
from distill.features.normalization import denormalize
from distill.models.store import MOST_GAIN_DB
from distill.models.vae import ConvVAE

LEVEL_ROWS = 64
"""Validation rows that the gain is measured on."""

_BATCH = 32


@torch.no_grad()
def measure_gain(model: ConvVAE, held_out: Tensor, stats: dict[str, float]) -> float:
    """Measure the gain, dB, after which the median error of the level of `held_out` is 0.

    The model predicts means of log powers, and such a mean lies below the log of the mean power. Its output is
    therefore too quiet. Training rows, which it fits better, would show only a part of that; docs/notes/sound.md has
    figures.

    Parameters
    ----------
    model : ConvVAE
        In eval mode.
    held_out : Tensor [N, C, M, T]
        Validation rows, normalised.
    stats : dict
        Means and standard deviations of the features.
    """
    device = next(model.parameters()).device
    outputs = torch.cat([model(rows.to(device))[0].cpu() for rows in held_out.split(_BATCH)])
    outputs = limit_features(denormalize(outputs, stats), stats["mag_std"])
    gain = -median_error_db(outputs, denormalize(held_out, stats))
    return round(min(max(gain, -MOST_GAIN_DB), MOST_GAIN_DB), 2)


def levels_of(rows: Tensor, stats: dict[str, float]) -> list[float]:
    """Return the level of each of normalised rows [K, C, M, T], dB."""
    levels = torch.cat([level_of(denormalize(part, stats)) for part in rows.split(_BATCH)])
    return [round(value, 1) for value in levels.tolist()]
