"""A dataset, and what changed in it since its features were cached.

The typed face of the extension. Importing it imports neither torch nor numpy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
from distill.text import reason_lines
from distill.types import PathLike, ProgressCallback

__all__ = [
    "AUDIO_EXTENSIONS",
    "CACHE_NAME",
    "Dataset",
    "Manifest",
    "ManifestError",
    "Scan",
    "Totals",
    "Trust",
    "check_workers",
    "default_workers",
    "hash_bytes",
    "hash_file",
    "row_checksums",
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

CACHE_NAME = ".cache"
"""Folder of a dataset that holds its features, unless another is chosen."""

Trust = Literal["stat", "content"]

_ABOVE = os.path.join(os.pardir, "")
_FOLDER_TIP = "give the folder that holds your recordings"


@dataclass(frozen=True)
class Dataset:
    """A folder of audio: which of its files are used, when they count as unchanged, and where their features are kept.

    Parameters
    ----------
    folder : path
        The folder.
    files : sequence of path, optional
        Use these files only, absolute or relative to the folder. Default: every audio file in it.
    cache_dir : path, optional
        Where features are kept. Default: FOLDER/.cache.
    follow_links : bool
        Follow symbolic links that lead out of the folder, and links to folders. Default: False.
    trust : {"stat", "content"}
        When a file counts as unchanged: by its stamps, or by its bytes, which are then all read. Default: "stat".
    """

    folder: PathLike
    files: Sequence[PathLike] | None = None
    cache_dir: PathLike | None = None
    follow_links: bool = False
    trust: Trust = "stat"

    @classmethod
    def of(cls, dataset: Dataset | PathLike) -> Dataset:
        """`dataset` itself, or that of a folder with the defaults."""
        return dataset if isinstance(dataset, Dataset) else cls(dataset)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Dataset:
        """The dataset that `record` was made of.

        Raises
        ------
        KeyError
            If a field is missing.
        """
        return cls(record["dataset"], record["files"], record["cache_dir"], record["follow_links"])

    def record(self) -> dict[str, Any]:
        """Plain JSON values to find it again from any working directory."""
        return {
            "dataset": str(self.path.absolute()),
            "cache_dir": None if self.cache_dir is None else str(self.cache_path.absolute()),
            "files": None if self.files is None else [os.fspath(file) for file in self.files],
            "follow_links": self.follow_links,
        }

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder)

    @property
    def cache_path(self) -> Path:
        """Where the features are kept."""
        return self.path / CACHE_NAME if self.cache_dir is None else Path(self.cache_dir)

    def check(self) -> None:
        """Check that the folder can be listed.

        Raises
        ------
        DatasetError
            If it is missing, not a folder, or cannot be read.
        """
        try:
            os.scandir(self.folder).close()
        except FileNotFoundError as error:
            raise DatasetError(f"{self.path}: no such folder", _FOLDER_TIP) from error
        except NotADirectoryError as error:
            raise DatasetError(f"{self.path}: not a folder", _FOLDER_TIP) from error
        except OSError as error:
            raise DatasetError(f"{self.path}: cannot be read: {error.strerror or error}", _FOLDER_TIP) from error

    def scan(
        self,
        manifest: Manifest,
        *,
        workers: int | None = None,
        hash_added: bool = True,
        progress: ProgressCallback | None = None,
    ) -> Scan:
        """Compare the files with the manifest of a cache. Decodes nothing.

        Parameters
        ----------
        manifest : Manifest
            Left as it is; see `Manifest.apply`.
        workers : int, optional
            At most this many threads walk, and hash. Default: one a core.
        hash_added : bool
            Without, new files are listed but not opened; see `Manifest.scan`. Default: True.
        progress : callable, optional
            Called with stage ("scan" or "hash"), current and total, at most every 50 ms.

        Raises
        ------
        FileNotFoundError, NotADirectoryError, PermissionError
            The folder itself cannot be read.
        ValueError
            One of ``files`` is not inside the folder.
        """
        return manifest.scan(
            self.folder,
            extensions=AUDIO_EXTENSIONS,
            exclude=(self.cache_path,),
            files=None if self.files is None else _all_relative(self.files, self.folder),
            follow_links=self.follow_links,
            trust=self.trust,
            workers=workers or default_workers(),
            hash_added=hash_added,
            progress=progress,
        )

    def require_audio(self, scan: Scan) -> None:
        """Check that a scan found audio.

        Raises
        ------
        DatasetError
            If no file has the name of an audio file, or none of those requested is there. It names what could not be
            looked at: the audio may be there.
        """
        if scan.n_files:
            return
        unread = reason_lines(scan.faults)
        if self.files is not None:
            requested = ", ".join(os.fspath(file) for file in self.files[:3]) or "an empty list"
            raise DatasetError(f"{self.path}: none of the files requested is in this folder: {requested}{unread}")
        kinds = f"distill reads {', '.join(AUDIO_EXTENSIONS)}"
        if scan.faults:
            message = f"{self.path}: no audio in what could be read of this folder{unread}"
            raise DatasetError(message, f"make readable what is named above; {kinds}")
        raise DatasetError(f"{self.path}: no audio in this folder", kinds)


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


def _all_relative(files: Sequence[PathLike], dataset_dir: PathLike) -> list[bytes]:
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
