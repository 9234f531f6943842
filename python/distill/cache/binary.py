"""Binary copies of large manifests and tables of files, beside the JSON files, which they let us read without parsing.

Nothing needs them. The index uses one only if every byte of it and of the JSON file is as it has to be.
"""

from __future__ import annotations

import logging
from pathlib import Path

from distill import _native

logger = logging.getLogger(__name__)

# A JSON file of this size, about 2000 files, is parsed in some milliseconds.
COPY_FROM_BYTES = 1_000_000


def copy_path(path: Path) -> Path:
    """Return where the copy of a JSON file is."""
    return path.with_suffix(".bin")


def save_copy(tables: _native.Manifest | _native.FileTable, path: Path) -> None:
    """Write the copy of a large JSON file with these tables, unless there is one. An error is logged, and no failure.

    The caller holds the lock.
    """
    try:
        if path.stat().st_size >= COPY_FROM_BYTES:
            tables.save_copy(path)
        else:
            copy_path(path).unlink(missing_ok=True)
    except OSError as error:
        logger.debug("%s: no binary copy: %s", path, error)
