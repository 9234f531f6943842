"""The analysed axes of a latent space: how they are kept in a run folder, found by name, and moved along."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from distill import _native
from distill.errors import ConfigError, RunError
from distill.models.store import WEIGHTS_NAME

LATENT_NAME = "latent"
TENSORS_NAME = "analysis.safetensors"
REPORT_NAME = "analysis.json"
_FORMAT = "1"


@dataclass(frozen=True)
class Axes:
    """Principal axes of a dataset's latent vectors, most variance first.

    Attributes
    ----------
    names : list of str
        One an axis, all different.
    mean : Tensor [L]
        Mean latent vector, float32.
    components : Tensor [K, L]
        Orthonormal directions, float32.
    scale : Tensor [K]
        Standard deviation of the latent vectors along each axis, float32, > 0.
    """

    names: list[str]
    mean: Tensor
    components: Tensor
    scale: Tensor

    def index(self, name_or_number: str) -> int:
        """The row of `components` that a name, or a number from 1, stands for.

        Raises
        ------
        ConfigError
            If there is no such axis.
        """
        if name_or_number in self.names:
            return self.names.index(name_or_number)
        # By its number of digits first: Python refuses to convert thousands.
        if name_or_number.isdecimal() and len(name_or_number) < 10 and 1 <= int(name_or_number) <= len(self.names):
            return int(name_or_number) - 1
        named = ", ".join(f"{number} ({name})" for number, name in enumerate(self.names[:12], 1))
        more = f" and more, up to {len(self.names)}" if len(self.names) > 12 else ""
        raise ConfigError(
            [f"no axis {name_or_number!r}; there are {named}{more}"],
            "axes are named by: distill analyze RUN",
        )

    def move(self, z: Tensor, axis: int, value: float) -> Tensor:
        """Latent vectors moved along an axis: ``z + value * scale[axis] * components[axis]``.

        Parameters
        ----------
        z : Tensor [..., L]
            Latent vectors, on any device.
        axis : int
            As `index` gives it.
        value : float
            How far, in standard deviations of the analysed sounds.

        Returns
        -------
        Tensor [..., L]
        """
        return z + value * (self.scale[axis] * self.components[axis]).to(z.device, z.dtype)


def weights_hash(run_dir: str | os.PathLike[str]) -> str:
    """BLAKE3, in hex, of a run's weights: an analysis says nothing of any others.

    Raises
    ------
    RunError
        If there are none that can be read.
    """
    path = Path(run_dir) / WEIGHTS_NAME
    try:
        return _native.hash_file(path).hex()
    except OSError as error:
        raise RunError(
            f"{path}: cannot be read: {error.strerror or error}", "name the run folder of a finished training"
        ) from error


def metadata(axes_names: list[str], run_dir: str | os.PathLike[str]) -> dict[str, str]:
    """What stands beside the tensors, so that one file, whole or not at all, is enough to move along axes by name."""
    return {"format": _FORMAT, "names": json.dumps(axes_names), "weights": weights_hash(run_dir)}


def read_axes(run_dir: str | os.PathLike[str]) -> Axes:
    """The axes that `distill analyze` found in a run.

    Parameters
    ----------
    run_dir : path
        The run folder.

    Raises
    ------
    RunError
        If the run was not analysed, the analysis is damaged, or it is of other weights than the run has now.
    """
    path = Path(run_dir) / LATENT_NAME / TENSORS_NAME
    tip = f"run: distill analyze {run_dir}"
    if not path.exists():
        raise RunError(f"{run_dir}: its latent space has not been analysed: {path} is missing", tip)
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            mean, components, scale = (file.get_tensor(name) for name in ("mean", "components", "scale"))
        names = json.loads(about.get("names", "null"))
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"{path}: damaged: {error}", tip) from error
    is_whole = (
        about.get("format") == _FORMAT
        and isinstance(names, list)
        and mean.ndim == 1
        and components.shape == (len(names), len(mean))
        and scale.shape == (len(names),)
        and all(tensor.dtype == torch.float32 for tensor in (mean, components, scale))
    )
    if not is_whole:
        raise RunError(f"{path}: damaged, or written by another version of distill", tip)
    if about.get("weights") != weights_hash(run_dir):
        raise RunError(f"{path}: the run has been trained on since it was analysed", tip)
    return Axes(names, mean, components, scale)
