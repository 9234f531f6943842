"""The principal axes of a latent space: how a run folder stores them, and how to move along them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from distill import _native
from distill.documents import load_json
from distill.errors import ConfigError, RunError
from distill.models.store import WEIGHTS_NAME
from distill.text import printable
from distill.types import PathLike

LATENT_NAME = "latent"
TENSORS_NAME = "analysis.safetensors"
REPORT_NAME = "analysis.json"
_FORMAT = "1"


@dataclass(frozen=True)
class Axes:
    """Principal axes of the latent vectors of a dataset, in order of decreasing variance.

    Attributes
    ----------
    names : list of str
        K different names.
    mean : Tensor [D]
        Mean of the latent vectors of a chunk, D = L·k, float32.
    components : Tensor [K, D]
        Directions of the axes, orthonormal, float32.
    scale : Tensor [K]
        Standard deviation of the chunks' latent vectors along each axis, positive, float32.

    Examples
    --------
    >>> from distill.runs import read_axes
    >>> axes = read_axes("runs/first")
    >>> mean = axes.mean.unflatten(0, (12, 128))  # L = 12 latent vectors of k = 128 values
    >>> axes.move(mean, axes.index("1"), 1.5).shape  # or by its name, as "spectral_centroid"
    torch.Size([12, 128])
    """

    names: list[str]
    mean: Tensor
    components: Tensor
    scale: Tensor

    def index(self, name_or_number: str) -> int:
        """Return the index in `components` of an axis.

        Parameters
        ----------
        name_or_number : str
            The name of an axis, or its number from 1.

        Raises
        ------
        ConfigError
            If there is no such axis.
        """
        if name_or_number in self.names:
            return self.names.index(name_or_number)
        # The length is checked first because int() refuses strings of thousands of digits.
        if name_or_number.isdecimal() and len(name_or_number) < 10 and 1 <= int(name_or_number) <= len(self.names):
            return int(name_or_number) - 1
        named = ", ".join(f"{number} ({name})" for number, name in enumerate(self.names[:12], 1))
        more = f" and more, up to {len(self.names)}" if len(self.names) > 12 else ""
        raise ConfigError(
            [f"no axis {name_or_number!r}; there are {named}{more}"],
            "to see the axes, run: distill analyze RUN",
        )

    def move(self, z: Tensor, axis: int, value: float) -> Tensor:
        """Move latent vectors along an axis: ``z + value * scale[axis] * components[axis]``.

        An axis is a curve of L latent vectors; it is stretched to the length of the sound.

        Parameters
        ----------
        z : Tensor [..., S, k]
            Latent vectors of a sound, on any device.
        axis : int
            Index of the axis, from `index`.
        value : float
            Distance in standard deviations of the analysed sounds.

        Returns
        -------
        Tensor [..., S, k]
        """
        curve = (self.scale[axis] * self.components[axis]).unflatten(0, (-1, z.shape[-1])).mT[None]
        curve = F.interpolate(curve, size=z.shape[-2], mode="linear", align_corners=True)[0].mT
        return z + value * curve.to(z.device, z.dtype)


def weights_hash(run_dir: PathLike) -> str:
    """Return the BLAKE3 hash, in hex, of the weights of a run. An analysis is valid for these weights only.

    Raises
    ------
    RunError
        If the weights cannot be read.
    """
    path = Path(run_dir) / WEIGHTS_NAME
    try:
        return _native.hash_file(path).hex()
    except OSError as error:
        raise RunError(
            f"{path}: cannot be read: {error.strerror or error}", "name the run folder of a finished training"
        ) from error


def axes_metadata(names: list[str], run_dir: PathLike) -> dict[str, str]:
    """Return the metadata of TENSORS_NAME: the names of the axes, and the weights that they are valid for.

    They are in the same file as the tensors so that one atomic write keeps them together.
    """
    return {"format": _FORMAT, "names": json.dumps(names), "weights": weights_hash(run_dir)}


def read_axes(run_dir: PathLike) -> Axes:
    """Read the axes that the last analysis of a run found.

    Parameters
    ----------
    run_dir : path
        The run folder.

    Returns
    -------
    Axes

    Raises
    ------
    RunError
        If the run was not analysed, the analysis is damaged, or the weights have changed since.

    Examples
    --------
    >>> from distill.runs import read_axes
    >>> axes = read_axes("runs/first")
    >>> axes.components.shape[0] == len(axes.names)
    True
    """
    path = Path(run_dir) / LATENT_NAME / TENSORS_NAME
    tip = f"run: distill analyze {run_dir}"
    if not path.exists():
        raise RunError(f"{run_dir}: its latent space has not been analysed: {path} is missing", tip)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            mean, components, scale = (file.get_tensor(name) for name in ("mean", "components", "scale"))
        names = load_json(metadata.get("names", "null").encode())
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path}: damaged: {printable(str(error)[:200])}", tip) from error
    is_valid = (
        metadata.get("format") == _FORMAT
        and isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and mean.ndim == 1
        and components.shape == (len(names), len(mean))
        and scale.shape == (len(names),)
        and all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in (mean, components, scale))
        and bool((scale > 0).all())
    )
    if not is_valid:
        raise RunError(f"{path}: damaged, or written by another version of distill", tip)
    if metadata.get("weights") != weights_hash(run_dir):
        raise RunError(f"{path}: the run has been trained on since it was analysed", tip)
    return Axes(names, mean, components, scale)
