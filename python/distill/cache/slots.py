"""The slots of a cache: a folder for each configuration of its rows, and the table of files that all of them share.

::

    CACHE/lock                    one writer at a time, for all slots
    CACHE/owner-N.json            the writer's name, where the lock may not reach other machines; N grows with each
    CACHE/files.json              what is known of each file: stamps and hash, or why it is skipped
    CACHE/slots/NAME/             the rows of one configuration; NAME is the start of its fingerprint
        manifest.json, packs/

manifest.bin and files.bin beside them are binary copies of large tables, see `binary`.

A slot is complete without the rest: readers need its folder only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol, TypeVar

from distill import _native
from distill.cache.binary import copy_path
from distill.cache.manifest import (
    MANIFEST_NAME,
    PACKS_NAME,
    PARTS_NAME,
    describe,
    load_manifest,
    open_manifest,
    peek_format,
)
from distill.cache.row_format import RowFormat
from distill.errors import CacheError
from distill.index import SLOTS_NAME
from distill.types import PathLike, ProgressCallback

OTHER_PLACE_TIP = "choose a place for the cache with --cache-dir DIR"
_NAME_DIGITS = 16
_UNFINISHED = "it has no manifest: what computed or removed it was ended"


def slot_path(cache_dir: Path, fingerprint: str) -> Path:
    """Return the folder of the slot for a configuration's fingerprint, which may not exist yet."""
    return cache_dir / SLOTS_NAME / fingerprint[:_NAME_DIGITS]


@dataclass(frozen=True)
class Slot:
    """A slot of a cache, as it is on disk.

    Attributes
    ----------
    path : Path
        Its folder; the cache itself, for one of the layout without slots that was not written to since.
    manifest : _native.Manifest or None
        None if it cannot be used.
    fault : str or None
        Why not.
    error : CacheError or None
        The error, if that is not for damage: it cannot be read now, or a later version of distill wrote it.
    bytes : int
        Size of its files.
    last_used_ns : int
        When preprocessing, training or analysis last used it, ns since 1970.
    """

    path: Path
    manifest: _native.Manifest | None
    fault: str | None
    error: CacheError | None
    bytes: int
    last_used_ns: int

    @classmethod
    def at(cls, path: Path, known: _native.FileTable | None = None, progress: ProgressCallback | None = None) -> Slot:
        """Return the slot in a folder. `known` and `progress`: see `open_manifest`."""
        manifest, fault, unusable = None, None, None
        try:
            manifest = load_manifest(path, known, progress)
            fault = None if manifest else _UNFINISHED
        except _native.ManifestError as error:
            fault = f"{MANIFEST_NAME}: {error}"
        except CacheError as error:
            fault, unusable = str(error), error
        return cls(path, manifest, fault, unusable, _size(path), last_used_ns(path))

    @property
    def header(self) -> dict[str, Any]:
        """The header of the manifest; empty if there is none."""
        return json.loads(self.manifest.header) if self.manifest else {}

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its configuration; empty if there is no manifest."""
        fingerprint: str = self.header.get("config_fingerprint", "")
        return fingerprint

    @property
    def name(self) -> str:
        """The name of its folder, by which commands refer to it."""
        if self.path.parent.name == SLOTS_NAME:
            return self.path.name
        return self.fingerprint[:_NAME_DIGITS] or "unreadable"

    @property
    def words(self) -> str:
        """The configuration of its rows in words, or why the slot cannot be used."""
        return RowFormat.of_header(self.header).words if self.manifest else f"cannot be used: {self.fault}"

    @property
    def last_used(self) -> datetime:
        """When it was last used, UTC."""
        return datetime.fromtimestamp(self.last_used_ns // 10**9, timezone.utc)


def last_used_ns(path: Path) -> int:
    """Return when a slot was last used: `CacheWriter.mark_used` sets the time of its folder."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0  # removed meanwhile


def _size(path: Path) -> int:
    """Return the size of a slot's manifest, packs and parts."""
    manifest = path / MANIFEST_NAME
    files = [manifest, copy_path(manifest), *entries(path / PACKS_NAME), *entries(path / PARTS_NAME)]
    return sum(file.lstat().st_size for file in files if file.is_file())


def entries(folder: Path) -> list[Path]:
    """Return what is in a folder; nothing if there is no such folder."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def list_slots(
    cache_dir: Path, known: _native.FileTable | None = None, progress: ProgressCallback | None = None
) -> list[Slot]:
    """Return all slots of a cache, the last used first; also those that cannot be used.

    If their files are those of the table `known`, all of them share memory. `progress`: see `open_manifest`.

    Raises
    ------
    CacheError
        If the cache cannot be read.
    """
    try:
        folders = [path for path in entries(cache_dir / SLOTS_NAME) if path.is_dir()]
        slots = [Slot.at(path, known, progress) for path in folders]
        old = Slot.at(cache_dir, known, progress) if exists(cache_dir / MANIFEST_NAME) else None
        if old and old.manifest and exists(slot_path(cache_dir, old.fingerprint) / MANIFEST_NAME):
            old = None  # its place is taken: `leftover` returns it
        if old and (old.manifest or old.error):
            slots.append(old)
    except OSError as error:
        raise unreadable(error.filename or cache_dir, error) from error
    return sorted(slots, key=lambda slot: -slot.last_used_ns)


def exists(path: Path) -> bool:
    """Whether a path exists; raise CacheError where that cannot be known, which `os.path.lexists` takes for no."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unreadable(path, error) from error
    return True


