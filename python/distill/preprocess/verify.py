"""Verify that every row and every file is what the manifest says; repair what is not."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from distill import _native
from distill.cache.damage import find_damage
from distill.cache.folder import load_file_table
from distill.cache.lock import CacheLock
from distill.cache.manifest import MANIFEST_NAME, PACKS_NAME, require_manifest
from distill.cache.pack_info import PackInfo
from distill.cache.row_format import RowFormat
from distill.cache.slots import choose_slot, exists, list_slots, slot_path
from distill.config import AugmentationConfig, TrainingConfig
from distill.errors import CacheError, UnreadablePackError
from distill.index import Dataset, check_workers
from distill.preprocess.pipeline import preprocess
from distill.preprocess.plan import is_current
from distill.preprocess.result import PreprocessResult
from distill.text import listed
from distill.types import PathLike, ProgressCallback, Reason, hands_on_errors_of_progress

logger = logging.getLogger(__name__)

# Codes of reasons from the index that say nothing about a file's bytes.
_UNREAD = ("unreadable", "unstable")
_LEADS_OUT = "link-leads-out"
UNCHECKED = frozenset({*_UNREAD, _LEADS_OUT})
"""Codes of reasons with which nothing is known to be wrong: the pack or file could not be checked."""


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes
    ----------
    rows, packs, files : int
        Numbers of rows, packs and files that were checked.
    damaged : list of (path, Reason)
        Packs as slots/SLOT/packs/NAME, and files relative to the dataset, with undecodable bytes as surrogate escapes;
        also packs and files that exist and could not be checked.
    """

    rows: int
    packs: int
    files: int
    damaged: list[tuple[str, Reason]]


@hands_on_errors_of_progress
def verify(
    dataset: Dataset | PathLike, *, workers: int | None = None, progress: ProgressCallback | None = None
) -> Verification:
    """Check every row of all slots against its checksum, and every file in a manifest against its content hash.

    Writes nothing. New, removed and moved files do not count as damage. Preprocessing of the dataset waits meanwhile.

    Parameters
    ----------
    dataset : Dataset or path
        The dataset, with `follow_links` as it was preprocessed; its `files` and `trust` are ignored.
    workers : int, optional
        Number of threads. Default: one per core.
    progress : callable, optional
        Called with (stage, current, total); stages are "cache", "check", "scan" and "hash".

    Returns
    -------
    Verification

    Raises
    ------
    ConfigError
        If `workers` is less than 1.
    DatasetError
        If the dataset is not a folder.
    CacheError
        If there is no valid manifest, or the lock cannot be opened.
    """
    workers = check_workers(workers)
    dataset = Dataset.of(dataset)
    dataset.check()
    cache = dataset.cache_path
    rows, n_packs, paths = 0, 0, set[str]()
    # Keyed by path: a file of several slots is reported once.
    damaged: dict[str, Reason] = {}
    with _writers_kept_out(cache):
        for slot, manifest in _manifests(cache, damaged, progress):
            packs = [PackInfo.of(entry) for entry in manifest.packs()]
            damaged |= dict(_damaged_packs(manifest, slot, packs, progress, os.path.relpath(slot, cache)))
            damaged |= dict(_damaged_files(manifest, dataset, workers, progress))
            rows, n_packs = rows + manifest.totals().rows, n_packs + len(packs)
            paths.update(entry["path"] for entry in manifest.files())
    return Verification(rows, n_packs, len(paths), list(damaged.items()))


def _manifests(
    cache: Path, damaged: dict[str, Reason], progress: ProgressCallback | None
) -> Iterator[tuple[Path, _native.Manifest]]:
    """Yield folder and manifest of each slot. Add those that cannot be used to `damaged`; raise if none can."""
    slots = [slot for slot in list_slots(cache, progress=progress) if exists(slot.path / MANIFEST_NAME)]
    if not any(slot.manifest for slot in slots):
        require_manifest(slots[0].path if slots else choose_slot(cache))  # raises the error that says why
    for slot in slots:
        if slot.manifest:
            yield slot.path, slot.manifest
        else:
            path = os.path.join(os.path.relpath(slot.path, cache), MANIFEST_NAME)
            text = f"could not be checked: {slot.fault}" if slot.error else str(slot.fault)
            damaged[path] = Reason(text, "unreadable" if slot.error else "damaged")


@contextmanager
def _writers_kept_out(cache: Path) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(CacheLock(cache, shared=True))
        except (FileNotFoundError, NotADirectoryError):
            pass  # A cache without a lock file has no writer.
        except OSError as error:
            raise CacheError(
                f"{error.filename or cache}: the lock cannot be opened: {error.strerror or error}",
                "make it readable, or remove it while nothing writes to this cache",
            ) from error
        yield


def _damaged_packs(
    manifest: _native.Manifest, slot: Path, packs: list[PackInfo], progress: ProgressCallback | None, name: str
) -> Iterator[tuple[str, Reason]]:
    live = manifest.kept()
    row_format = RowFormat.of_header(json.loads(manifest.header))
    checked = find_damage(slot / PACKS_NAME, packs, row_format, progress)
    for index, (info, damage) in enumerate(checked):
        here, path = live.pack == index, os.path.join(name, PACKS_NAME, info.name)
        if isinstance(damage, UnreadablePackError):
            yield path, Reason(f"could not be checked: {damage.reason}", "unreadable")
            continue
        if damage is not None and damage.rows is not None:
            # Damage to dead rows does not count: they are never read.
            here &= np.searchsorted(damage.rows, live.first) < np.searchsorted(damage.rows, live.first + live.rows)
        if damage is None or not here.any():
            continue
        contents = {live.content_hashes[content].hex() for content in live.content[here].tolist()}
        paths = [entry["path"] for entry in manifest.files() if entry["content_hash"] in contents]
        whose = listed(paths, 3) or "files that were not among those last listed"
        reason = Reason(f"{damage.reason}: it holds features of {whose}", damage.reason.code)
        yield path, reason


