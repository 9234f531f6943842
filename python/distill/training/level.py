"""The levels that are kept with a model: by how much its output is raised, and those of the rows it draws near."""

from __future__ import annotations

from typing import Any

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
def measure_level(model: ConvVAE, held_out: Tensor, latent_rows: Tensor, stats: dict[str, float]) -> dict[str, Any]:
    """Measure the levels of a model.

    The model predicts means of log powers, and such a mean lies below the log of the mean power. Its output is
    therefore too quiet. Training rows, which it fits better, would show only a part of that; docs/notes/sound.md has
    figures.

    Parameters
    ----------
    model : ConvVAE
        In eval mode.
    held_out : Tensor [N, C, M, T]
        Validation rows, normalised.
    latent_rows : Tensor [K, C, M, T]
        Training rows, normalised, whose latent vectors samples are drawn near.
    stats : dict
        Means and standard deviations of the features.

    Returns
    -------
    dict
        `gain_db`: the gain after which the median error of the level of `held_out` is 0. `rows_db`: the level of each
        of `latent_rows`.
    """
    device = next(model.parameters()).device
    outputs = torch.cat([model(rows.to(device))[0].cpu() for rows in held_out.split(_BATCH)])
    outputs = limit_features(denormalize(outputs, stats), stats["mag_std"])
    gain = -median_error_db(outputs, denormalize(held_out, stats))
    rows = torch.cat([level_of(denormalize(rows, stats)) for rows in latent_rows.split(_BATCH)])
    return {
        "gain_db": round(min(max(gain, -MOST_GAIN_DB), MOST_GAIN_DB), 2),
        "rows_db": [round(value, 1) for value in rows.tolist()],
    }
