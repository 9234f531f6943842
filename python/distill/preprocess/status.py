"""The status of a dataset: what its cache holds, and which files have changed since. Decodes no audio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distill import _native
from distill.cache.folder import leftover, load_file_table
from distill.cache.slots import Slot, list_slots
from distill.index import Dataset
from distill.preprocess.retries import forget_what_can_be_read
from distill.types import PathLike, ProgressCallback, Reason, hands_on_errors_of_progress


@hands_on_errors_of_progress
def dataset_status(dataset: Dataset | PathLike, *, progress: ProgressCallback | None = None) -> dict[str, Any]:
    """Compare a dataset with its cache, without decoding or writing anything.

    Parameters
    ----------
    dataset : Dataset or path
        The dataset.
    progress : callable, optional
        Called with (stage, current, total); stages are "cache" (bytes of its tables), "scan" and "hash".

    Returns
    -------
    dict
        ``files``, the number of files, and of these ``unchanged``, ``added``, ``changed``, ``renamed``; ``removed``;
        ``skipped_files``, a list of {path, reason, code} of files that cannot be used and folders that cannot be read;
        ``skipped``, its length; ``partial``, such a list of the files of which the slot last used has only a part;
        ``unread``, the number of files by extension of kinds that are not read; ``left_out``, folders that distill
        wrote; ``cache_dir``; ``slots``, the slots of the cache, the last used first, each with ``name``,
        ``fingerprint``, ``configuration`` in words, ``rows``, ``dead_rows`` (which belong to no file any more),
        ``bytes``, ``last_used`` (ISO 8601) and ``damage``, None or why it cannot be used; ``leftover``, None or {name,
        files, bytes} of what an earlier program left in the cache. Files are compared with the slot last used;
        ``rows``, ``dead_rows``, ``bytes`` and ``damage`` at the top are its own.

    Raises
    ------
    DatasetError
        If the dataset is not a folder, or holds no audio.
    CacheError
        If the cache, or the manifests of all slots, cannot be read.
    """
    dataset = Dataset.of(dataset)
    dataset.check()
    cache_dir = dataset.cache_path
    known = load_file_table(cache_dir, progress)
    slots = list_slots(cache_dir, known, progress)
    last_used = next((slot for slot in slots if slot.manifest), None) or next(iter(slots), None)
    if last_used and last_used.error:
        raise last_used.error
    manifest = (last_used and last_used.manifest) or _native.Manifest()
    forget_what_can_be_read(manifest)
    scan = dataset.scan(manifest, known=known, progress=progress)
    dataset.require_audio(scan)
    skipped = [*scan.skipped, *scan.faults]
    manifest.apply(scan)
    described = {slot.path: _describe(slot) for slot in slots}
    compared = described[last_used.path] if last_used else {"rows": 0, "bytes": 0, "dead_rows": 0, "damage": None}
    unused = leftover(cache_dir)
    return {
        "files": scan.n_files,
        **scan.counts,
        "skipped": len(skipped),
        **{name: compared[name] for name in ("rows", "bytes", "dead_rows", "damage")},
        "skipped_files": _entries(skipped),
        "partial": _entries(manifest.partial()),
        "unread": scan.unread,
        "left_out": list(scan.left_out),
        "cache_dir": str(cache_dir),
        "slots": list(described.values()),
        "leftover": unused and {"name": unused.name, "files": len(unused.paths), "bytes": unused.bytes},
    }


def _entries(reasons: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"path": path, "reason": reason, "code": Reason.of(reason).code} for path, reason in reasons]


def _describe(slot: Slot) -> dict[str, Any]:
    header = slot.header
    return {
        "name": slot.name,
        "fingerprint": header.get("config_fingerprint"),
        "configuration": slot.words,
        "rows": header.get("total_spectrograms", 0),
        "dead_rows": header.get("dead_rows", 0),
        "bytes": slot.bytes,
        "last_used": slot.last_used.isoformat(),
        "damage": slot.fault,
    }
