"""Removal of slots, and of what earlier programs left in a cache."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from distill.cache.folder import Leftover, leftover
from distill.cache.lock import CacheLock
from distill.cache.manifest import MANIFEST_NAME, PACKS_NAME
from distill.cache.pack import is_pack_name
from distill.cache.slots import Slot, entries, list_slots
from distill.cache.writer import cache_write_error
from distill.errors import ConfigError
from distill.index import cache_of


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
        fitting = [item for item in there if name and item.name.startswith(name)]
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


def remove(cache_dir: Path, chosen: Sequence[Slot | Leftover]) -> None:
    """Remove slots and leftovers; wait for the lock. Readers keep the packs that they have mapped.

    Raises
    ------
    StorageError
        If something cannot be removed.
    """
    try:
        with CacheLock(cache_dir):
            for item in chosen:
                if isinstance(item, Slot):
                    _remove_slot(item.path)
                else:
                    _unlink(item.paths)
    except OSError as error:
        raise cache_write_error(cache_dir, error) from error


def _remove_slot(path: Path) -> None:
    # The manifest first: what is left after a kill is no slot.
    (path / MANIFEST_NAME).unlink(missing_ok=True)
    if cache_of(path) != path:
        shutil.rmtree(path)
    else:
        _unlink([pack for pack in entries(path / PACKS_NAME) if is_pack_name(pack.name)])


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
