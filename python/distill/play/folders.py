"""Which folders are runs that can be played. Without torch, so that a wrong path is answered at once."""

from __future__ import annotations

import os
from pathlib import Path

from distill.errors import RunError

RUN_FILE = "run.json"
"""The file that every run has."""
_TIP = "give the folder of a run, as distill train printed it, or one that holds runs"


def check_library(path: Path) -> None:
    """Check that a path is a run, or a folder with runs.

    Raises
    ------
    RunError
        If it is neither.
    """
    if not path.is_dir():
        raise RunError(f"{path}: {'not a folder' if path.exists() else 'no such folder'}", _TIP)
    if not run_folders(path):
        raise RunError(f"{path}: not a run, and no folder in it is one: no {RUN_FILE}", _TIP)


def run_folders(path: Path) -> dict[str, Path]:
    """Return the runs in a folder, which may be one itself, by name.

    Links are left out: what they lead to is not in the folder.

    Raises
    ------
    RunError
        If the folder cannot be read.
    """
    if is_run(path):
        return {name_of(path): path}
    try:
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}", _TIP) from error
    return {name_of(path / name): path / name for name in names if is_run(path / name)}


def is_run(folder: Path) -> bool:
    """Whether a folder is a run."""
    try:
        return (folder / RUN_FILE).is_file()
    except OSError:
        return False


def name_of(run_dir: Path) -> str:
    """Return the name by which a run is asked for: that of its folder. Bytes that are no UTF-8 are escaped."""
    return os.fsencode(run_dir.resolve().name).decode("utf-8", "backslashreplace") or "run"
