"""What an OSError says about a file: that it is missing, that it cannot be had at the moment, or neither."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from distill.errors import DatasetError
from distill.types import PathLike

# The disk, the server or the connection is away. Not every system has all of them.
_AWAY_NAMES = """
    EIO ENODEV ENXIO ESTALE ENOTCONN EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH ENETRESET ETIMEDOUT
    ECONNABORTED ECONNREFUSED ECONNRESET ESHUTDOWN EREMOTEIO ENOLINK ENONET ECOMM EREMCHG ENOMEDIUM
"""
_AWAY = {getattr(errno, name) for name in _AWAY_NAMES.split() if hasattr(errno, name)}
# This process or the system has none left.
_FILES_USED_UP = {errno.EMFILE, errno.ENFILE}
_USED_UP = {*_FILES_USED_UP, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN}


def is_away(error: OSError) -> bool:
    """Whether an error says nothing about the file: its disk is away, or this process has no memory or descriptors."""
    return error.errno in _AWAY or is_used_up(error)


def is_used_up(error: OSError) -> bool:
    """Whether this process or the system has no descriptors or memory left."""
    return error.errno in _USED_UP


def remedy(error: OSError, tip: str = "make it readable, and run again") -> str:
    """Return what to do about a file that cannot be read now; `tip` if the error is about the file itself."""
    if error.errno in _FILES_USED_UP:
        return "raise the limit on open files (ulimit -n), or close other programs, and run again"
    if is_used_up(error):
        return "close other programs, and run again"
    if error.errno in _AWAY:
        return "run again when its disk is back"
    return tip


def dataset_away(path: PathLike, error: OSError) -> DatasetError:
    """Return the error for a dataset of which `path`, a file or the folder itself, cannot be read at the moment."""
    tip = remedy(error)
    if error.errno in _AWAY:
        tip += "; if only this file is damaged, move it out of the dataset"
    reason = error.strerror or error
    return DatasetError(f"{os.fspath(path)}: cannot be read now: {reason}; what was finished is kept", tip)


@dataclass(frozen=True)
class RootFolder:
    """The folder of a dataset, as it was when it was first looked at.

    Parameters
    ----------
    path : Path
    identity : (int, int)
        Device and inode number.
    """

    path: Path
    identity: tuple[int, int]

    @classmethod
    def at(cls, path: PathLike) -> RootFolder:
        """Return the folder that is at `path` now.

        Raises
        ------
        DatasetError
            If it cannot be looked at.
        """
        try:
            return cls(Path(path), _identity(path))
        except OSError as error:
            raise dataset_away(path, error) from error

    def check(self) -> None:
        """Check that the folder is still there: it was not unmounted, moved or removed.

        Raises
        ------
        DatasetError
            If it is not.
        """
        try:
            found = _identity(self.path)
        except OSError as error:
            raise dataset_away(self.path, error) from error
        if found != self.identity:
            raise DatasetError(
                f"{self.path}: another folder is there now; what was finished is kept",
                "run again when the dataset is back",
            )


def _identity(path: PathLike) -> tuple[int, int]:
    status = Path(path).stat()
    return status.st_dev, status.st_ino
