"""The folder of a cache, besides its slots: its marks, the table of files, and what earlier programs left there."""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from distill import _native
from distill.cache.binary import copy_path
from distill.cache.lease import OWNER_NAME
from distill.cache.manifest import MANIFEST_NAME, PACKS_NAME, load_manifest, newer_format
from distill.cache.pack_info import is_pack_name
from distill.cache.slots import entries, exists, list_slots, slot_path, unreadable
from distill.index import SLOTS_NAME
from distill.storage import TEMPORARY, sync_folder, write_atomically
from distill.text import listed
from distill.types import ProgressCallback

logger = logging.getLogger(__name__)

FILES_NAME = "files.json"
_TAG = b"""Signature: 8a477f597d28d172789f06886806bc55
# This folder is a cache of distill. What is in it can be computed again.
# About this file: https://bford.info/cachedir/
"""
_MARKS = {"CACHEDIR.TAG": _TAG, ".gitignore": b"*\n"}
_PREDECESSOR_ROW = re.compile(r"\d{6,}\.pt")


def prepare_folder(cache_dir: Path) -> None:
    """Mark a cache folder, so that backups and git leave it out, and move a cache without slots into its slot.

    In a folder that holds other files too, only the folder of the slots is marked.

    The caller holds the lock.

    Raises
    ------
    OSError
        If the folder cannot be written.
    CacheError
        If a later version of distill wrote what is there.
    """
    marked = _marked(cache_dir)
    marked.mkdir(exist_ok=True)
    for name, content in _MARKS.items():
        if not os.path.lexists(marked / name):
            write_atomically(marked / name, content)
    if exists(cache_dir / MANIFEST_NAME):
        _adopt(cache_dir)
    if unused := leftover(cache_dir):
        size = f"{unused.bytes / 1e6:.1f} MB"
        remedy = f"distill clean DATASET --slot {unused.name} removes it"
        logger.warning(
            "%s: holds %s of %s, which is not used and left alone; %s", cache_dir, unused.words, size, remedy
        )


def is_prepared(cache_dir: Path) -> bool:
    """Whether `prepare_folder` would find nothing to do or to say.

    Raises
    ------
    OSError, CacheError
        If the folder cannot be read.
    """
    if exists(cache_dir / MANIFEST_NAME) or leftover(cache_dir):
        return False
    return all(os.path.lexists(_marked(cache_dir) / name) for name in _MARKS)


def _marked(cache_dir: Path) -> Path:
    return cache_dir if _is_ours(cache_dir) else cache_dir / SLOTS_NAME


def _is_ours(cache_dir: Path) -> bool:
    """Whether a folder holds nothing but a cache. Marks in another one would hide its other files from backups."""
    names = {"lock", FILES_NAME, SLOTS_NAME, MANIFEST_NAME, PACKS_NAME, "CACHEDIR.TAG", ".gitignore"}
    names.add(copy_path(Path(FILES_NAME)).name)
    return all(
        path.name in names or any(kind.fullmatch(path.name) for kind in (_PREDECESSOR_ROW, TEMPORARY, OWNER_NAME))
        for path in cache_dir.iterdir()
    )


def _adopt(cache_dir: Path) -> None:
    """Move manifest and packs of the layout without slots into a slot. Nothing is computed.

    The manifest moves last. After a kill in between, the next call moves it.
    """
    try:
        manifest = load_manifest(cache_dir)
    except _native.ManifestError:
        manifest = None
    if manifest is None:
        return
    slot = slot_path(cache_dir, json.loads(manifest.header)["config_fingerprint"])
    if exists(slot / MANIFEST_NAME):
        return
    slot.mkdir(parents=True, exist_ok=True)
    packs, new_packs = cache_dir / PACKS_NAME, slot / PACKS_NAME
    if packs.is_dir() and not packs.is_symlink():
        # A slot without a manifest holds nothing but what a killed writer left.
        for path in entries(new_packs):
            if is_pack_name(path.name):
                path.unlink()
        packs.rename(new_packs)
        sync_folder(slot)
    (cache_dir / MANIFEST_NAME).rename(slot / MANIFEST_NAME)
    for folder in (slot, slot.parent, cache_dir):
        sync_folder(folder)
    if not exists(cache_dir / FILES_NAME):
        manifest.file_table().save(cache_dir / FILES_NAME)
    logger.info("%s: moved into its slot, %s", cache_dir, slot.name)


def load_file_table(cache_dir: Path, progress: ProgressCallback | None = None) -> _native.FileTable:
    """Return the table of files that the slots share; empty if there is none or, after a warning, if it is damaged.

    `progress`: see `open_manifest`.

    Raises
    ------
    CacheError
        If it cannot be read, or a later version of distill wrote it.
    """
    path = cache_dir / FILES_NAME
    try:
        return _native.FileTable.load(path, progress)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except _native.ManifestError as error:
        logger.warning("%s: %s; files are hashed again", path, error)
    except _native.NewerFormatError as error:
        raise newer_format(path, error) from error
    except OSError as error:
        raise unreadable(path, error) from error
    return _native.FileTable()


@dataclass(frozen=True)
class Leftover:
    """Files of a cache of another program version that this one cannot use, directly in the cache folder.

    Attributes
    ----------
    name : str
        "predecessor", or "earlier" for a cache without slots that is damaged or whose slot exists; by which commands
        refer to it.
    paths : list of Path
        Its files.
    bytes : int
        Their size.
    """

    name: str
    paths: list[Path]
    bytes: int

    @property
    def words(self) -> str:
        """What it is."""
        kind = "a cache of distill's predecessor" if self.name == "predecessor" else "an earlier cache without slots"
        return f"{kind} ({listed([path.name for path in self.paths], 2)})"


def leftover(cache_dir: Path) -> Leftover | None:
    """Return what an earlier program left in a cache folder and this one cannot use, if there is any.

    Raises
    ------
    CacheError
        If the folder cannot be read.
    """
    manifest = cache_dir / MANIFEST_NAME
    has_manifest = exists(manifest)
    is_slot = has_manifest and any(slot.path == cache_dir for slot in list_slots(cache_dir))
    named = [manifest] if has_manifest and not is_slot else []
    try:
        rows = [path for path in entries(cache_dir) if _PREDECESSOR_ROW.fullmatch(path.name) and path.is_file()]
        packs = [path for path in entries(cache_dir / PACKS_NAME) if named and is_pack_name(path.name)]
        paths = [*named, *rows, *packs]
        size = sum(path.lstat().st_size for path in paths)
    except OSError as error:
        raise unreadable(error.filename or cache_dir, error) from error
    return Leftover("predecessor" if rows else "earlier", paths, size) if rows or named else None