def unreadable(path: str | Path, error: OSError) -> CacheError:
    """Return the error for a file or folder of a cache that cannot be read."""
    return CacheError(
        f"{path}: cannot be read: {error.strerror or error}",
        f"make it readable, or {OTHER_PLACE_TIP}",
    )


def find_slot(cache_dir: Path, fingerprint: str) -> Path | None:
    """Return the folder with the rows of a configuration, or None if there is none.

    A cache of the layout without slots is found too: on a disk that cannot be written to it stays as it is.
    """
    path = slot_path(cache_dir, fingerprint)
    if exists(path / MANIFEST_NAME):
        return path
    try:
        manifest = load_manifest(cache_dir)
    except _native.ManifestError:
        return None
    is_here = manifest is not None and json.loads(manifest.header)["config_fingerprint"] == fingerprint
    return cache_dir if is_here else None


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Item = TypeVar("_Item", bound=_Named)


def called(items: Sequence[_Item], name: str) -> list[_Item]:
    """Return the items that a name means: the one with this name, or else those whose names begin with it."""
    exact = [item for item in items if item.name == name]
    return exact or [item for item in items if name and item.name.startswith(name)]


def choose_slot(cache_dir: Path, name: str | None = None) -> Path:
    """Return the folder with the rows that a path means.

    Parameters
    ----------
    cache_dir : Path
        A slot, or a cache.
    name : str, optional
        The name of a slot, or its start. Default: the only slot of the cache.

    Returns
    -------
    Path
        `cache_dir` itself if it is no cache with slots.

    Raises
    ------
    CacheError
        If there is no such slot, or more than one.
    """
    slots = _slot_folders(cache_dir)
    fitting = slots if name is None else called(slots, name)
    if len(fitting) == 1:
        return fitting[0]
    if name is None and not slots:
        return cache_dir
    lines = "".join(f"\n  {slot.name}: {slot.words}" for slot in list_slots(cache_dir))
    if name is None:
        raise CacheError(
            f"{cache_dir}: holds features of {len(slots)} configurations:{lines}",
            f"choose one: {cache_dir / SLOTS_NAME}/NAME, or --slot NAME",
        )
    number = "more than one slot has" if fitting else "no slot has"
    raise CacheError(f"{cache_dir}: {number} a name that begins with {name!r}; there are:{lines or ' none'}")


def _slot_folders(cache_dir: Path) -> list[Path]:
    """Return the folders of the slots that have a manifest."""
    try:
        return [path for path in entries(cache_dir / SLOTS_NAME) if exists(path / MANIFEST_NAME)]
    except OSError as error:
        raise unreadable(error.filename or cache_dir, error) from error


def load_cache_manifest(cache_dir: PathLike) -> dict[str, Any] | None:
    """Return everything that a cache's manifest says.

    Parameters
    ----------
    cache_dir : path
        The folder that `preprocess_complex_spectrograms` returned, or a cache with one slot.

    Returns
    -------
    dict or None
        None if there is no manifest or it is damaged. Keys: ``version``, ``created``, ``files`` (a list of dicts with
        ``path`` relative to the dataset, undecodable bytes as surrogate escapes; ``size`` in bytes; ``mtime_ns``;
        ``content_hash``, BLAKE3 in hex; ``rows``; ``skipped``, None or the reason), ``complex_spectrogram_config``,
        ``augmentation_config`` (None without augmentation), ``augmentation_expansion``, ``chunk_samples``,
        ``sample_rate``, ``normalize``, ``dtype``, ``config_fingerprint``, ``normalization_stats`` (``mag_mean``,
        ``mag_std``, ``if_mean``, ``if_std``), ``total_spectrograms``, ``cache_size_bytes``, and the other fields of
        the header.

    Raises
    ------
    CacheError
        If the manifest cannot be read, or `cache_dir` is a cache with several slots.

    Examples
    --------
    >>> from distill.audio import ComplexSpectrogramConfig, load_cache_manifest, preprocess_complex_spectrograms
    >>> cache_dir, _ = preprocess_complex_spectrograms(None, "recordings", ComplexSpectrogramConfig())
    >>> manifest = load_cache_manifest(cache_dir)
    >>> [file["path"] for file in manifest["files"] if file["rows"]]
    ['bell.wav', ...]
    """
    manifest = open_manifest(choose_slot(Path(cache_dir)))
    return None if manifest is None else describe(manifest)


def slot_formats(cache_dir: Path) -> list[tuple[Path, RowFormat]]:
    """Return the folder and the row format of each slot, the last used first. The manifests are not checked."""
    folders = _slot_folders(cache_dir)
    if exists(cache_dir / MANIFEST_NAME):
        folders.append(cache_dir)
    found = [(folder, peek_format(folder)) for folder in folders]
    found.sort(key=lambda pair: -last_used_ns(pair[0]))
    return [(folder, rows) for folder, rows in found if rows is not None]
