"""What a dataset's cache holds and what has changed since, from the index alone."""

from __future__ import annotations

import json
import os
from typing import Any

from distill import _native
from distill.cache.manifest import cache_path, open_manifest
from distill.index import Trust, check_dataset, no_audio, scan_dataset


def dataset_status(
    dataset_dir: str | os.PathLike[str],
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    trust: Trust = "stat",
    follow_links: bool = False,
) -> dict[str, Any]:
    """Compare a dataset with its cache, decoding nothing and changing nothing.

    Parameters
    ----------
    dataset_dir : path
        The folder of audio.
    cache_dir : path, optional
        Default: DATASET/.cache.
    trust : {"stat", "content"}
        When a file counts as unchanged: by its stamps, or by its bytes, which are then all read. Default: "stat".
    follow_links : bool
        Follow symbolic links that lead out of the dataset, and links to folders. Default: False.

    Returns
    -------
    dict
        files; of those unchanged, added, changed, renamed, skipped; removed; rows and bytes in the cache, and
        dead_rows, which no file has any more; skipped_files, a list of {path, reason}; cache_dir.

    Raises
    ------
    DatasetError
        If the dataset is no folder, or holds no audio.
    """
    root = check_dataset(dataset_dir)
    cache = cache_path(root, cache_dir)
    manifest = open_manifest(cache)
    header = json.loads(manifest.header) if manifest else {}
    scan = scan_dataset(manifest or _native.Manifest(), root, cache_dir=cache, trust=trust, follow_links=follow_links)
    if not scan.n_files:
        raise no_audio(root)
    return {
        "files": scan.n_files,
        **scan.counts,
        "rows": header.get("total_spectrograms", 0),
        "bytes": header.get("cache_size_bytes", 0),
        "dead_rows": header.get("dead_rows", 0),
        "skipped_files": [{"path": path, "reason": reason} for path, reason in [*scan.skipped, *scan.faults]],
        "cache_dir": str(cache),
    }
