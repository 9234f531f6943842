"""Files of a trained model: `model.safetensors` with its weights, `model.json` with architecture and features."""

from __future__ import annotations

import json
import math
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
from distill.documents import check_table, load_json, read_document, read_file
from distill.errors import RunError
from distill.faults import Key, Rule, Table, at_least, between, shown, table_faults
from distill.models.vae import ConvVAE, add_time_axis
from distill.storage import write_atomically
from distill.text import printable

WEIGHTS_NAME = "model.safetensors"
DESCRIPTION_NAME = "model.json"
_FORMAT = 3

_MEAN = between(-1e30, 1e30)
_DEVIATION = between(1e-30, 1e30)
STATISTICS = Table(
    {
        "mag_mean": Key(float, _MEAN),
        "mag_std": Key(float, _DEVIATION),
        "if_mean": Key(float, _MEAN, is_required=False),
        "if_std": Key(float, _DEVIATION, is_required=False),
    }
)
"""Means and standard deviations that features are normalised with; limited so that float32 holds their quotients."""
_ARCHITECTURE = Table(
    {
        "in_channels": Key(int, between(1, 2)),
        **dict.fromkeys(("latent_dim", "n_mels", "n_frames"), Key(int, at_least(1))),
        "base_channels": Key(int, Rule(lambda v: v > 0 and v % 8 == 0, "a multiple of 8")),
        "dropout": Key(float, Rule(lambda v: 0 <= v < 1, "at least 0 and below 1")),
        # Missing in runs of versions in which a row had one latent vector.
        "latent_frames": Key(int, Rule(lambda v: v in (0, 4, 8, 16), "0, 4, 8 or 16"), is_required=False),
    },
    others=None,
)
_DESCRIPTION = Table({"architecture": _ARCHITECTURE, "features": Key(dict), "statistics": STATISTICS})
MOST_GAIN_DB = 12.0
"""How much the output of a model is made louder or quieter at most, dB."""
_LEVELS = Rule(
    lambda values: all(type(value) in (int, float) and abs(value) <= _MOST_LEVEL_DB for value in values),
    "a list of levels, dB",
)
_MOST_LEVEL_DB = 1e3
_LEVEL = Table({"gain_db": Key(float, between(-MOST_GAIN_DB, MOST_GAIN_DB)), "rows_db": Key(list, _LEVELS)})
# Models of earlier versions have none.
_DESCRIPTION_WITH_LEVEL = Table({**_DESCRIPTION.keys, "level": _LEVEL})


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
        Further plain JSON values for `model.json`, such as `level`: the model's `gain_db`, and the levels `rows_db` of
        the rows whose latent vectors it holds.

    Raises
    ------
    ValueError
        If a value cannot be written as JSON or read back, or `extra` has the name of a field of `model.json`.
    OSError
        If the folder cannot be written.

    Examples
    --------
    >>> from distill.models import ConvVAE, load_model, save_model
    >>> model = ConvVAE(in_channels=1, latent_dim=16)
    >>> save_model("saved", model, features={}, statistics={"mag_mean": 0.0, "mag_std": 1.0})
    >>> load_model("saved").config == model.config
    True
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
    if faults := table_faults(description | extra, _table_of(extra)):
        raise ValueError(f"{DESCRIPTION_NAME}: {'; '.join(faults)}")
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

    Returns
    -------
    ConvVAE

    Raises
    ------
    RunError
        If a file is missing or damaged, or the weights do not fit the description.
    DeviceError
        If the machine has no such device.

    Examples
    --------
    >>> from distill.models import load_model
    >>> model = load_model("runs/first")
    >>> model.config["latent_dim"]
    128
    """
    device = resolve_device(device)
    architecture = {"latent_frames": 0} | load_description(run_dir)["architecture"]
    path, remedy = Path(run_dir) / WEIGHTS_NAME, _remedy(run_dir)
    try:
        weights = load(read_file(path))
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing", remedy) from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}", remedy) from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path}: damaged: {printable(str(error)[:200])}", remedy) from error
    # The sizes first: what is built from them is then no larger than the file, whatever the description says.
    fault = _size_fault(architecture, weights)
    if fault is None:
        model = ConvVAE(**architecture)
        add_time_axis(weights)
        fault = _first_difference(model.state_dict(), weights)
    if fault:
        raise RunError(f"{path}: does not fit {DESCRIPTION_NAME}: {fault}", remedy)
    if wrong := [name for name, tensor in weights.items() if not bool(tensor.isfinite().all())]:
        raise RunError(f"{path}: {wrong[0]!r} holds values that are not finite", remedy)
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

    def parse(content: bytes) -> dict[str, Any]:
        description = check_table(load_json(content), Table({}))
        if (found := description.get("format")) != _FORMAT:
            remedy = "load it with the version of distill that wrote it"
            raise RunError(f"{path}: format={shown(found)} must be {_FORMAT}", remedy)
        return check_table(description, _table_of(description))

    return read_document(path, parse, _remedy(run_dir))


def _table_of(description: Mapping[str, Any]) -> Table:
    return _DESCRIPTION_WITH_LEVEL if "level" in description else _DESCRIPTION


def _remedy(run_dir: str | os.PathLike[str]) -> str:
    if any(Path(run_dir, "checkpoints").glob("*.pt")):
        return f"distill train --resume {shlex.quote(os.fspath(run_dir))} writes it again"
    return "train again into this folder, or name the run folder of a finished training"


def _size_fault(architecture: Mapping[str, Any], found: Mapping[str, torch.Tensor]) -> str | None:
    """Describe a difference in the tensors that tell the size of a model; None if there is none."""
    channels = architecture["in_channels"]
    expected = {
        "linear.components": [
            architecture["latent_dim"],
            math.prod((channels, architecture["n_mels"], architecture["latent_frames"] or architecture["n_frames"])),
        ],
        "encoder.0.0.weight": [architecture["base_channels"], channels, 3, 3],
    }
    for name, shape in expected.items():
        if name not in found:
            return f"{name!r} is missing"
        if list(found[name].shape) != shape:
            return f"{name!r} is {_type_and_shape(found[name])}, must be float32 {shape}"
    return None


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
