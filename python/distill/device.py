"""The names of devices, and from a name to a torch device."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from distill.errors import DeviceError

if TYPE_CHECKING:
    import torch

DEVICE_NAMES = "auto, cpu, cuda, cuda:N or mps"
"""The valid names of devices, in words."""
_NAME = re.compile(r"auto|cpu|mps|cuda(?::(0|[1-9]\d{0,5}))?", re.ASCII)
_TIP = "use --device cpu, or --device auto for the best available one"


def is_device_name(name: object) -> bool:
    """Whether `name` names a device, which this machine may have or not. Does not import torch."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def check_device_name(name: object) -> None:
    """Check the name of a device, without torch.

    Raises
    ------
    DeviceError
        If it is none of `DEVICE_NAMES`.
    """
    if not is_device_name(name):
        raise DeviceError(f"device {name!r} must be {DEVICE_NAMES}", _TIP)


def resolve_device(name: str | torch.device) -> torch.device:
    """Return the torch device with this name.

    Parameters
    ----------
    name : str or torch.device
        "cpu", "cuda", "cuda:N", "mps", or "auto": CUDA if there is one, else MPS, else the CPU.

    Raises
    ------
    DeviceError
        If it is none of these, this machine does not have it, or torch was built without it.
    """
    import torch  # noqa: PLC0415 - names are checked in configurations, without waiting for torch

    name = str(name) if isinstance(name, torch.device) else name
    check_device_name(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device {name!r}: torch {torch.__version__} finds no CUDA device", _TIP)
    # Before torch sees the number, which wraps around in a byte.
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device {name!r}: there are only {torch.cuda.device_count()} CUDA devices", _TIP)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device {name!r}: no Metal device", _TIP)
    return torch.device(name)
