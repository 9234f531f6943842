"""What a dataset's cache holds and what has changed since, from the index alone."""

from __future__ import annotations

import json
import os
from typing import Any

from distill import _native
from distill.cache.damage import ProgressCallback
from distill.cache.manifest import cache_path, load_manifest
from distill.index import Trust, check_dataset, no_audio, scan_dataset


def dataset_status(
    dataset_dir: str | os.PathLike[str],
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    trust: Trust = "stat",
    follow_links: bool = False,
    progress: ProgressCallback | None = None,
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
    progress : callable, optional
        Called with (stage, current, total); stages are "scan" and "hash".

    Returns
    -------
    dict
        files; of those unchanged, added, changed, renamed; removed; rows and bytes in the cache, and dead_rows, which
        no file has any more; skipped_files, a list of {path, reason} with the folders that could not be looked at;
        skipped, its length; cache_dir; damage, None or what is wrong with the manifest, for which all features will be
        computed anew.

    Raises
    ------
    DatasetError
        If the dataset is no folder, or holds no audio.
    CacheError
        If the manifest cannot be read.
    """
    root = check_dataset(dataset_dir)
    cache = cache_path(root, cache_dir)
    try:
        manifest, damage = load_manifest(cache), None
    except _native.ManifestError as error:
        manifest, damage = None, str(error)
    header = json.loads(manifest.header) if manifest else {}
    scan = scan_dataset(
        manifest or _native.Manifest(),
        root,
        cache_dir=cache,
        trust=trust,
        follow_links=follow_links,
        progress=progress,
    )
    if not scan.n_files:
        raise no_audio(root, scan.faults)
    skipped = [*scan.skipped, *scan.faults]
    return {
        "files": scan.n_files,
        **scan.counts,
        "skipped": len(skipped),
        "rows": header.get("total_spectrograms", 0),
        "bytes": header.get("cache_size_bytes", 0),
        "dead_rows": header.get("dead_rows", 0),
        "skipped_files": [{"path": path, "reason": reason} for path, reason in skipped],
        "cache_dir": str(cache),
        "damage": damage,
    }
