"""Removal of slots, and of what earlier programs left in a cache."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from distill.cache.binary import copy_path
from distill.cache.disk import cache_write_error
from distill.cache.folder import Leftover, leftover
from distill.cache.leftovers import is_left_by_writer
from distill.cache.lock import CacheLock
from distill.cache.manifest import MANIFEST_NAME, PACKS_NAME, PARTS_NAME
from distill.cache.slots import Slot, called, entries, last_used_ns, list_slots
from distill.errors import ConfigError
from distill.index import cache_of
from distill.storage import TEMPORARY

logger = logging.getLogger(__name__)


def choose_removals(cache_dir: Path, names: Sequence[str], oldest_s: float | None) -> list[Slot | Leftover]:
    """Return what the user wants to remove from a cache.

    Parameters
    ----------
    cache_dir : Path
        The cache.
    names : sequence of str
        Names of slots, or their beginnings; or the name of a leftover.
    oldest_s : float or None
        Also the slots that were not used for so many seconds.

    Raises
    ------
    ConfigError
        If a name fits none of them, or more than one.
    CacheError
        If the cache cannot be read.
    """
    slots, unused = list_slots(cache_dir), leftover(cache_dir)
    there: list[Slot | Leftover] = [*slots, *([unused] if unused else [])]
    chosen: list[Slot | Leftover] = []
    faults = []
    for name in names:
        fitting = called(there, name)
        if len(fitting) == 1:
            chosen += fitting
        else:
            number = "more than one slot has" if fitting else "no slot has"
            faults.append(f"--slot {name}: {number} a name that begins with this")
    if faults:
        raise ConfigError(faults, f"in {cache_dir} there are: {', '.join(item.name for item in there) or 'none'}")
    if oldest_s is not None:
        limit_ns = time.time_ns() - int(oldest_s * 1e9)
        chosen += [slot for slot in slots if slot.last_used_ns < limit_ns]
    return [item for index, item in enumerate(chosen) if item not in chosen[:index]]


def remove(cache_dir: Path, chosen: Sequence[Slot | Leftover]) -> list[Slot | Leftover]:
    """Remove slots and leftovers; wait for the lock. Readers keep the packs that they have open.

    Returns
    -------
    list of Slot or Leftover
        What was removed: not the slots that were used since they were chosen, which a warning names.

    Raises
    ------
    StorageError
        If something cannot be removed.
    """
    removed = []
    try:
        with CacheLock(cache_dir) as lock:
            for item in chosen:
                lock.check()
                if isinstance(item, Leftover):
                    _unlink(item.paths)
                elif last_used_ns(item.path) != item.last_used_ns:
                    logger.warning("%s: not removed: it was used meanwhile", item.path)
                    continue
                else:
                    remove_slot(item.path)
                removed.append(item)
    except OSError as error:
        raise cache_write_error(cache_dir, error) from error
    return removed


def remove_slot(path: Path) -> None:
    """Remove a slot, but no files in it that are not the cache's; the caller holds the lock.

    Raises
    ------
    OSError
        If it cannot be removed.
    """
    if path.is_symlink():
        path.unlink()
        return
    # The manifest first: what is left after a kill is no slot.
    (path / MANIFEST_NAME).unlink(missing_ok=True)
    copy_path(path / MANIFEST_NAME).unlink(missing_ok=True)
    packs = path / PACKS_NAME
    parts = path / PARTS_NAME
    for folder in (packs, parts):
        if not folder.is_symlink():
            _unlink([file for file in entries(folder) if is_left_by_writer(file)])
    if cache_of(path) != path:
        _unlink([file for file in entries(path) if TEMPORARY.fullmatch(file.name)])
        for folder in (packs, parts, path):
            # Other files may be in it.
            with suppress(OSError):
                folder.rmdir()


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
