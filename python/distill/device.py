"""From the name of a device to a torch device."""

from __future__ import annotations

import torch

from distill.errors import DeviceError


def resolve_device(name: str) -> torch.device:
    """Return the torch device with this name.

    Parameters
    ----------
    name : str
        "cpu", "cuda", "cuda:N", "mps", or "auto": CUDA if there is one, else MPS, else the CPU.

    Raises
    ------
    DeviceError
        If this machine does not have it, or torch was built without it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    tip = "use --device cpu, or --device auto for the best available one"
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device {name!r}: torch {torch.__version__} finds no CUDA device", tip)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device {name!r}: there are only {torch.cuda.device_count()} CUDA devices", tip)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device {name!r}: no Metal device", tip)
    return device
