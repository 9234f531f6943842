"""Which packs, and which of their rows, are not what the manifest says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill.cache.pack import PackInfo, PackReader
from distill.errors import DamagedPackError
from distill.types import ProgressCallback


class Damage(NamedTuple):
    """What is wrong with a pack: some of its rows, or, where `rows` is None, all of it."""

    rows: np.ndarray | None
    reason: str


def has_stamps(path: Path, info: PackInfo) -> bool:
    """Whether a pack is there and nothing has touched it since it was last known to be whole."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns) == (info.bytes, info.mtime_ns, info.ctime_ns)


def find_damage(
    packs_dir: Path, packs: Sequence[PackInfo], header: Mapping[str, Any], progress: ProgressCallback | None = None
) -> Iterator[tuple[PackInfo, Damage | None]]:
    """Each of `packs`, with the stamps it has now, and what is wrong with it, every row checked; None: all is well.

    Parameters
    ----------
    packs_dir : Path
        Where they are.
    packs : sequence of PackInfo
        What the manifest says of them.
    header : mapping
        The manifest's header.
    progress : callable, optional
        Called with ("check", bytes checked, bytes to check).
    """
    total, done = sum(info.bytes for info in packs), 0
    for info in packs:
        bad = []
        path = packs_dir / info.name
        try:
            # Before its bytes are read: what is written meanwhile shows at the next look.
            status = path.lstat()
            info = info._replace(mtime_ns=status.st_mtime_ns, ctime_ns=status.st_ctime_ns)
            reader = PackReader(path, info, tuple(header["row_shape"]), header["dtype"])
            for checked_bytes, rows in reader.damaged_rows():
                bad.append(rows)
                if progress is not None:
                    progress("check", done + checked_bytes, total)
        except DamagedPackError as error:
            yield info, Damage(None, error.reason)
        except OSError as error:
            yield info, Damage(None, f"cannot be read: {error.strerror or error}")
        else:
            rows = np.concatenate(bad) if bad else np.empty(0, np.int64)
            yield info, Damage(rows, f"{len(rows)} of its rows are damaged") if len(rows) else None
        done += info.bytes
