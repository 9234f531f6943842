"""The pictures of an analysis: which numbers they show, and their labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.features.mel import MelSpec
from distill.features.normalization import denormalize
from distill.latent.measures import UNITS
from distill.latent.report import Findings
from distill.plots.latent import save_map_picture, save_scree_picture, save_sweep_picture
from distill.runs.axes import Axes
from distill.runs.trained import TrainedRun

_SWEPT_AXES = 6
_SWEEP = (-2.0, -1.0, 0.0, 1.0, 2.0)
_MAPPED_SOUNDS = 5_000


def save_pictures(findings: Findings, run: TrainedRun, folder: Path, seed: int) -> None:
    """Write scree.png, map.png and sweep.png; the seed chooses the sounds on the map if there are over 5000."""
    report = findings.report
    save_scree_picture(np.array(report["variance_explained"]), report["names"], folder / "scree.png")
    _save_map(findings, folder / "map.png", seed)
    _save_sweep(findings, run, folder / "sweep.png")


def _save_map(findings: Findings, path: Path, seed: int) -> None:
    report, tensors = findings.report, findings.tensors
    rows = np.flatnonzero([variant == 0 for variant in report["rows"]["variant"]])
    if len(rows) > _MAPPED_SOUNDS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _MAPPED_SOUNDS, replace=False))
    centred = tensors["latents"].flatten(1) - tensors["mean"]
    coordinates = (centred @ tensors["components"][:2].T / tensors["scale"][:2]).numpy()
    labels = _labels(report, 2, with_share=True)
    if len(labels) < 2:
        coordinates, labels = np.pad(coordinates, ((0, 0), (0, 1))), [*labels, "no second axis"]
    strength = [max(map(abs, report["correlations"][name][:2])) for name in UNITS]
    feature = int(np.argmax(strength))
    name = list(UNITS)[feature]
    save_map_picture(
        coordinates[rows],
        [report["files"][report["rows"]["file"][row]] for row in rows.tolist()],
        path,
        labels=labels,
        values=tensors["features"][:, feature].double().numpy()[rows],
        value_name=name,
        unit=UNITS[name],
    )


@torch.no_grad()
def _save_sweep(findings: Findings, run: TrainedRun, path: Path) -> None:
    tensors = findings.tensors
    axes = Axes(findings.report["names"], *(tensors[name] for name in ("mean", "components", "scale")))
    count = min(_SWEPT_AXES, len(axes.names))
    mean = axes.mean.unflatten(0, tuple(tensors["latents"].shape[1:]))
    z = torch.stack([axes.move(mean, axis, value) for axis in range(count) for value in _SWEEP])
    decoded = denormalize(run.model.decode(z.to(next(run.model.parameters()).device)).cpu(), run.stats)
    feature = run.config.features
    save_sweep_picture(
        decoded[:, 0].unflatten(0, (count, len(_SWEEP))).numpy(),
        _SWEEP,
        _labels(findings.report, count),
        path,
        centres=MelSpec.of(feature).centres_hz(),
        duration_s=decoded.shape[3] * feature.hop_length / feature.sample_rate,
    )


def _labels(report: dict[str, Any], count: int, *, with_share: bool = False) -> list[str]:
    """Return the labels of the first axes."""
    labels = []
    for number, (name, share) in enumerate(zip(report["names"], report["variance_explained"], strict=True), 1):
        named = "" if name == f"axis{number}" else f" ({name.replace('_', ' ')})"
        labels.append(f"axis {number}{named}" + (f", {share:.0%} of the variance" if with_share else ""))
    return labels[:count]
