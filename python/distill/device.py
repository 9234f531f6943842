"""Which torch device a name stands for on this machine."""

from __future__ import annotations

import torch

from distill.errors import DeviceError


def resolve_device(name: str) -> torch.device:
    """The device for `name`.

    Parameters
    ----------
    name : str
        "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:N" or "mps".

    Raises
    ------
    DeviceError
        If this machine, or this build of torch, does not have it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    tip = "use --device cpu, or --device auto for the best that there is"
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device {name!r}: torch {torch.__version__} finds no CUDA device here", tip)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device {name!r}: there are only {torch.cuda.device_count()} CUDA devices", tip)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device {name!r}: no Metal device here", tip)
    return device
