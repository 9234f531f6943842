"""Files and folders: written whole or not at all, opened only if regular, and the errors of writing them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from distill.errors import ConfigError, StorageError

_OTHER_OUT_TIP = "choose another --out"


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Replace a file: a reader finds the old one or the new one, whole, whatever happens.

    Raises
    ------
    OSError
        The old file is then still in place.
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
    """Whether an error says that there was no room to write."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def storage_error(
    path: Path, error: OSError, tip: str, *, tip_if_full: str | None = None, note_if_full: str = ""
) -> StorageError:
    """The StorageError for an OSError from writing at `path`.

    Parameters
    ----------
    path : Path
        What was written; where the error names a file itself, that one is named.
    error : OSError
        The error.
    tip : str
        What to do about it.
    tip_if_full : str, optional
        What to do if the disk is full. Default: make room, or `tip`.
    note_if_full : str
        What happened to what was written before the disk was full. Default: nothing is said.
    """
    if is_full(error):
        note = f"; {note_if_full}" if note_if_full else ""
        return StorageError(f"{path}: the disk is full{note}", tip_if_full or f"make room, or {tip}")
    return StorageError(f"{error.filename or path}: cannot be written: {error.strerror or error}", tip)


def check_room(paths: Sequence[Path], *, force: bool) -> None:
    """Check that files can be written, and write nothing; `make_folder` comes when there is something to write.

    Parameters
    ----------
    paths : sequence of Path
        The files.
    force : bool
        They may be there already; they are left as they are until they are replaced.

    Raises
    ------
    ConfigError
        If one is there, and not `force`; each is named.
    StorageError
        If a folder cannot be written, or is missing and cannot be made.
    """
    there = [] if force else [f"{path}: is there already" for path in paths if os.path.lexists(path)]
    if there:
        raise ConfigError(there, "replace what is there with --force, or choose another --out")
    for folder in dict.fromkeys(path.parent for path in paths):
        # What cannot be looked at counts as missing, and its folder as not writable.
        standing = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
        if not standing.is_dir():
            raise StorageError(f"{standing}: cannot be written: not a folder", _OTHER_OUT_TIP)
        if not os.access(standing, os.W_OK | os.X_OK):
            raise StorageError(f"{standing}: cannot be written: not writable", _OTHER_OUT_TIP)


def make_folder(folder: Path) -> None:
    """Make a folder for what is about to be written, and those that it lies in; it may be there already.

    Raises
    ------
    StorageError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made: {error.strerror or error}", _OTHER_OUT_TIP) from error


def open_regular(path: str | os.PathLike[str], flags: int) -> int:
    """Open a regular file and nothing else: no link is followed, and nobody waits for the other end of a FIFO.

    Returns
    -------
    int
        The descriptor; child processes do not inherit it.

    Raises
    ------
    OSError
        If it cannot be opened, or something else stands there.
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
    """Make the names in a folder durable.

    Raises
    ------
    OSError
        If the system cannot.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
