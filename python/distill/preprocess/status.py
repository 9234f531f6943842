"""The status of a dataset: what its cache holds, and which files have changed since. Decodes no audio."""

from __future__ import annotations

import json
from typing import Any

from distill import _native
from distill.cache.manifest import load_manifest
from distill.index import Dataset
from distill.types import PathLike, ProgressCallback, Reason


def dataset_status(dataset: Dataset | PathLike, *, progress: ProgressCallback | None = None) -> dict[str, Any]:
    """Compare a dataset with its cache, without decoding or writing anything.

    Parameters
    ----------
    dataset : Dataset or path
        The dataset.
    progress : callable, optional
        Called with (stage, current, total); stages are "scan" and "hash".

    Returns
    -------
    dict
        ``files``, the number of files, and of these ``unchanged``, ``added``, ``changed``, ``renamed``; ``removed``;
        ``rows`` and ``bytes`` in the cache; ``dead_rows``, rows in the cache that belong to no file any more;
        ``skipped_files``, a list of {path, reason, code} of files that cannot be used and folders that cannot be read;
        ``skipped``, its length; ``cache_dir``; ``damage``, None or what is wrong with the manifest, in which case all
        features will be computed again.

    Raises
    ------
    DatasetError
        If the dataset is not a folder, or holds no audio.
    CacheError
        If the manifest cannot be read.
    """
    dataset = Dataset.of(dataset)
    dataset.check()
    try:
        manifest, damage = load_manifest(dataset.cache_path), None
    except _native.ManifestError as error:
        manifest, damage = None, str(error)
    header = json.loads(manifest.header) if manifest else {}
    scan = dataset.scan(manifest or _native.Manifest(), progress=progress)
    dataset.require_audio(scan)
    skipped = [*scan.skipped, *scan.faults]
    return {
        "files": scan.n_files,
        **scan.counts,
        "skipped": len(skipped),
        "rows": header.get("total_spectrograms", 0),
        "bytes": header.get("cache_size_bytes", 0),
        "dead_rows": header.get("dead_rows", 0),
        "skipped_files": [{"path": path, "reason": reason, "code": Reason.of(reason).code} for path, reason in skipped],
        "cache_dir": str(dataset.cache_path),
        "damage": damage,
    }
