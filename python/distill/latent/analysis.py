"""A run's latent space: what its axes are, what they go with, and which sounds lie close; written into the run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor

from distill.device import resolve_device
from distill.errors import CacheError, NothingUsableError, StorageError
from distill.features.mel import MelSpec
from distill.features.normalization import denormalize
from distill.features.spectrogram import ComplexSpectrogram
from distill.index import Dataset
from distill.latent.decomposition import Principal, correlations, name_axes, nearest, principal_axes
from distill.latent.measures import UNITS, measure
from distill.latent.rows import Place, Rows
from distill.models import ConvVAE, load_model
from distill.models.losses import kl_of_units
from distill.models.store import load_description
from distill.plots.latent import save_map_picture, save_scree_picture, save_sweep_picture
from distill.runs.axes import LATENT_NAME, REPORT_NAME, TENSORS_NAME, metadata, read_axes
from distill.runs.folder import RunFolder
from distill.storage import is_full, write_atomically
from distill.types import PathLike, ProgressCallback

ACTIVE_VARIANCE = 0.01
"""Variance over the dataset of a unit's posterior mean above which it counts as active."""

_NEIGHBOURS = 5
_EFFECT_ROWS = 4
_EFFECT_STEP = 0.5
_EFFECT_UNITS = 16
_SWEPT_AXES = 6
_SWEEP = (-2.0, -1.0, 0.0, 1.0, 2.0)
_MAPPED_SOUNDS = 5_000


@dataclass(frozen=True)
class Analysis:
    """What `analyze` found.

    Attributes
    ----------
    folder : Path
        RUN/latent, where all of it is kept.
    report : dict
        What analysis.json holds.
    tensors : dict of Tensor
        What analysis.safetensors holds: latents [N, L], mean [L], components [K, L], scale [K] and features [N, F],
        float32.
    """

    folder: Path
    report: dict[str, Any]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class _Encoded:
    """A dataset as a model sees it."""

    latents: Tensor
    """Posterior means, [N, L], float32."""
    features: Tensor
    """[N, F], float64."""
    kl: Tensor
    """Of each unit, mean over the rows, nats, [L]."""
    places: list[Place]


