"""Find damaged packs and rows: those that are not what the manifest says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill.cache.pack_info import PackInfo
from distill.cache.pack_reader import PackReader
from distill.cache.row_format import RowFormat
from distill.errors import DamagedPackError, MissingPackError, UnreadablePackError
from distill.text import counted
from distill.types import ProgressCallback, Reason


class Damage(NamedTuple):
    """Damage of a pack: the indices of its damaged rows, or None if the whole pack is lost, and the reason."""

    rows: np.ndarray | None
    reason: Reason


def find_damage(
    packs_dir: Path, packs: Sequence[PackInfo], row_format: RowFormat, progress: ProgressCallback | None = None
) -> Iterator[tuple[PackInfo, Damage | UnreadablePackError | None]]:
    """Check every row of some packs. Only what was read, and is wrong, is damage; so is a pack that is gone.

    Parameters
    ----------
    packs_dir : Path
        The folder with the packs.
    packs : sequence of PackInfo
        The manifest's entries for the packs to check.
    row_format : RowFormat
        What their rows are.
    progress : callable, optional
        Called with ("check", bytes checked, bytes to check).

    Yields
    ------
    PackInfo
        The entry, with the pack's present times.
    Damage, UnreadablePackError or None
        None if the pack is undamaged; the error if it cannot be read at the moment.

    Raises
    ------
    CacheError
        If the folder of packs cannot be read.
    """
    total, done = sum(info.bytes for info in packs), 0
    for info in packs:
        bad = []
        path = packs_dir / info.name
        try:
            # Times first, then bytes: a write in between is then noticed by the next check.
            with suppress(OSError):  # the reader finds out why
                status = path.lstat()
                info = info._replace(mtime_ns=status.st_mtime_ns, ctime_ns=status.st_ctime_ns)
            reader = PackReader(path, info, row_format.shape, row_format.dtype)
            for checked_bytes, rows in reader.damaged_rows():
                bad.append(rows)
                if progress is not None:
                    progress("check", done + checked_bytes, total)
        except DamagedPackError as error:
            yield (
                info,
                Damage(None, Reason(error.reason, "missing" if isinstance(error, MissingPackError) else "damaged")),
            )
        except UnreadablePackError as error:
            yield info, error
        else:
            rows = np.concatenate(bad) if bad else np.empty(0, np.int64)
            yield info, Damage(rows, Reason(f"{counted(len(rows), 'row')} damaged", "damaged")) if len(rows) else None
        done += info.bytes
