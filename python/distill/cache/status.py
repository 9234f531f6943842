"""What a dataset's cache holds and what has changed since, from the index alone."""

from __future__ import annotations

import json
import os
from typing import Any

from distill import _native
from distill.cache.manifest import cache_path, open_manifest
from distill.index import check_dataset, no_audio, scan_dataset


def dataset_status(
    dataset_dir: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Compare a dataset with its cache, decoding nothing and changing nothing.

    Parameters
    ----------
    dataset_dir : path
        The folder of audio.
    cache_dir : path, optional
        Default: DATASET/.cache.

    Returns
    -------
    dict
        files; of those unchanged, added, changed, renamed, skipped; removed; rows and bytes in the cache;
        skipped_files, a list of {path, reason}; cache_dir.

    Raises
    ------
    DatasetError
        If the dataset is no folder, or holds no audio.
    """
    root = check_dataset(dataset_dir)
    cache = cache_path(root, cache_dir)
    manifest = open_manifest(cache)
    header = json.loads(manifest.header) if manifest else {}
    scan = scan_dataset(manifest or _native.Manifest(), root, cache_dir=cache)
    if not scan.n_files:
        raise no_audio(root)
    return {
        "files": scan.n_files,
        **scan.counts,
        "rows": header.get("total_spectrograms", 0),
        "bytes": header.get("cache_size_bytes", 0),
        "skipped_files": [{"path": path, "reason": reason} for path, reason in [*scan.skipped, *scan.faults]],
        "cache_dir": str(cache),
    }