def _with_known_files(dataset: Dataset, manifest: _native.Manifest) -> Dataset:
    """Return the dataset limited to the files in the manifest: new files do not matter here."""
    return replace(dataset, files=[entry["path"] for entry in manifest.files()])


def _is_gone(path: Path) -> bool:
    """Whether `path` certainly does not exist; False if we are not allowed to look."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _damaged_files(
    manifest: _native.Manifest, dataset: Dataset, workers: int, progress: ProgressCallback | None
) -> list[tuple[str, Reason]]:
    known = _with_known_files(dataset, manifest)
    by_stamps = replace(known, trust="stat").scan(manifest, workers=workers)
    scan = replace(known, trust="content").scan(manifest, workers=workers, progress=progress)
    touched = set(by_stamps.changed)
    reasons = dict(scan.skipped)
    found = [
        (path, Reason(f"could not be checked: {reason}", reason.code))
        for path, reason in scan.faults
        if not _is_gone(dataset.path / path)
    ]
    for path in scan.changed:
        silently = "" if path in touched else ", though its stamps did not"
        changed = Reason(f"its bytes changed since its features were computed{silently}", "changed")
        reason = reasons.get(path, changed)
        if reason.code == _LEADS_OUT:
            text = f"could not be checked: {reason}; a repair without --follow-links removes its features"
        elif reason.code in _UNREAD:
            text = f"could not be checked: {reason}"
        else:
            text = str(reason)
        found.append((path, Reason(text, reason.code)))
    return found


@hands_on_errors_of_progress
def repair(
    dataset: Dataset | PathLike, *, workers: int | None = None, progress: ProgressCallback | None = None
) -> PreprocessResult:
    """Compute rows again that are damaged, or whose files have other bytes now.

    Every row and every file is checked. The configuration is taken from the cache.

    Parameters
    ----------
    dataset : Dataset or path
        The dataset, with `follow_links` as it was preprocessed; its `files` and `trust` are ignored.
    workers : int, optional
        Number of threads. Default: one per core.
    progress : callable, optional
        Called with (stage, current, total); stages are those of `preprocess_complex_spectrograms`.

    Returns
    -------
    PreprocessResult
        That of the slot last used.

    Raises
    ------
    CacheError
        If the manifest is missing or damaged, or an earlier version of distill computed all rows. The dataset then has
        to be preprocessed again, with the same options.
    DistillError
        As `preprocess`.
    """
    dataset = Dataset.of(dataset)
    dataset.check()
    damaged: dict[str, Reason] = {}
    slots = list(_manifests(dataset.cache_path, damaged, progress))
    for path, reason in damaged.items():
        logger.warning("%s: %s; it cannot be repaired", path, reason)
    results = [_repair_slot(dataset, slot, manifest, workers, progress) for slot, manifest in slots]
    repaired = [result for result in results if result is not None]
    if not repaired:
        raise CacheError(
            f"{dataset.cache_path}: holds only features of an earlier version of distill, which cannot be repaired",
            "run: distill preprocess DATASET",
        )
    return repaired[0]


def _repair_slot(
    dataset: Dataset, slot: Path, manifest: _native.Manifest, workers: int | None, progress: ProgressCallback | None
) -> PreprocessResult | None:
    header = json.loads(manifest.header)
    row_format = RowFormat.of_header(header)
    if not is_current(row_format):
        tip = f"distill clean --slot {slot.name} removes it"
        logger.warning("%s: computed by an earlier version of distill, so it cannot be repaired; %s", slot, tip)
        return None
    if slot not in (dataset.cache_path, slot_path(dataset.cache_path, row_format.fingerprint)):
        logger.warning("%s: not repaired: it is a copy of another slot", slot)
        return None
    config = TrainingConfig(
        complex_spectrogram=row_format.config,
        augmentation=AugmentationConfig(**(header["augmentation_config"] or {})),
        augmentation_expansion=row_format.expansion,
        **{name: header[name] for name in ("chunk_samples", "normalize", "partial") if name in header},
        cache_dtype=row_format.dtype,
    )
    known = _with_renamed_files(dataset, manifest, check_workers(workers))
    used = slot.stat()
    result = preprocess(known, config, workers=workers, check_packs=True, row_format=row_format, progress=progress)
    with suppress(OSError):  # to repair a slot is not to use it
        os.utime(result.cache_dir, ns=(used.st_atime_ns, used.st_mtime_ns))
    return result


def _with_renamed_files(dataset: Dataset, manifest: _native.Manifest, workers: int) -> Dataset:
    """Return the dataset limited to the files in the manifest that exist, under the names that they have now."""
    known = load_file_table(dataset.cache_path)
    scan = replace(dataset, files=None, trust="stat").scan(manifest, known=known, workers=workers)
    gone = {*scan.removed, *(old for old, _ in scan.renamed)}
    there = [entry["path"] for entry in manifest.files() if entry["path"] not in gone]
    return replace(dataset, files=[*there, *(new for _, new in scan.renamed)], trust="content")
