"""Files of a cache that nobody needs any more: packs that no manifest names, and what killed writers left."""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from distill.cache.manifest import MANIFEST_NAME, PARTS_NAME
from distill.cache.pack_info import is_pack_name
from distill.cache.parts import is_part_name, is_shared, packs_of, part_files
from distill.storage import TEMPORARY

_RETIRED_SUFFIX = ".retired"
_ABANDONED_AFTER_S = 24 * 3600
# A commit that was killed leaves a temporary file; that of an earlier version is .NAME.PID-N.tmp.
_PARTIAL = re.compile(rf"{TEMPORARY.pattern}|\.{re.escape(MANIFEST_NAME)}\.\d+-\d+\.tmp")


def remove_unnamed(cache_dir: Path, slot_dir: Path, packs_dir: Path, named: Iterable[str]) -> None:
    """Remove the packs of a slot that neither `named` nor a part file names, and temporary files of killed writers.

    Files whose names the cache does not use are left alone. Packs of a slot that several machines use are only
    retired: `remove_abandoned` removes them a day later.

    Raises
    ------
    OSError
        If one cannot be removed.
    """
    needed = {*named, *_listed(slot_dir)}
    unnamed = [path for path in packs_dir.iterdir() if is_pack_name(path.name) and path.name not in needed]
    folders = [cache_dir, slot_dir]
    parts = slot_dir / PARTS_NAME
    if is_shared(slot_dir):
        for path in unnamed:
            _retire(path)
        unnamed = []
    elif parts.is_dir():
        folders.append(parts)
    partial = [path for folder in folders for path in folder.iterdir() if _PARTIAL.fullmatch(path.name)]
    for path in (*unnamed, *partial):
        # Unlinking a symbolic link leaves its target alone.
        if stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFLNK):
            path.unlink()


def remove_abandoned(slot_dir: Path, packs_dir: Path) -> int:
    """Remove packs that were retired, or begun for a part that was never finished, more than a day ago.

    Returns
    -------
    int
        Their size in bytes.

    Raises
    ------
    OSError
        If one cannot be removed.
    """
    before, size = time.time() - _ABANDONED_AFTER_S, 0
    retired = [path for path in packs_dir.iterdir() if path.name.endswith(_RETIRED_SUFFIX)]
    parts = slot_dir / PARTS_NAME
    listed = _listed(slot_dir)
    begun = [
        path
        for path in parts.iterdir()
        if TEMPORARY.fullmatch(path.name) or (is_pack_name(path.name) and path.name not in listed)
    ]
    for path in (*retired, *begun):
        status = path.lstat()
        if status.st_ctime < before:
            path.unlink()
            size += status.st_size
    return size


def _retire(path: Path) -> None:
    """Put a pack that no manifest names any more aside: readers on other machines may have opened it."""
    path.rename(path.with_name(path.name + _RETIRED_SUFFIX))


def is_left_by_writer(path: Path) -> bool:
    """Whether a file in the folders of packs or parts is one that a writer made."""
    name = path.name.removesuffix(_RETIRED_SUFFIX)
    return is_pack_name(name) or is_part_name(name) or TEMPORARY.fullmatch(name) is not None


def _listed(slot_dir: Path) -> set[str]:
    """Return the packs that part files list."""
    return {name for path in part_files(slot_dir) for name in packs_of(path)}
