"""A run that finds nothing to do, from manifest and index alone: without numpy, torch, decoders, or the lock."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from distill import _native
from distill.audio.versions import installed_decoder_version
from distill.cache.folder import FILES_NAME, is_prepared
from distill.cache.manifest import MANIFEST_NAME, PACKS_NAME, PARTS_NAME, load_manifest
from distill.cache.pack_info import PackInfo, has_stamps, is_pack_name
from distill.cache.row_format import fingerprint
from distill.cache.slots import exists, slot_path
from distill.config import TrainingConfig
from distill.errors import CacheError, DatasetError
from distill.extensions import NEEDS_FFMPEG
from distill.features import FEATURE_VERSION
from distill.features.backend_names import resolve_backend
from distill.features.scales import has_wide_bands
from distill.index import Dataset, check_workers
from distill.preprocess.identity import chosen_before, row_identity
from distill.preprocess.result import PreprocessResult, known_result, log_found
from distill.storage import TEMPORARY
from distill.types import ProgressCallback, Reason, hands_on_errors_of_progress

logger = logging.getLogger(__name__)

_UNREADABLE = (OSError, CacheError, _native.ManifestError, _native.NewerFormatError)


@hands_on_errors_of_progress
def unchanged_result(
    dataset: Dataset, config: TrainingConfig, *, workers: int | None = None, progress: ProgressCallback | None = None
) -> PreprocessResult | None:
    """Return and log what `preprocess` would, if it had nothing to do.

    It writes nothing, and says nothing unless it returns a result. Whatever is unusual is left to `preprocess`, also
    how to report it.

    Parameters
    ----------
    dataset, config, workers, progress
        Those of `preprocess`.

    Returns
    -------
    PreprocessResult or None
        None if there may be something to do.

    Raises
    ------
    DatasetError
        If there is no such folder.
    ConfigError
        If `workers` is less than 1, or the environment names no backend.
    """
    start = time.monotonic()
    check_workers(workers)
    resolve_backend("auto")
    dataset.check()
    if not _is_usual(dataset, config):
        return None
    try:
        slot = _slot(dataset.cache_path, config)
        found = slot and _compared(dataset, slot, workers, progress)
    except (*_UNREADABLE, DatasetError):
        return None
    if not slot or not found:
        return None
    manifest, scan = found
    expansion: int = json.loads(manifest.header)["augmentation_expansion"]
    result = known_result(slot, manifest, scan, expansion)
    if not result.rows:
        return None
    if config.augmentation_expansion is None:
        logger.info("chosen: augmentation_expansion=%d", expansion)
    log_found(dataset.path, scan, is_walk=dataset.files is None)
    with suppress(OSError):
        os.utime(slot)
    return replace(result, seconds=time.monotonic() - start)


def _is_usual(dataset: Dataset, config: TrainingConfig) -> bool:
    """Whether nothing is asked for that has to be looked at with torch, numpy or other packages."""
    return (
        dataset.trust == "stat"
        and config.device in ("auto", "cpu")
        and not config.augmentation.pitch_semitones
        and has_wide_bands(config.complex_spectrogram)
    )


def _slot(cache_dir: Path, config: TrainingConfig) -> Path | None:
    """Return the slot of a configuration, if nothing has to be done to its folders."""
    decoder = installed_decoder_version()
    if decoder is None or not is_prepared(cache_dir):
        return None
    versions = {"feature_version": FEATURE_VERSION, "decoder_version": decoder}
    expansion = config.augmentation_expansion
    if expansion is None:
        expansion = chosen_before(config, cache_dir, versions)
    if expansion is None:
        return None
    slot = slot_path(cache_dir, fingerprint(row_identity(config, expansion, versions)))
    # Other machines may have left parts of their work.
    is_plain = exists(slot / MANIFEST_NAME) and not exists(slot / PARTS_NAME)
    return slot if is_plain and not any(path.is_symlink() for path in (slot.parent, slot, slot / PACKS_NAME)) else None


def _compared(
    dataset: Dataset, slot: Path, workers: int | None, progress: ProgressCallback | None
) -> tuple[_native.Manifest, _native.Scan] | None:
    """Return the manifest of a slot, and the scan of a dataset that finds it up to date; else None."""
    known = _native.FileTable.load(dataset.cache_path / FILES_NAME, progress)
    manifest = load_manifest(slot, known, progress)
    if manifest is None or slot.name != json.loads(manifest.header)["config_fingerprint"][: len(slot.name)]:
        return None
    if any(Reason.of(reason).code == NEEDS_FFMPEG for _, reason in manifest.skipped()):
        return None
    packs = [PackInfo.of(entry) for entry in manifest.packs()]
    if not all(has_stamps(slot / PACKS_NAME / info.name, info) for info in packs):
        return None
    if _has_leftovers(dataset.cache_path, slot, {info.name for info in packs}):
        return None
    # FFmpeg is not loaded: if it is there and fails to load, files that need it were skipped, or are not known.
    scan = dataset.scan(manifest, known=known, workers=workers, hashing="none", loads_ffmpeg=False, progress=progress)
    # The changes of both are not saved, so there must be none.
    if not scan.n_files or scan.n_todo or scan.faults or manifest.apply(scan) or known.apply(scan):
        return None
    return manifest, scan


def _has_leftovers(cache_dir: Path, slot: Path, packs: Collection[str]) -> bool:
    """Whether a writer that was killed left files that `preprocess` removes."""
    partial = any(TEMPORARY.fullmatch(path.name) for folder in (cache_dir, slot) for path in folder.iterdir())
    named = (path.name for path in (slot / PACKS_NAME).iterdir())
    return partial or any(is_pack_name(name) and name not in packs for name in named)
