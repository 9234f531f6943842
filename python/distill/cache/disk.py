"""The disk of a cache: its room, and the errors of writing to it."""

from __future__ import annotations

import shutil
from pathlib import Path

from distill.availability import is_used_up, remedy
from distill.cache.slots import OTHER_PLACE_TIP
from distill.errors import StorageError
from distill.storage import is_full, storage_error

_FREE_MARGIN_BYTES = 16 << 20


def cache_write_error(path: Path, error: OSError) -> StorageError:
    """Return the StorageError for an OSError from writing to a cache at `path`; names the file, where it is known."""
    named = path if is_full(error) else Path(error.filename or path)
    tip = remedy(error) if is_used_up(error) else OTHER_PLACE_TIP
    return storage_error(named, error, tip, note_if_full="what was finished is kept")


def free_bytes(cache_dir: Path) -> int:
    """Return how much the disk that holds `cache_dir`, which need not exist, has room for beside a small reserve."""
    existing = next(folder for folder in (cache_dir, *cache_dir.absolute().parents) if folder.exists())
    return max(0, shutil.disk_usage(existing).free - _FREE_MARGIN_BYTES)
