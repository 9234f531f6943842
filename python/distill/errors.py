"""Errors that distill raises, each one naming the value, the reason and, where there is one, a remedy."""

from __future__ import annotations

import os
from collections.abc import Sequence


class DistillError(Exception):
    """Base of all errors of distill that are not also a built-in kind.

    Parameters
    ----------
    message : str
        What is wrong, naming the path or value.
    tip : str, optional
        What to do about it; commands print it on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, tip: str | None = None) -> None:
        super().__init__(message)
        self.tip = tip


class ConfigError(DistillError, ValueError):
    """A configuration that cannot be used; holds every fault that was found, not only the first.

    Parameters
    ----------
    faults : sequence of str
        One sentence a fault.
    """

    exit_code = 2

    def __init__(self, faults: Sequence[str], tip: str | None = None) -> None:
        super().__init__("\n".join(faults), tip)
        self.faults = list(faults)


class DatasetError(DistillError):
    """A dataset folder that is missing, is not a folder, or holds no audio."""

    exit_code = 2


class NothingUsableError(DistillError):
    """A dataset in which no file yields a single chunk."""


class AudioFileError(DistillError):
    """A file that cannot be used; the rest of the dataset goes on.

    Parameters
    ----------
    path : str
        The file.
    reason : str
        Why it is skipped, as it appears in reports and in the manifest.
    tip : str, optional
        What to do about it, where it is all that there is.
    """

    def __init__(self, path: str, reason: str, tip: str | None = None) -> None:
        super().__init__(f"{path}: {reason}", tip)
        self.path = path
        self.reason = reason


class StorageError(DistillError):
    """A place that cannot be written: read-only, or too little space."""


class CacheError(DistillError):
    """A cache that is damaged, or that does not fit what is asked of it."""


class DamagedPackError(CacheError):
    """A pack that is missing or is not what the manifest says.

    Parameters
    ----------
    path : path
        The pack.
    reason : str
        What is wrong with it.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: damaged pack: {reason}", "run: distill verify DATASET --repair")
        self.path = path
        self.reason = reason


class PreprocessingCancelled(DistillError):  # noqa: N818 - the public name, fixed by the interface
    """`confirm_callback` answered no."""


class RunError(DistillError):
    """A run folder that cannot be resumed or loaded."""

    exit_code = 2


class DeviceError(DistillError):
    """A device that this machine does not have."""

    exit_code = 2


class BackendError(DistillError, RuntimeError):
    """A way to compute features that was asked for and cannot compute these."""

    exit_code = 2


class TrainingDivergedError(DistillError):
    """A loss that is NaN or infinite."""