def analyze(
    run_dir: PathLike,
    dataset_dir: PathLike | None = None,
    *,
    cache_dir: PathLike | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Analysis:
    """Analyse the latent space of a run by the sounds of a dataset, and write the result to RUN/latent.

    It replaces what is there, also the axes that `generate` moves along.

    Rows are the cache's, variants too, or for a one-channel run decoded; what is not in the cache yet is computed.

    Parameters
    ----------
    run_dir : path
        The run folder.
    dataset_dir : path, optional
        The folder of audio. Default: the run's own.
    cache_dir : path, optional
        Where its features are kept. Default: the run's, for the run's own dataset, else DATASET/.cache.
    device : str
        Where the model runs: "auto", "cpu", "cuda", "cuda:N" or "mps". Default: "auto".
    seed : int
        Of the choice of sounds that the map shows where there are over 5000; nothing else is drawn. Default: 0.
    progress : callable, optional
        Called with (stage, current, total), of preprocessing, then "encode" ("decode" for a one-channel run), "effect"
        and "neighbours".

    Returns
    -------
    Analysis

    Raises
    ------
    RunError
        If this is no run with a trained model.
    DatasetError, NothingUsableError
        If there are fewer than two rows, or all are alike to the model.
    CacheError
        If the cache is damaged or of another configuration.
    DeviceError
        If there is no such device.
    StorageError
        If the cache or the result cannot be written.
    """
    run = RunFolder(run_dir)
    own, config = run.dataset(), run.config()
    model = load_model(run_dir, resolve_device(device))
    is_own = dataset_dir is None or os.path.realpath(dataset_dir) == os.path.realpath(own.folder)
    sounds = own if is_own else Dataset(dataset_dir, follow_links=own.follow_links)
    dataset = Rows(
        dataset=sounds if cache_dir is None else replace(sounds, cache_dir=cache_dir),
        config=config,
        stats=load_description(run_dir)["statistics"],
        device=device,
        progress=progress or (lambda stage, current, total: None),
    )
    encoded = _encode(model, dataset)
    effect = _effect(model, encoded.latents, dataset.progress)
    principal = principal_axes(encoded.latents, effect)
    if not len(principal.scale):
        rows = f"{len(encoded.latents)} rows" if len(encoded.latents) > 1 else "one row of features"
        alike = ", all alike to the model," if len(encoded.latents) > 1 else ""
        raise NothingUsableError(
            f"{dataset.dataset.path}: {rows}{alike} cannot be analysed", "give two sounds that differ"
        )
    analysis = _analysis(run.path, encoded, effect, principal, dataset)
    try:
        analysis.folder.mkdir(exist_ok=True)
        content = save(analysis.tensors, metadata(analysis.report["names"], run_dir))
        write_atomically(analysis.folder / TENSORS_NAME, content)
        write_atomically(analysis.folder / REPORT_NAME, _readable(analysis.report).encode())
        _draw(analysis, model, encoded.places, dataset, seed)
    except OSError as error:
        tip = "make room" if is_full(error) else "make it writable, or analyse a copy of the run"
        raise StorageError(f"{analysis.folder}: cannot be written: {error.strerror or error}", tip) from error
    return analysis


@torch.no_grad()
def _encode(model: ConvVAE, dataset: Rows) -> _Encoded:
    device = next(model.parameters()).device
    config = dataset.config
    spectrogram = ComplexSpectrogram(config.complex_spectrogram)
    centres = torch.from_numpy(MelSpec.of(config.features).centres_hz())
    latents, features = [], []
    kl = torch.zeros(model.latent_dim, dtype=torch.float64)
    for batch in dataset.batches():
        if tuple(batch.shape[1:]) != model.row_shape:
            raise CacheError(
                f"{dataset.dataset.path}: rows {list(batch.shape[1:])} do not fit the model's {list(model.row_shape)}",
                "put back the config.toml that the run was trained with",
            )
        mu, logvar = model.encode(batch.to(device))
        kl += kl_of_units(mu, logvar).cpu().double().sum(dim=0)
        latents.append(mu.cpu())
        rows = denormalize(batch, dataset.stats)
        hertz = spectrogram.to_hertz(rows) if rows.shape[1] == 2 else None
        features.append(measure(rows, centres, hertz, n_fft=config.features.n_fft))
    joined = torch.cat(latents)
    return _Encoded(joined, torch.cat(features), kl / len(joined), dataset.places)


@torch.no_grad()
def _effect(model: ConvVAE, latents: Tensor, progress: ProgressCallback) -> Tensor:
    """How much a step of each unit changes the decoded magnitude, root mean square a unit of the latent, [L].

    By differences at a few of the latent vectors; at fifty, axes and shares are the same to within 0.02.
    """
    device = next(model.parameters()).device
    z = latents[:: max(1, len(latents) // _EFFECT_ROWS)][:_EFFECT_ROWS].to(device)
    before = model.decode(z)[:, 0]
    effects = []
    for units in torch.arange(model.latent_dim, device=device).split(_EFFECT_UNITS):
        step = _EFFECT_STEP * F.one_hot(units, model.latent_dim)
        after = model.decode((z + step[:, None]).flatten(0, 1))[:, 0].unflatten(0, (len(units), len(z)))
        effects.append((after - before).square().mean(dim=(1, 2, 3)).sqrt().cpu() / _EFFECT_STEP)
        progress("effect", int(units[-1]) + 1, model.latent_dim)
    return torch.cat(effects)


def _analysis(run_dir: Path, encoded: _Encoded, effect: Tensor, principal: Principal, dataset: Rows) -> Analysis:
    originals = [row for row, place in enumerate(encoded.places) if place.variant == 0]
    coordinates = (encoded.latents.double() - principal.mean) @ principal.components.T
    r, constant = correlations(coordinates, encoded.features)
    names, feature_of = name_axes(r, principal.share, list(UNITS), len(originals))
    # More along an axis is more of what it is named after.
    sign = torch.tensor(
        [-1.0 if of is not None and r[of, axis] < 0 else 1.0 for axis, of in enumerate(feature_of)]
    ).double()
    r, coordinates = r * sign, coordinates * sign
    numbers = _numbers(encoded, principal._replace(components=principal.components * sign[:, None]))
    report = {
        "dataset": str(dataset.dataset.path.absolute()),
        "n": len(encoded.latents),
        "n_chunks": len(originals),
        "latent_dim": encoded.latents.shape[1],
        "names": names,
        "variance_explained": principal.share.tolist(),
        "correlations": {name: r[row].tolist() for row, name in enumerate(UNITS)},
        "constant": [name for name, is_constant in zip(UNITS, constant, strict=True) if is_constant],
        "units": UNITS,
        "active_units": int((_variance(encoded.latents) > ACTIVE_VARIANCE).sum()),
        "kl": encoded.kl.tolist(),
        "effect": effect.tolist(),
        "ranges": _ranges(coordinates, principal.scale),
        **_neighbours(encoded, originals, dataset),
    }
    return Analysis(run_dir / LATENT_NAME, report, numbers)


def _numbers(encoded: _Encoded, principal: Principal) -> dict[str, Tensor]:
    tensors = {
        "latents": encoded.latents,
        "mean": principal.mean,
        "components": principal.components,
        "scale": principal.scale,
        "features": encoded.features,
    }
    return {name: tensor.float().contiguous() for name, tensor in tensors.items()}


def _variance(latents: Tensor) -> Tensor:
    return latents.double().var(dim=0, correction=0)


def _ranges(coordinates: Tensor, scale: Tensor) -> list[dict[str, float]]:
    """Of each axis: 1st and 99th percentile, in standard deviations from the mean, and the standard deviation."""
    low, high = np.quantile((coordinates / scale).numpy(), [0.01, 0.99], axis=0)
    return [
        {"low": least, "high": most, "std": std}
        for least, most, std in zip(low.tolist(), high.tolist(), scale.tolist(), strict=True)
    ]


def _neighbours(encoded: _Encoded, originals: Sequence[int], dataset: Rows) -> dict[str, Any]:
    """Which sound each row is of, and the originals that lie nearest to it."""
    places = encoded.places
    numbers: dict[tuple[str, int], int] = {}
    chunk_of = [numbers.setdefault((place.file, place.chunk), len(numbers)) for place in places]
    k = min(_NEIGHBOURS, len(originals) - 1)
    indices, distances = nearest(
        encoded.latents,
        torch.tensor(originals),
        torch.tensor(chunk_of),
        k,
        lambda current, total: dataset.progress("neighbours", current, total),
    )
    files = {file: number for number, file in enumerate(dict.fromkeys(place.file for place in places))}
    return {
        "files": list(files),
        "rows": {
            "file": [files[place.file] for place in places],
            "offset_s": [place.offset_s for place in places],
            "variant": [place.variant for place in places],
        },
        "neighbours": {"k": k, "indices": indices.tolist(), "distances": distances.tolist()},
    }


def _draw(analysis: Analysis, model: ConvVAE, places: Sequence[Place], dataset: Rows, seed: int) -> None:
    report = analysis.report
    save_scree_picture(np.array(report["variance_explained"]), report["names"], analysis.folder / "scree.png")
    _draw_map(analysis, places, seed)
    _draw_sweep(analysis, model, dataset)


def _draw_map(analysis: Analysis, places: Sequence[Place], seed: int) -> None:
    report, tensors = analysis.report, analysis.tensors
    rows = np.flatnonzero([place.variant == 0 for place in places])
    if len(rows) > _MAPPED_SOUNDS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _MAPPED_SOUNDS, replace=False))
    coordinates = ((tensors["latents"] - tensors["mean"]) @ tensors["components"][:2].T / tensors["scale"][:2]).numpy()
    labels = _labels(report, 2, with_share=True)
    if len(labels) < 2:
        coordinates, labels = np.pad(coordinates, ((0, 0), (0, 1))), [*labels, "no second axis"]
    strength = [max(map(abs, report["correlations"][name][:2])) for name in UNITS]
    feature = int(np.argmax(strength))
    name = list(UNITS)[feature]
    save_map_picture(
        coordinates[rows],
        [places[row].file for row in rows.tolist()],
        analysis.folder / "map.png",
        labels=labels,
        values=tensors["features"][:, feature].double().numpy()[rows],
        value_name=name,
        unit=UNITS[name],
    )


@torch.no_grad()
def _draw_sweep(analysis: Analysis, model: ConvVAE, dataset: Rows) -> None:
    axes = read_axes(analysis.folder.parent)
    count = min(_SWEPT_AXES, len(axes.names))
    z = torch.stack([axes.move(axes.mean, axis, value) for axis in range(count) for value in _SWEEP])
    rows = denormalize(model.decode(z.to(next(model.parameters()).device)).cpu(), dataset.stats)
    feature = dataset.config.features
    save_sweep_picture(
        rows[:, 0].unflatten(0, (count, len(_SWEEP))).numpy(),
        _SWEEP,
        _labels(analysis.report, count),
        analysis.folder / "sweep.png",
        centres=MelSpec.of(dataset.config.features).centres_hz(),
        duration_s=rows.shape[3] * feature.hop_length / feature.sample_rate,
    )


def _labels(report: dict[str, Any], count: int, *, with_share: bool = False) -> list[str]:
    """What the first axes are called in pictures."""
    labels = []
    for number, (name, share) in enumerate(zip(report["names"], report["variance_explained"], strict=True), 1):
        named = "" if name == f"axis{number}" else f" ({name.replace('_', ' ')})"
        labels.append(f"axis {number}{named}" + (f", {share:.0%} of the variance" if with_share else ""))
    return labels[:count]


def _readable(report: dict[str, Any]) -> str:
    """JSON with a line for each of its fields."""
    lines = (f"  {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in report.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"
