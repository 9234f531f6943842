"""Preprocessing: brings the cache of a dataset up to date. Composes index, decoding, features and cache.

In three acts: plan what has to be computed, extract the rows into packs, commit the manifest.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from distill.audio.chunking import SILENT
from distill.cache.compaction import compact_if_wasteful
from distill.cache.manifest import MANIFEST_NAME, open_manifest
from distill.cache.reader import CacheReader
from distill.cache.row_format import RowFormat
from distill.cache.writer import CacheWriter, cache_write_error
from distill.config import (
    AugmentationConfig,
    CacheDtype,
    ComplexSpectrogramConfig,
    Normalize,
    TrainingConfig,
    collecting_faults,
)
from distill.device import resolve_device
from distill.errors import CacheError, ConfigError, StorageError
from distill.features.spectrogram import ComplexSpectrogram
from distill.index import Dataset, Manifest, Scan, Trust, check_workers
from distill.preprocess.extraction import Extractor, Finished, Rows, Source, extract
from distill.preprocess.plan import Plan, confirm_plan, make_plan, resolve_row_format
from distill.preprocess.result import PreprocessResult, nothing_usable
from distill.types import ConfirmCallback, PathLike, ProgressCallback, no_progress

logger = logging.getLogger(__name__)


def preprocess_complex_spectrograms(
    files: Sequence[PathLike] | None,
    dataset_dir: PathLike,
    complex_spectrogram_config: ComplexSpectrogramConfig,
    augmentation_config: AugmentationConfig | None = None,
    augmentation_expansion: int = 0,
    chunk_samples: int = 48_000,
    sample_rate: int = 48_000,
    progress_callback: ProgressCallback | None = None,
    confirm_callback: ConfirmCallback | None = None,
    *,
    cache_dir: PathLike | None = None,
    device: str = "auto",
    workers: int | None = None,
    normalize: Normalize = "file",
    cache_dtype: CacheDtype = "float32",
    trust: Trust = "stat",
    follow_links: bool = False,
) -> tuple[Path, dict[str, float]]:
    """Compute the two-channel features of a dataset that are not in its cache yet.

    Parameters
    ----------
    files : sequence of path, or None
        Files of the dataset, absolute or relative to it; None: every audio file in it.
    dataset_dir : path
        The folder of audio.
    complex_spectrogram_config : ComplexSpectrogramConfig
        The feature.
    augmentation_config : AugmentationConfig, optional
        Ranges of the augmented variants. Default: ``AugmentationConfig()``.
    augmentation_expansion : int
        Augmented variants of each chunk, besides the original. Default: 0.
    chunk_samples : int
        Length S of a chunk, samples. Default: 48000.
    sample_rate : int
        Hz; must equal that of the feature. Default: 48000.
    progress_callback : callable, optional
        Called with (stage, current, total); stages are "check" (packs that were modified), "scan", "hash" and
        "features".
    confirm_callback : callable, optional
        Called with a question before more than 100 MB are written; returning False cancels.
    cache_dir : path, optional
        The cache folder. Default: DATASET/.cache.
    device : str
        Where features are computed: "auto", "cpu", "cuda", "cuda:N" or "mps". Default: "auto".
    workers : int, optional
        Number of threads. Default: one per core.
    normalize : {"file", "chunk", "none"}
        Scale each file, each chunk, or nothing to a peak of 1. Default: "file".
    cache_dtype : {"float32", "float16"}
        How values are stored. Default: "float32".
    trust : {"stat", "content"}
        A file counts as unchanged if its stamps (size, times, inode) are unchanged, or if its bytes are; "content"
        reads every file. Default: "stat".
    follow_links : bool
        Follow symbolic links that lead out of the dataset, and links to folders. Default: False.

    Returns
    -------
    cache_dir : Path
        The cache folder.
    normalization_stats : dict
        mag_mean, mag_std, if_mean, if_std over all rows.

    Raises
    ------
    ConfigError
        If the configuration cannot be used.
    DatasetError
        If the dataset is not a folder, or holds no audio.
    NothingUsableError
        If no file gives a single chunk.
    PreprocessingCancelled
        If `confirm_callback` returned False.
    StorageError
        If the cache cannot be written. What was finished is kept.
    """
    if sample_rate != complex_spectrogram_config.sample_rate:
        raise ConfigError(
            [f"sample_rate={sample_rate} must equal the feature's, {complex_spectrogram_config.sample_rate}"]
        )
    with collecting_faults():
        config = TrainingConfig(
            complex_spectrogram=replace(complex_spectrogram_config, enabled=True),
            augmentation=augmentation_config or AugmentationConfig(),
            augmentation_expansion=augmentation_expansion,
            chunk_samples=chunk_samples,
            normalize=normalize,
            cache_dtype=cache_dtype,
            device=device,
        )
    result = preprocess(
        Dataset(dataset_dir, files=files, cache_dir=cache_dir, follow_links=follow_links, trust=trust),
        config,
        workers=workers,
        progress=progress_callback,
        confirm=confirm_callback,
    )
    return result.cache_dir, result.normalization_stats


def preprocess(
    dataset: Dataset | PathLike,
    config: TrainingConfig,
    *,
    workers: int | None = None,
    check_packs: bool = False,
    progress: ProgressCallback | None = None,
    confirm: ConfirmCallback | None = None,
) -> PreprocessResult:
    """Bring the cache of a dataset up to date for a training configuration. Commands and training call this.

    Parameters
    ----------
    dataset : Dataset or path
        The dataset.
    config : TrainingConfig
        What a row is. An `augmentation_expansion` of None is chosen here, so that all callers get the same number.
    workers : int, optional
        Number of threads. Default: one per core.
    check_packs : bool
        Check the checksums of all rows, and not only of packs that were modified. Default: False.
    progress, confirm : callable, optional
        `progress_callback` and `confirm_callback` of `preprocess_complex_spectrograms`.

    Returns
    -------
    PreprocessResult

    Raises
    ------
    DistillError
        As `preprocess_complex_spectrograms`.
    """
    start = time.monotonic()
    dataset = Dataset.of(dataset)
    workers = check_workers(workers)
    dataset.check()
    run = _Run(
        dataset=dataset,
        config=config,
        workers=workers,
        device=resolve_device(config.device),
        spectrogram=ComplexSpectrogram(config.complex_spectrogram),
        progress=progress or no_progress,
    )
    if not _has_manifest(dataset.cache_path):
        # Checked before the cache folder is made: a folder without audio gets no cache.
        dataset.require_audio(dataset.scan(Manifest(), workers=workers, hash_added=False, progress=run.progress))
    try:
        with CacheWriter(dataset.cache_path) as writer:
            writer.drop_damaged(every=check_packs, progress=run.progress)
            result = _update(run, writer, confirm)
    except StorageError as error:
        # A cache on a read-only disk can be used as long as nothing has changed and no repair is requested.
        result = None if check_packs else _unchanged(run)
        if result is None:
            raise
        logger.info("%s; nothing has changed, so nothing has to be written", error)
    if not result.rows:
        raise nothing_usable(dataset.path, result.skipped)
    return replace(result, seconds=time.monotonic() - start)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """The arguments of a call of `preprocess`, checked, and what follows from them."""

    dataset: Dataset
    config: TrainingConfig
    workers: int
    device: torch.device
    spectrogram: ComplexSpectrogram
    progress: ProgressCallback


def _has_manifest(cache_dir: Path) -> bool:
    try:
        (cache_dir / MANIFEST_NAME).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise cache_write_error(cache_dir, error) from error
    return True


def _update(run: _Run, writer: CacheWriter, confirm: ConfirmCallback | None) -> PreprocessResult:
    """Plan, extract, commit."""
    plan = make_plan(run.dataset, run.config, writer.manifest, workers=run.workers, progress=run.progress)
    if plan.sources:
        # Raises, before anything is computed, if the requested backend cannot compute such chunks.
        chunk = torch.empty((1, 1, run.config.chunk_samples), dtype=torch.float32, device=run.device)
        writer.backend = run.spectrogram.backend_for(chunk)
        confirm_plan(plan, run.dataset.cache_path, run.device, confirm)

    has_changes = writer.manifest.apply(plan.scan) or bool(plan.changed_fields)
    writer.dirty = writer.dirty or has_changes
    writer.begin(plan.row_format)
    decoded, failed = _extract(run, writer, plan)

    writer.finish()
    if writer.has_committed:
        compact_if_wasteful(writer)
    return _result(
        run.dataset.cache_path,
        writer.manifest,
        plan.scan,
        plan.row_format,
        decoded=decoded,
        failed=[(os.path.relpath(source.path, run.dataset.path), reason) for source, reason in failed],
        changed_fields=plan.changed_fields,
    )


def _extract(run: _Run, writer: CacheWriter, plan: Plan) -> tuple[int, list[tuple[Source, str]]]:
    """Compute the rows of the planned sources and hand them to the writer.

    Returns
    -------
    decoded : int
        Number of sources whose rows were computed.
    failed : list of (Source, reason)
        Sources that could not be read this time. Sources that never can be are recorded in the manifest instead.
    """
    extractor = Extractor(run.spectrogram, run.device, run.config, plan.row_format.expansion)
    ended, decoded, failed = 0, 0, []
    with closing(extract(extractor, plan.sources, min(run.workers, max(1, len(plan.sources))))) as events:
        for event in events:
            content_hash = event.source.content_hash
            if isinstance(event, Rows):
                writer.add_rows(content_hash, event.rows)
            elif isinstance(event, Finished):
                decoded += 1
                if event.sums[0]:
                    writer.finish_content(content_hash, event.silent, event.sums)
                else:
                    writer.skip_content(content_hash, SILENT, event.silent)
            elif event.permanent:
                writer.skip_content(content_hash, event.reason)
            else:
                writer.drop_content(content_hash)
                failed.append((event.source, event.reason))
            ended += not isinstance(event, Rows)
            # Also after rows, so that the callback can cancel in the middle of a long file.
            run.progress("features", ended, len(plan.sources))
    return decoded, failed


def _unchanged(run: _Run) -> PreprocessResult | None:
    """Return the result if the cache already has everything, without writing; else None."""
    cache_dir = run.dataset.cache_path
    manifest = open_manifest(cache_dir)
    if manifest is None:
        return None
    scan = run.dataset.scan(manifest, workers=run.workers, progress=run.progress)
    header = json.loads(manifest.header)
    row_format = resolve_row_format(run.config, header, scan.n_files)
    rows = manifest.live()
    manifest.apply(scan)
    # A copy of a known file, or a removed file, needs no decoding, but changes which rows belong to the dataset.
    if row_format.changed_fields(header) or scan.todo or manifest.live() != rows:
        return None
    try:
        # Checks that the packs exist. The rows are checked when they are read.
        CacheReader(cache_dir)
    except CacheError as error:
        logger.warning("%s", error)
        return None
    return _result(cache_dir, manifest, scan, row_format)


def _result(
    cache_dir: Path,
    manifest: Manifest,
    scan: Scan,
    row_format: RowFormat,
    *,
    decoded: int = 0,
    failed: Sequence[tuple[str, str]] = (),
    changed_fields: Sequence[str] = (),
) -> PreprocessResult:
    header = json.loads(manifest.header)
    return PreprocessResult(
        cache_dir=cache_dir,
        normalization_stats=header["normalization_stats"],
        rows=header["total_spectrograms"],
        decoded=decoded,
        skipped=sorted([*manifest.skipped(), *scan.faults, *failed]),
        counts=dict(scan.counts),
        augmentation_expansion=row_format.expansion,
        changed_fields=list(changed_fields),
    )
