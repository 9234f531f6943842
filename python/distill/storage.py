"""Atomic writes, folders for output, opening of regular files only, and the errors of writing."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from distill.errors import ConfigError, StorageError

MARK_NAME = ".distill-output"
"""Name of the file that marks a folder as written by distill; rust/index leaves such folders out of a dataset."""
_MARK = (
    b"distill wrote this folder, so it is left out of datasets.\n"
    b"Remove this file if the sounds here are recordings to train on.\n"
)
# What a run has always held: this tells the previews of a run of an earlier version, which has no mark.
_RUN_NAMES = ("run.json", "config.toml")
_PREVIEWS_NAME = "previews"

TEMPORARY = re.compile(r"\.distill-[0-9a-f]{16}\.tmp")
"""Names of the temporary files of distill, also of rust/index."""
# The temporary files of earlier versions, in run folders and --out folders.
_OLD_TEMPORARY = re.compile(
    r"\.(?:step-\d{9}\.pt|best\.pt|config\.toml|metrics\.jsonl|(?:run|model|analysis|manifest)\.json"
    r"|(?:model|analysis)\.safetensors|(?:loss|quality|reconstruction|previews|scree|map|sweep)\.png"
    r"|(?:reconstruction|sample|interpolation|variation)-\d+\.wav)\.partial"
)
# Where files cannot be locked, older temporary files are those of a process that was killed.
_ABANDONED_AFTER_S = 24 * 3600

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
"""Error numbers of a file system that has no locks."""
_OTHER_OUT_TIP = "choose another --out"


@contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Make a temporary file, which is removed at the end unless it was renamed.

    Its name is short and random. It is locked as long as its process lives, which tells `remove_leftovers` that it is
    in use.

    Yields
    ------
    path, file
        The file, for reading and writing.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path, descriptor = _create_temporary(folder)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield path, file
    finally:
        with suppress(OSError):
            path.unlink()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that replaces another one atomically: a reader finds the old content or the new, never a part of it.

    The file is temporary until the block ends, see `temporary_file`: neither a long name nor another writer of the same
    file is in the way. After an exception the old file is still in place.

    Yields
    ------
    file
        The new file, for reading and writing.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    with temporary_file(path.parent) as (temporary, file):
        yield file
        file.flush()
        os.fsync(file.fileno())
        temporary.replace(path)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Replace a file atomically, see `replacing`.

    Raises
    ------
    OSError
        If it cannot be written. The old file is then still in place.
    """
    with replacing(path) as file:
        file.write(content)


def _create_temporary(folder: Path) -> tuple[Path, int]:
    # O_EXCL: neither a file nor a link that is there already is written to.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        path = folder / f".distill-{os.urandom(8).hex()}.tmp"
        try:
            descriptor = os.open(path, flags, 0o666)
        except FileExistsError:
            continue
        # Another process may have taken it for a leftover before it was locked.
        if _lock(descriptor) is not False and os.path.lexists(path):
            return path, descriptor
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Lock a file: True, False if another process holds the lock, or None where files cannot be locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files in a folder whose processes were killed; on a failure they stay.

    Those of running processes are locked, and stay. On a file system without locks they stay for a day.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        names = [name for entry in entries if _is_temporary(name := entry.name)]
        for name in names:
            with suppress(OSError):
                _remove_if_abandoned(folder / name)


def _is_temporary(name: str) -> bool:
    return (TEMPORARY.fullmatch(name) or _OLD_TEMPORARY.fullmatch(name)) is not None


def _remove_if_abandoned(path: Path) -> None:
    descriptor = open_regular(path, os.O_RDWR)
    try:
        is_abandoned = _lock(descriptor)
        if is_abandoned is None:
            is_abandoned = time.time() - os.fstat(descriptor).st_mtime > _ABANDONED_AFTER_S
        if is_abandoned:
            path.unlink()
    finally:
        os.close(descriptor)


def make_output_folder(folder: Path) -> bool:
    """Make a folder for what distill writes, and mark it unless it holds anything, so that no dataset includes it.

    Returns
    -------
    bool
        Whether no dataset includes it. False if it was there and holds other files: a mark would hide these, too.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if output_folder_of(folder):
        return True
    if any(folder.iterdir()):
        return False
    mark_output(folder)
    return True


def mark_output(folder: Path) -> Path:
    """Mark a folder as written by distill; return the path of the mark."""
    path = folder / MARK_NAME
    with suppress(FileExistsError), path.open("xb") as file:
        file.write(_MARK)
    return path


def output_folder_of(folder: Path) -> Path | None:
    """Return the given folder, or the nearest one above it, if distill is known to have written it; else None."""
    real = Path(os.path.realpath(folder))
    for place in (real, *real.parents):
        is_previews = place.name == _PREVIEWS_NAME and all((place.parent / name).is_file() for name in _RUN_NAMES)
        if is_previews or os.path.lexists(place / MARK_NAME):
            return place
    return None


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


def make_folder(folder: Path) -> bool:
    """Make the folder of --out, see `make_output_folder`; what killed processes left there is removed.

    Raises
    ------
    StorageError
        If it cannot be made.
    """
    try:
        is_left_out = make_output_folder(folder)
    except OSError as error:
        raise storage_error(folder, error, _OTHER_OUT_TIP) from error
    remove_leftovers(folder)
    return is_left_out


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
