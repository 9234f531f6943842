"""Files of a trained model: `model.safetensors` with its weights, `model.json` with architecture and features."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from distill import __version__
from distill.device import resolve_device
from distill.errors import RunError
from distill.models.vae import ConvVAE
from distill.storage import write_atomically

WEIGHTS_NAME = "model.safetensors"
DESCRIPTION_NAME = "model.json"
_FORMAT = 3


def save_model(
    run_dir: str | os.PathLike[str],
    model: ConvVAE,
    *,
    features: Mapping[str, Any],
    statistics: Mapping[str, Any],
    **extra: Any,
) -> None:
    """Write a model to `run_dir`. Each file is replaced atomically.

    Parameters
    ----------
    run_dir : path
        The run folder; created if it does not exist.
    model : ConvVAE
        On any device; its weights keep their precision.
    features : mapping
        Configuration of the features, as plain JSON values.
    statistics : mapping
        Means and standard deviations that the features are normalised with, as plain JSON values.
    **extra
        Further plain JSON values for `model.json`.

    Raises
    ------
    ValueError
        If a value cannot be written as JSON, or `extra` has the name of a field of `model.json`.
    OSError
        If the folder cannot be written.
    """
    description = {
        "format": _FORMAT,
        "distill_version": __version__,
        "architecture": model.config,
        "features": dict(features),
        "statistics": dict(statistics),
    }
    if clash := sorted(description.keys() & extra.keys()):
        raise ValueError(f"extra {clash[0]!r} is already a field of {DESCRIPTION_NAME}")
    try:
        text = json.dumps(description | extra, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"{DESCRIPTION_NAME}: {error}") from error
    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(folder / WEIGHTS_NAME, save(weights))
    # Last, so that a new folder has a description only once its weights are complete.
    write_atomically(folder / DESCRIPTION_NAME, text.encode())


def load_model(run_dir: str | os.PathLike[str], device: str | torch.device = "cpu") -> ConvVAE:
    """Load a model that `save_model` wrote, and return it in eval mode.

    Parameters
    ----------
    run_dir : path
        The run folder.
    device : str or torch.device
        Device of the returned model. Default: "cpu".

    Raises
    ------
    RunError
        If a file is missing or damaged, or the weights do not fit the description.
    DeviceError
        If the machine has no such device.
    """
    device = resolve_device(device)
    description = load_description(run_dir)
    path = Path(run_dir) / WEIGHTS_NAME
    try:
        model = ConvVAE(**description["architecture"])
    except (TypeError, ValueError) as error:
        reason = f"architecture cannot be built: {error}"
        raise RunError(f"{Path(run_dir) / DESCRIPTION_NAME}: {reason}", _remedy(run_dir)) from error
    try:
        weights = load(_read(path))
    except SafetensorError as error:
        raise RunError(f"{path}: damaged: {error}", _remedy(run_dir)) from error
    if fault := _first_difference(model.state_dict(), weights):
        raise RunError(f"{path}: does not fit {DESCRIPTION_NAME}: {fault}", _remedy(run_dir))
    model.load_state_dict(weights)
    return model.to(device).eval()


def load_description(run_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the contents of `model.json`: architecture, features, statistics, distill_version and any extra fields.

    Raises
    ------
    RunError
        If the file is missing or damaged, or has another format version.
    """
    path = Path(run_dir) / DESCRIPTION_NAME
    try:
        description = json.loads(_read(path))
    except ValueError as error:
        raise RunError(f"{path}: damaged: {error}", _remedy(run_dir)) from error
    if not isinstance(description, dict):
        raise RunError(f"{path}: damaged: it holds no object", _remedy(run_dir))
    if description.get("format") != _FORMAT:
        reason = f"format={description.get('format')!r} must be {_FORMAT}"
        raise RunError(f"{path}: {reason}", "load it with the version of distill that wrote it")
    for name in ("architecture", "features", "statistics"):
        if not isinstance(description.get(name), dict):
            raise RunError(f"{path}: damaged: {name!r} is missing", _remedy(run_dir))
    return description


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing", _remedy(path.parent)) from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}", _remedy(path.parent)) from error


def _remedy(run_dir: str | os.PathLike[str]) -> str:
    if any(Path(run_dir, "checkpoints").glob("*.pt")):
        return f"distill train --resume {shlex.quote(os.fspath(run_dir))} writes it again"
    return "train again into this folder, or name the run folder of a finished training"


def _first_difference(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> str | None:
    """Describe the first difference in names, shapes or types; None if there is none."""
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"{name!r} is missing"
        if name not in expected:
            return f"{name!r} is unknown"
        ours, theirs = expected[name], found[name]
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            return f"{name!r} is {_type_and_shape(theirs)}, must be {_type_and_shape(ours)}"
    return None


def _type_and_shape(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
