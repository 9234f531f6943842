"""Reading of files inside a run folder, whatever a request asks for and whatever the folder holds."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from distill.errors import NotFoundError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LARGEST = 64_000_000


def read_inside(folder: Path, *parts: str, largest: int = _LARGEST) -> bytes:
    """Return the content of a regular file inside a folder.

    Parameters
    ----------
    folder : Path
        The folder; it may be a symbolic link itself.
    *parts : str
        Names of the folders below it, and of the file. No symbolic link is followed.
    largest : int
        Most bytes that are read. Default: 64 MB.

    Raises
    ------
    NotFoundError
        If there is no such file, or it is one that is not read: behind a symbolic link or "..", a FIFO, a device, or
        too large.
    """
    path = folder.joinpath(*parts)
    if not parts or any(part in ("", os.curdir, os.pardir) or "/" in part or "\0" in part for part in parts):
        raise NotFoundError(f"{'/'.join(parts)!r}: not the name of a file in {folder}", "name a file of this run")
    try:
        descriptor = os.open(folder, _FOLDER)
        for part in parts[:-1]:
            # Relative to the folder that is open, so that no link can take the place of one that was checked.
            descriptor = _exchanged(descriptor, part, _FOLDER | os.O_NOFOLLOW)
        descriptor = _exchanged(descriptor, parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise NotFoundError(f"{path}: not a regular file", "name a file of this run")
            if status.st_size > largest:
                raise NotFoundError(f"{path}: {status.st_size} bytes, where at most {largest} are read")
            return file.read(largest)
    except (OSError, ValueError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {_reason(error)}"
        raise NotFoundError(f"{path}: {reason}", "name a file of this run; links are not followed") from error


def _exchanged(descriptor: int, name: str, flags: int) -> int:
    """Open a file relative to an open folder, which is closed."""
    try:
        return os.open(name, flags, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
