"""The result of an analysis: the numbers that are written, and a report of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.index import Dataset
from distill.latent.decomposition import PrincipalAxes, correlations, name_axes, nearest
from distill.latent.encoding import Encoded
from distill.latent.measures import UNITS
from distill.types import ProgressCallback

ACTIVE_VARIANCE = 0.01
"""Variance over the dataset of the posterior mean of a latent unit above which the unit counts as active."""

_NEIGHBOURS = 5
# Above this many originals, a sample of them is searched for neighbours: the time then grows in proportion to the rows.
_CANDIDATES = 30_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Findings:
    """The numbers of an analysis.

    Attributes
    ----------
    report : dict
        The contents of analysis.json.
    tensors : dict of Tensor
        The contents of analysis.safetensors: latents [N, L, k], mean [L·k], components [K, L·k], scale [K] and
        features [N, F], float32.
    """

    report: dict[str, Any]
    tensors: dict[str, Tensor]


def summarize(
    encoded: Encoded, effects: Tensor, principal: PrincipalAxes, dataset: Dataset, progress: ProgressCallback
) -> Findings:
    """Name the axes, find the neighbours, and put all numbers of an analysis together."""
    originals = [row for row, place in enumerate(encoded.places) if place.variant == 0]
    flat = encoded.latents.flatten(1)
    coordinates = (flat.double() - principal.mean) @ principal.components.T
    r, constant = correlations(coordinates, encoded.features)
    names, feature_of = name_axes(r, principal.share, list(UNITS), len(originals))
    sign = _signs(r, feature_of)
    r, coordinates = r * sign, coordinates * sign
    variance = encoded.latents.flatten(0, 1).double().var(dim=0, correction=0)
    report = {
        "dataset": str(dataset.path.absolute()),
        "n": len(encoded.latents),
        "n_chunks": len(originals),
        "latent_dim": encoded.latents.shape[2],
        "n_latents": encoded.latents.shape[1],
        "names": names,
        "is_course": principal.is_course.tolist(),
        "variance_explained": principal.share.tolist(),
        "correlations": {name: r[row].tolist() for row, name in enumerate(UNITS)},
        "constant": [name for name, is_constant in zip(UNITS, constant, strict=True) if is_constant],
        "units": UNITS,
        "active_units": int((variance > ACTIVE_VARIANCE).sum()),
        "kl": encoded.kl.tolist(),
        "effect": effects.tolist(),
        "ranges": _ranges(coordinates, principal.scale),
        **_places_and_neighbours(encoded, originals, progress),
    }
    tensors = {
        "latents": encoded.latents,
        "mean": principal.mean,
        "components": principal.components * sign[:, None],
        "scale": principal.scale,
        "features": encoded.features,
    }
    return Findings(report, {name: tensor.float().contiguous() for name, tensor in tensors.items()})


def _signs(r: Tensor, feature_of: Sequence[int | None]) -> Tensor:
    """Return the sign for each axis that makes its correlation with the feature it is named after positive."""
    is_negative = [feature is not None and r[feature, axis] < 0 for axis, feature in enumerate(feature_of)]
    return torch.tensor([-1.0 if negative else 1.0 for negative in is_negative]).double()


def _ranges(coordinates: Tensor, scale: Tensor) -> list[dict[str, float]]:
    """Return the 1st and 99th percentile of each axis, in standard deviations from the mean, and its scale."""
    low, high = np.quantile((coordinates / scale).numpy(), [0.01, 0.99], axis=0)
    return [
        {"low": least, "high": most, "std": std}
        for least, most, std in zip(low.tolist(), high.tolist(), scale.tolist(), strict=True)
    ]


def _places_and_neighbours(encoded: Encoded, originals: Sequence[int], progress: ProgressCallback) -> dict[str, Any]:
    """Return the place of each row, and its nearest neighbours among the originals, or a sample if there are many."""
    places = encoded.places
    chunks: dict[tuple[str, int], int] = {}
    chunk_of = [chunks.setdefault((place.paths[0], place.chunk), len(chunks)) for place in places]
    # Evenly spaced: the order of the rows, by content hash, is random.
    count = min(len(originals), _CANDIDATES)
    candidates = [originals[number * len(originals) // count] for number in range(count)]
    if count < len(originals):
        logger.info("neighbours are those among %d of the %d original rows", count, len(originals))
    k = min(_NEIGHBOURS, count - 1)
    indices, distances = nearest(
        encoded.latents.flatten(1),
        torch.tensor(candidates),
        torch.tensor(chunk_of),
        k,
        lambda current, total: progress("neighbours", current, total),
    )
    files = {file: number for number, file in enumerate(dict.fromkeys(place.paths[0] for place in places))}
    return {
        "files": list(files),
        "rows": {
            "file": [files[place.paths[0]] for place in places],
            "offset_s": [place.start_s for place in places],
            "variant": [place.variant for place in places],
        },
        "neighbours": {"k": k, "candidates": count, "indices": indices.tolist(), "distances": distances.tolist()},
    }
