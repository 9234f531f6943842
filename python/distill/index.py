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
from distill.errors import DatasetError

__all__ = [
    "AUDIO_EXTENSIONS",
    "Manifest",
    "ManifestError",
    "Scan",
    "Totals",
    "Trust",
    "check_dataset",
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


def no_audio(dataset_dir: Path, files: Sequence[StrPath] | None = None) -> DatasetError:
    """The error for a dataset in which no file has an audio file's name, or none of those asked for is there."""
    if files is not None:
        named = ", ".join(os.fspath(file) for file in files[:3]) or "an empty list"
        return DatasetError(f"{dataset_dir}: none of the files asked for is in this folder: {named}")
    return DatasetError(f"{dataset_dir}: no audio in this folder", f"distill reads {', '.join(AUDIO_EXTENSIONS)}")


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
        files=None if files is None else [_relative(file, dataset_dir) for file in files],
        follow_links=follow_links,
        trust=trust,
        workers=workers or default_workers(),
        hash_added=hash_added,
        progress=progress,
    )


def _relative(file: StrPath, dataset_dir: StrPath) -> bytes:
    """Path of ``file`` in the dataset, as bytes."""
    # normpath and not resolve: a file that is a link is to be kept as one.
    root = Path(os.path.normpath(Path.cwd() / dataset_dir))
    path = Path(os.path.normpath(root / file))
    # The dataset may have been reached through a link and the file not, or the
    # other way round.
    for candidate, base in ((path, root), (path.parent.resolve() / path.name, root.resolve())):
        if base in candidate.parents:
            return os.fsencode(candidate.relative_to(base))
    raise ValueError(f"file {os.fspath(file)!r} must lie inside the dataset {os.fspath(root)!r}")
