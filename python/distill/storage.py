"""Atomic writes, checks of output folders, opening of regular files only, and the errors of writing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from distill.errors import ConfigError, StorageError

_OTHER_OUT_TIP = "choose another --out"


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Replace a file atomically: a reader finds the old content or the new content, never a part of it.

    Raises
    ------
    OSError
        If it cannot be written. The old file is then still in place.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def is_full(error: BaseException | None) -> bool:
    """Whether an error says that there is no free space to write to."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def storage_error(
    path: Path, error: OSError, tip: str, *, tip_if_full: str | None = None, note_if_full: str = ""
) -> StorageError:
    """Return the StorageError for an OSError from writing to `path`.

    Parameters
    ----------
    path : Path
        The file or folder that the message names.
    error : OSError
        What was raised while writing.
    tip : str
        The remedy.
    tip_if_full : str, optional
        The remedy if the disk is full. Default: "make room, or" and `tip`.
    note_if_full : str
        What happened to the data that was written before the disk was full. Default: no note.
    """
    if is_full(error):
        note = f"; {note_if_full}" if note_if_full else ""
        return StorageError(f"{path}: the disk is full{note}", tip_if_full or f"make room, or {tip}")
    return StorageError(f"{path}: cannot be written: {error.strerror or error}", tip)


def check_room(paths: Sequence[Path], *, force: bool) -> None:
    """Check that output files can be written. Creates nothing: `make_folder` is called when there is output.

    Parameters
    ----------
    paths : sequence of Path
        The files that will be written.
    force : bool
        Allow files that exist. They stay unchanged until they are replaced.

    Raises
    ------
    ConfigError
        If files exist and `force` is False; the error names each of them.
    StorageError
        If a folder cannot be written, or is missing and cannot be made.
    """
    existing = [] if force else [f"{path}: already exists" for path in paths if os.path.lexists(path)]
    if existing:
        raise ConfigError(existing, "replace it with --force, or choose another --out")
    for folder in dict.fromkeys(path.parent for path in paths):
        # A folder that we may not look into counts as missing; its parent is then the one that is not writable.
        nearest = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
        if not nearest.is_dir():
            raise StorageError(f"{nearest}: cannot be written: not a folder", _OTHER_OUT_TIP)
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise StorageError(f"{nearest}: cannot be written: not writable", _OTHER_OUT_TIP)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, unless they exist.

    Raises
    ------
    StorageError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error, _OTHER_OUT_TIP) from error


def open_regular(path: str | os.PathLike[str], flags: int) -> int:
    """Open a regular file. Symbolic links are not followed, and opening a FIFO does not block.

    Returns
    -------
    int
        The descriptor; child processes do not inherit it.

    Raises
    ------
    OSError
        If it cannot be opened, or is not a regular file.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a symbolic link, which is not followed", os.fspath(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return descriptor


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that files created in it survive a power cut.

    Raises
    ------
    OSError
        If the system refuses.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
