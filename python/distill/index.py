"""A dataset: a folder of audio, its options, and the scan that finds what changed since features were cached.

Also exports the index classes and hash functions of the Rust extension. Importing this module imports neither torch
nor numpy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal

from distill._native import (
    FileTable,
    Manifest,
    ManifestError,
    Scan,
    Totals,
    hash_bytes,
    hash_file,
    row_checksums,
)
from distill.availability import dataset_away, is_away
from distill.errors import ConfigError, DatasetError
from distill.extensions import AUDIO_EXTENSIONS, read_extensions, unread_extensions, unread_lines
from distill.storage import MARK_NAME, output_folder_of
from distill.text import listed, printable, reason_lines
from distill.types import PathLike, ProgressCallback

__all__ = [
    "AUDIO_EXTENSIONS",
    "CACHE_NAME",
    "SLOTS_NAME",
    "Dataset",
    "FileTable",
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

CACHE_NAME = ".cache"
"""Default name of the cache folder in a dataset."""

SLOTS_NAME = "slots"
"""Name of the folder in a cache that holds its slots, one for each configuration."""

Trust = Literal["stat", "content"]
Hashing = Literal["all", "same-size", "none"]

_PARENT_PREFIX = os.path.join(os.pardir, "")
_FOLDER_TIP = "give the folder that holds your recordings"


@dataclass(frozen=True)
class Dataset:
    """A folder of audio: which files are used, when a file counts as unchanged, and where features are cached.

    Parameters
    ----------
    folder : path
        The folder.
    files : iterable of path, optional
        Use only these files; absolute, or relative to the folder. Kept as a tuple. Default: every audio file in the
        folder and its subfolders.
    cache_dir : path, optional
        Where features are cached. Default: FOLDER/.cache.
    follow_links : bool
        Follow symbolic links that lead out of the folder, and links to folders. Default: False.
    trust : {"stat", "content"}
        A file counts as unchanged if its stamps (size, times, inode) are unchanged, or if its bytes are; "content"
        reads every file. Default: "stat".
    """

    folder: PathLike
    _: KW_ONLY
    files: Sequence[PathLike] | None = None
    cache_dir: PathLike | None = None
    follow_links: bool = False
    trust: Trust = "stat"

    def __post_init__(self) -> None:
        if self.files is not None:
            object.__setattr__(self, "files", tuple(self.files))

    @classmethod
    def of(cls, dataset: Dataset | PathLike) -> Dataset:
        """Return `dataset`, or for a path the dataset of that folder with default options."""
        return dataset if isinstance(dataset, Dataset) else cls(dataset)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Dataset:
        """Return the dataset that `record()` was called on.

        Raises
        ------
        KeyError
            If a field is missing.
        """
        options = {name: record[name] for name in ("files", "cache_dir", "follow_links")}
        return cls(record["dataset"], **options)

    def record(self) -> dict[str, Any]:
        """Return plain JSON values that identify the dataset from any working directory. `trust` is left out."""
        return {
            "dataset": str(self.path.absolute()),
            "cache_dir": None if self.cache_dir is None else str(self.cache_path.absolute()),
            "files": None if self.files is None else [os.fspath(file) for file in self.files],
            "follow_links": self.follow_links,
        }

    @property
    def path(self) -> Path:
        """The folder, as a Path."""
        return Path(self.folder)

    @property
    def cache_path(self) -> Path:
        """The cache folder, as a Path. For a slot, which is what preprocessing returns, the cache that it is in."""
        return self.path / CACHE_NAME if self.cache_dir is None else cache_of(Path(self.cache_dir))

    def check(self) -> None:
        """Check that the folder can be listed, and is not one that distill wrote.

        Raises
        ------
        DatasetError
            If it is missing, not a folder, cannot be read, or is in a folder that distill wrote.
        """
        try:
            os.scandir(self.folder).close()
        except FileNotFoundError as error:
            raise DatasetError(f"{self.path}: no such folder", _FOLDER_TIP) from error
        except NotADirectoryError as error:
            raise DatasetError(f"{self.path}: not a folder", _FOLDER_TIP) from error
        except OSError as error:
            raise DatasetError(f"{self.path}: cannot be read: {error.strerror or error}", _FOLDER_TIP) from error
        if output := output_folder_of(self.path):
            mark = output / MARK_NAME
            raise DatasetError(
                f"{self.path}: not a dataset: distill wrote {output} and what is in it",
                f"{_FOLDER_TIP}; to train on these sounds, copy the files to another folder"
                + (f" or remove {mark}" if os.path.lexists(mark) else ""),
            )

    def scan(
        self,
        manifest: Manifest,
        *,
        known: FileTable | None = None,
        workers: int | None = None,
        hash_added: bool = True,
        hashing: Hashing = "all",
        loads_ffmpeg: bool = True,
        progress: ProgressCallback | None = None,
    ) -> Scan:
        """Compare the files with a cache's manifest. No audio is decoded.

        Parameters
        ----------
        manifest : Manifest
            Not modified; `Manifest.apply` records a scan in it.
        known : FileTable, optional
            Files whose hashes are known from another manifest.
        workers : int, optional
            Maximum number of threads that list folders and hash files. Default: one per core.
        hash_added : bool
            If False, new files are listed but not opened; see `Manifest.scan`. Default: True.
        hashing : {"all", "same-size", "none"}
            Which new and changed files are hashed; see `Manifest.scan`. Default: "all".
        loads_ffmpeg : bool
            If False, FFmpeg counts as there where it is installed, without an attempt to load it. Default: True.
        progress : callable, optional
            Called with stage ("scan" or "hash"), current and total, at most every 50 ms.

        Raises
        ------
        FileNotFoundError, NotADirectoryError, PermissionError
            If the folder itself cannot be read.
        DatasetError
            If the folder or a file in it cannot be had at the moment: its disk is away, or no descriptor is left.
        ValueError
            If one of `files` is outside the folder.
        """
        try:
            return manifest.scan(
                self.folder,
                extensions=read_extensions(loads_ffmpeg=loads_ffmpeg),
                unread=unread_extensions(loads_ffmpeg=loads_ffmpeg),
                exclude=(self.cache_path / SLOTS_NAME,),
                files=self._relative_files(),
                known=known,
                follow_links=self.follow_links,
                trust=self.trust,
                workers=workers or default_workers(),
                hash_added=hash_added,
                hashing=hashing,
                progress=progress,
            )
        except OSError as error:
            # An error without a file is one of `progress`.
            if error.filename is None or not is_away(error):
                raise
            raise dataset_away(os.fsdecode(error.filename), error) from error

    def _relative_files(self) -> list[bytes] | None:
        """Return `files` relative to the folder, as bytes."""
        if self.files is None:
            return None
        root = os.path.join(os.path.abspath(self.folder), "")
        real_root = os.path.join(os.path.realpath(root), "")
        return [path_bytes(_relative(os.fspath(file), root, real_root)) for file in self.files]

    def require_audio(self, scan: Scan) -> None:
        """Check that a scan of this dataset found files.

        Raises
        ------
        DatasetError
            If there are no audio files, or none of the requested files exists. The message lists files and folders
            that could not be read, kinds of files that are not, and folders that distill wrote, because the audio may
            be there.
        """
        if scan.n_files:
            return
        unread = reason_lines(scan.faults)
        if self.files is not None:
            requested = listed([os.fspath(file) for file in self.files], 3) or "an empty list"
            raise DatasetError(
                f"{self.path}: none of the files requested is in this folder: {requested}{unread}",
                "give absolute paths, or paths relative to this folder",
            )
        kinds = f"distill reads {', '.join(read_extensions())}"
        unread += "".join(f"\n  {line}" for line in unread_lines(scan.unread))
        if scan.faults:
            message = f"{self.path}: no audio in what could be read of this folder{unread}"
            raise DatasetError(message, f"make the paths above readable; {kinds}")
        but = f" apart from what distill wrote: {printable(listed(scan.left_out, 3))}" if scan.left_out else ""
        what = "no audio that distill reads" if scan.unread else "no audio"
        raise DatasetError(f"{self.path}: {what} in this folder{but}{unread}", kinds)


def cache_of(path: Path) -> Path:
    """Return the cache that a path means: that of a slot, or the path itself."""
    real = Path(os.path.realpath(path))
    is_slot = real.parent.name == SLOTS_NAME and re.fullmatch("[0-9a-f]{16}", real.name)
    if not is_slot:
        return path
    # Not `real`, unless the path itself does not say it: messages name what the user gave.
    return path.parent.parent if path.name == real.name and path.parent.name == SLOTS_NAME else real.parent.parent


def check_workers(workers: int | None) -> int:
    """Return `workers`, or the default number of threads if it is None.

    Raises
    ------
    ConfigError
        If `workers` is less than 1.
    """
    if workers is not None and workers < 1:
        raise ConfigError([f"workers={workers} must be at least 1"])
    return workers or default_workers()


def default_workers() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def path_bytes(path: str) -> bytes:
    """Return a path in bytes, also one of a manifest that Python's filesystem encoding lacks, as in an ASCII locale."""
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:
        return path.encode("utf-8", "surrogateescape")


def _relative(file: str, root: str, real_root: str) -> str:
    """Return the path of `file` relative to `root`; both roots end in a separator.

    Raises
    ------
    ValueError
        If the file is outside `root`.
    """
    # normpath and not realpath: a file that is a link must stay a link.
    path = os.path.normpath(file)
    # A relative path without ".." needs no look at the disk, which is slow.
    if not path.startswith(os.sep) and path not in (os.curdir, os.pardir) and not path.startswith(_PARENT_PREFIX):
        return path
    path = os.path.normpath(os.path.join(root, file))
    if path.startswith(root):
        return path[len(root) :]
    # One of the two may have been given through a symbolic link, and the other one not.
    folder, name = os.path.split(path)
    path = os.path.join(os.path.realpath(folder), name)
    if path.startswith(real_root):
        return path[len(real_root) :]
    raise ValueError(f"file {file!r} must lie inside the dataset {root!r}")
