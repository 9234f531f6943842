"""Is every row in a cache, and every file, what the manifest says? And if not: compute again what is not."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distill import _native
from distill.cache.damage import find_damage
from distill.cache.lock import CacheLock
from distill.cache.manifest import PACKS_NAME, require_manifest
from distill.cache.pack import PackInfo
from distill.config import AugmentationConfig, ComplexSpectrogramConfig, TrainingConfig
from distill.errors import CacheError
from distill.index import Dataset, check_workers
from distill.text import listed
from distill.types import PathLike, ProgressCallback

if TYPE_CHECKING:
    from distill.preprocess.result import PreprocessResult

logger = logging.getLogger(__name__)

# How the index begins the reasons that say nothing of a file's bytes.
_UNREAD = ("unreadable: ", "unstable: ")
_LEADS_OUT = "a link that leads out of the dataset"


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes
    ----------
    rows, packs, files : int
        How many were checked.
    damaged : list of (path, reason)
        Packs as PACKS/NAME, and files of the dataset relative to it, undecodable bytes as surrogate escapes; also
        files that are there and could not be checked.
    """

    rows: int
    packs: int
    files: int
    damaged: list[tuple[str, str]]


def verify(
    dataset: Dataset | PathLike, *, workers: int | None = None, progress: ProgressCallback | None = None
) -> Verification:
    """Check every row against its checksum, and every file that the manifest knows against its hash.

    Nothing is written. New files, and files that are gone or were moved, are no damage. Preprocessing waits meanwhile.

    Parameters
    ----------
    dataset : Dataset or path
        The folder of audio, with `follow_links` as it was preprocessed; its `files` and `trust` do not matter.
    workers : int, optional
        Threads. Default: one a core.
    progress : callable, optional
        Called with (stage, current, total); stages are "check", "scan" and "hash".

    Returns
    -------
    Verification

    Raises
    ------
    ConfigError
        If `workers` is less than 1.
    DatasetError
        If the dataset is no folder.
    CacheError
        If there is no valid manifest, or the lock cannot be read.
    """
    workers = check_workers(workers)
    dataset = Dataset.of(dataset)
    dataset.check()
    cache = dataset.cache_path
    with _writers_kept_out(cache):
        manifest = require_manifest(cache)
        packs = [PackInfo.of(entry) for entry in manifest.packs()]
        damaged = list(_damaged_packs(manifest, cache, packs, progress))
        damaged += _damaged_files(manifest, dataset, workers, progress)
        totals = manifest.totals()
    return Verification(totals.rows, len(packs), totals.files, damaged)


@contextmanager
def _writers_kept_out(cache: Path) -> Iterator[None]:
    waiting = lambda: logger.info("another process is writing this cache: waiting for it")  # noqa: E731
    lock = CacheLock(cache, waiting, shared=True)
    with ExitStack() as held:
        try:
            held.enter_context(lock)
        except (FileNotFoundError, NotADirectoryError):
            pass  # no writer without a lock
        except OSError as error:
            raise CacheError(
                f"{error.filename or cache}: the lock cannot be opened: {error.strerror or error}",
                "make it readable, or remove it while nothing writes to this cache",
            ) from error
        yield


def _damaged_packs(
    manifest: _native.Manifest, cache: Path, packs: list[PackInfo], progress: ProgressCallback | None
) -> Iterator[tuple[str, str]]:
    hashes, segments, _ = manifest.live()
    table = np.frombuffer(segments, "<i8").reshape(-1, 4)
    checked = find_damage(cache / PACKS_NAME, packs, json.loads(manifest.header), progress)
    for index, (info, damage) in enumerate(checked):
        here = table[table[:, 1] == index]
        if damage is not None and damage.rows is not None:
            # What belongs to no file any more is never read.
            bad = np.searchsorted(damage.rows, here[:, 2]) < np.searchsorted(damage.rows, here[:, 2] + here[:, 3])
            here = here[bad]
        if damage is None or not len(here):
            continue
        contents = {hashes[32 * n : 32 * n + 32].hex() for n in here[:, 0].tolist()}
        paths = [entry["path"] for entry in manifest.files() if entry["content_hash"] in contents]
        yield f"{PACKS_NAME}/{info.name}", f"{damage.reason}: it holds features of {listed(paths, 3)}"


def _known_files(manifest: _native.Manifest) -> list[str]:
    """What to look at instead of walking: the dataset may be a list of files, and new ones are no concern here."""
    return [entry["path"] for entry in manifest.files()]


def _is_gone(path: Path) -> bool:
    """Whether nothing is at `path`, which is more than that we cannot see it."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _damaged_files(
    manifest: _native.Manifest, dataset: Dataset, workers: int, progress: ProgressCallback | None
) -> list[tuple[str, str]]:
    known = replace(dataset, files=_known_files(manifest))
    by_stamps = replace(known, trust="stat").scan(manifest, workers=workers)
    scan = replace(known, trust="content").scan(manifest, workers=workers, progress=progress)
    touched = set(by_stamps.changed)
    reasons = dict(scan.skipped)
    found = [
        (path, f"could not be checked: {reason}") for path, reason in scan.faults if not _is_gone(dataset.path / path)
    ]
    for path in scan.changed:
        silently = "" if path in touched else ", though its stamps did not"
        reason = reasons.get(path) or f"its bytes changed since its features were computed{silently}"
        if reason == _LEADS_OUT:
            reason = f"could not be checked: {reason}; to repair without --follow-links gives up its features"
        elif reason.startswith(_UNREAD):
            reason = f"could not be checked: {reason}"
        found.append((path, reason))
    return found


def repair(
    dataset: Dataset | PathLike, *, workers: int | None = None, progress: ProgressCallback | None = None
) -> PreprocessResult:
    """Compute again what is damaged in a dataset's cache, or was computed from other bytes than its files have now.

    Every row and every file is checked; what the rows are is taken from the cache itself. Parameters and errors are
    those of `preprocess_complex_spectrograms`.

    Raises
    ------
    CacheError
        If not even the manifest can be read: only preprocessing with the options that were used helps then.
    """
    from distill.preprocess.pipeline import preprocess  # noqa: PLC0415 - torch takes seconds; to verify needs none

    dataset = Dataset.of(dataset)
    dataset.check()
    manifest = require_manifest(dataset.cache_path)
    header = json.loads(manifest.header)
    config = TrainingConfig(
        complex_spectrogram=ComplexSpectrogramConfig(**header["complex_spectrogram_config"]),
        augmentation=AugmentationConfig(**(header["augmentation_config"] or {})),
        augmentation_expansion=None if header["expansion_is_chosen"] else header["augmentation_expansion"],
        **{name: header[name] for name in ("chunk_samples", "normalize")},
        cache_dtype=header["dtype"],
    )
    known = replace(dataset, files=_known_files(manifest), trust="content")
    return preprocess(known, config, workers=workers, check_packs=True, progress=progress)
