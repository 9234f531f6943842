"""What changed in a dataset since its features were cached.

The typed face of the extension. Importing it imports neither torch nor numpy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from distill._native import (
    Manifest,
    ManifestError,
    Scan,
    Totals,
    hash_bytes,
    hash_file,
    row_checksums,
)
from distill.errors import ConfigError, DatasetError
from distill.files import printable

__all__ = [
    "AUDIO_EXTENSIONS",
    "Manifest",
    "ManifestError",
    "Scan",
    "Totals",
    "Trust",
    "check_dataset",
    "check_workers",
    "default_workers",
    "hash_bytes",
    "hash_file",
    "no_audio",
    "row_checksums",
    "scan_dataset",
]

AUDIO_EXTENSIONS: tuple[str, ...] = (
    "wav",
    "wave",
    "w64",
    "rf64",
    "flac",
    "ogg",
    "oga",
    "opus",
    "mp3",
    "aif",
    "aiff",
    "aifc",
    "caf",
    "au",
    "snd",
)
"""Extensions of the files that a walk looks at, whatever their case."""

StrPath = str | os.PathLike[str]
Trust = Literal["stat", "content"]

_FAULTS_SHOWN = 10
_ABOVE = os.path.join(os.pardir, "")


def check_dataset(dataset_dir: StrPath) -> Path:
    """`dataset_dir` as a Path, if it is a folder.

    Raises
    ------
    DatasetError
        If it is not.
    """
    path = Path(dataset_dir)
    tip = "give the folder that holds your recordings"
    try:
        os.scandir(path).close()
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: no such folder", tip) from error
    except NotADirectoryError as error:
        raise DatasetError(f"{path}: not a folder", tip) from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}", tip) from error
    return path


def no_audio(
    dataset_dir: Path, faults: Sequence[tuple[str, str]], files: Sequence[StrPath] | None = None
) -> DatasetError:
    """The error for a dataset in which no file has an audio file's name, or none of those asked for is there.

    Parameters
    ----------
    dataset_dir : Path
        The folder.
    faults : sequence of (path, reason)
        What could not be looked at: the audio may be there.
    files : sequence of path, optional
        Those asked for.
    """
    named = "".join(f"\n  {printable(path)}: {reason}" for path, reason in faults[:_FAULTS_SHOWN])
    more = f"\n  and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
    if files is not None:
        asked = ", ".join(os.fspath(file) for file in files[:3]) or "an empty list"
        return DatasetError(f"{dataset_dir}: none of the files asked for is in this folder: {asked}{named}{more}")
    reads = f"distill reads {', '.join(AUDIO_EXTENSIONS)}"
    if faults:
        return DatasetError(
            f"{dataset_dir}: no audio in what could be read of this folder{named}{more}",
            f"make readable what is named above; {reads}",
        )
    return DatasetError(f"{dataset_dir}: no audio in this folder", reads)


def check_workers(workers: int | None) -> int:
    """`workers` if it is a number of threads, or the default for None.

    Raises
    ------
    ConfigError
        If it is less than 1.
    """
    if workers is not None and workers < 1:
        raise ConfigError([f"workers={workers} must be at least 1"])
    return workers or default_workers()


def default_workers() -> int:
    """One thread a core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def scan_dataset(
    manifest: Manifest,
    dataset_dir: StrPath,
    *,
    cache_dir: StrPath | None = None,
    files: Sequence[StrPath] | None = None,
    trust: Trust = "stat",
    follow_links: bool = False,
    workers: int | None = None,
    hash_added: bool = True,
    progress: Callable[[str, int, int], object] | None = None,
) -> Scan:
    """Compare a dataset with the manifest of its cache. Decodes nothing.

    Parameters
    ----------
    manifest
        Left as it is; see `Manifest.apply`.
    dataset_dir
        The folder of audio.
    cache_dir
        Left out of the walk, should it lie inside the dataset.
    files
        Look at these instead of walking: absolute, or relative to the dataset.
    trust
        ``"content"`` reads every file; ``"stat"`` only those whose stamps changed.
    follow_links
        Follow symbolic links that lead out of the dataset, and links to folders.
    workers
        At most this many threads walk, and hash. Default: one a core.
    hash_added
        Without, new files are listed but not opened; see `Manifest.scan`.
    progress
        Called with stage, current and total, at most every 50 ms.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError
        The dataset itself cannot be read.
    ValueError
        One of ``files`` is not inside the dataset.
    """
    return manifest.scan(
        dataset_dir,
        extensions=AUDIO_EXTENSIONS,
        exclude=() if cache_dir is None else (cache_dir,),
        files=None if files is None else _all_relative(files, dataset_dir),
        follow_links=follow_links,
        trust=trust,
        workers=workers or default_workers(),
        hash_added=hash_added,
        progress=progress,
    )


def _all_relative(files: Sequence[StrPath], dataset_dir: StrPath) -> list[bytes]:
    """Paths of ``files`` in the dataset, as bytes."""
    root = os.path.join(os.path.abspath(dataset_dir), "")
    real_root = os.path.join(os.path.realpath(root), "")
    return [os.fsencode(_relative(os.fspath(file), root, real_root)) for file in files]


def _relative(file: str, root: str, real_root: str) -> str:
    # normpath and not realpath: a file that is a link is to be kept as one.
    path = os.path.normpath(file)
    # The usual case, told from the name alone: resolving costs twenty times as much.
    if not path.startswith(os.sep) and path not in (os.curdir, os.pardir) and not path.startswith(_ABOVE):
        return path
    path = os.path.normpath(os.path.join(root, file))
    if path.startswith(root):
        return path[len(root) :]
    # The dataset may have been reached through a link and the file not, or the
    # other way round.
    folder, name = os.path.split(path)
    path = os.path.join(os.path.realpath(folder), name)
    if path.startswith(real_root):
        return path[len(real_root) :]
    raise ValueError(f"file {file!r} must lie inside the dataset {root!r}")
