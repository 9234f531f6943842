"""What is known of a pack without reading it. Imports no numpy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

PACK_SUFFIX = ".safetensors"
_NAME = re.compile(rf"[0-9a-f]{{16}}{re.escape(PACK_SUFFIX)}")


class PackInfo(NamedTuple):
    """The manifest's entry for a pack. The times are those of when it was last known to be undamaged."""

    name: str
    rows: int
    bytes: int
    checksum: str
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> PackInfo:
        """Return the PackInfo for an entry of `Manifest.packs`."""
        return cls(*(entry[name] for name in cls._fields))


def has_stamps(path: Path, info: PackInfo) -> bool:
    """Whether a pack exists with the size and times that it had when it was last known to be undamaged."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns) == (info.bytes, info.mtime_ns, info.ctime_ns)


def is_pack_name(name: str) -> bool:
    """Whether a file name is one that `PackWriter` makes. Other files in the folder are not ours."""
    return _NAME.fullmatch(name) is not None
