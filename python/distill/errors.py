"""The errors of distill. Each names the value, the reason and, if there is one, a remedy."""

from __future__ import annotations

import copyreg
import os
from collections.abc import Callable, Sequence
from typing import Any


class DistillError(Exception):
    """Base class of all errors of distill.

    Parameters
    ----------
    message : str
        What is wrong, with the path or value.
    tip : str, optional
        What to do about it; commands print it on a separate line.

    Attributes
    ----------
    exit_code : int
        Exit status of a command that ends with this error.

    Examples
    --------
    >>> from distill.audio import load_audio
    >>> from distill.errors import DistillError
    >>> try:
    ...     load_audio("missing.wav")
    ... except DistillError as error:
    ...     print(error)
    missing.wav: ...
    """

    exit_code = 1

    def __init__(self, message: str, tip: str | None = None) -> None:
        super().__init__(message)
        self.tip = tip

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        # Pickles the state. Exceptions by default call `type(error)(*error.args)` when they are unpickled, which fails
        # or makes another message where the parameters of __init__ are not `args`.
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]


class ConfigError(DistillError, ValueError):
    """Invalid options or configuration; holds all faults that were found, not only the first.

    Parameters
    ----------
    faults : sequence of str
        One sentence for each fault.
    tip : str, optional
        See `DistillError`.
    """

    exit_code = 2

    def __init__(self, faults: Sequence[str], tip: str | None = None) -> None:
        super().__init__("\n".join(faults), tip)
        self.faults = list(faults)


class DatasetError(DistillError):
    """A dataset folder that does not exist, is not a folder, or holds no audio."""

    exit_code = 2


class NothingUsableError(DistillError, ValueError):
    """A dataset in which no file gives a single chunk."""


class AudioFileError(DistillError):
    """An audio file that cannot be used; the rest of the dataset can.

    Parameters
    ----------
    path : str
        The file.
    reason : str
        Why it is skipped, as shown in reports and kept in the manifest.
    tip : str, optional
        What to do about it, if this file is all there is.
    """

    def __init__(self, path: str, reason: str, tip: str | None = None) -> None:
        super().__init__(f"{path}: {reason}", tip)
        self.path = path
        self.reason = reason


class StorageError(DistillError):
    """A folder that cannot be written to, or a disk with too little free space."""


class CacheError(DistillError):
    """A cache that is damaged, or that holds other features than those requested."""


class DamagedPackError(CacheError):
    """A pack that is missing, or differs from what the manifest says.

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


class MissingPackError(DamagedPackError):
    """A pack that is gone, from a folder that is there."""


class UnreadablePackError(CacheError):
    """A pack that cannot be read at the moment. Nothing is known to be wrong with its bytes.

    Parameters
    ----------
    path : path
        The pack.
    reason : str
        Why it cannot be read.
    tip : str, optional
        See `DistillError`.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, tip: str | None = None) -> None:
        super().__init__(f"{os.fspath(path)}: cannot be read now: {reason}", tip)
        self.path = path
        self.reason = reason


class SystemLimitError(DistillError):
    """A limit of the operating system, such as that on threads, that leaves no way to go on."""


class ClusterError(DistillError):
    """A Ray cluster that cannot be started or reached, or whose nodes cannot do the work."""


class PreprocessingCancelled(DistillError, RuntimeError):  # noqa: N818 - a public name
    """Preprocessing was cancelled, as by a `confirm_callback` that returned False.

    Examples
    --------
    >>> from distill import ComplexSpectrogramConfig, PreprocessingCancelled, preprocess_complex_spectrograms
    >>> def stop(stage, current, total):
    ...     raise PreprocessingCancelled("cancelled")
    >>> try:
    ...     preprocess_complex_spectrograms(None, "recordings", ComplexSpectrogramConfig(), progress_callback=stop)
    ... except PreprocessingCancelled as error:
    ...     print(error)
    cancelled
    """


class RunError(DistillError):
    """A run folder that cannot be created, resumed or loaded."""

    exit_code = 2


class RunBusyError(RunError):
    """A run that another process trains or analyses."""


class NotFoundError(RunError):
    """Something that was asked of a run, or of a folder of runs, and that it does not hold."""


class DeviceError(DistillError):
    """A device that this machine does not have, or that has failed."""

    exit_code = 2


class BackendError(DistillError, RuntimeError):
    """A requested backend that is not available or cannot compute these features."""

    exit_code = 2


class TrainingDivergedError(DistillError):
    """A loss that is NaN or infinite."""


class ProcessLostError(DistillError):
    """Another of the processes that train one model has ended, or does not answer."""
