"""A dataset to its cache: the one place that composes index, decoding, features and store."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill import _native
from distill.audio.augmentation import check_available
from distill.audio.chunking import SILENT
from distill.audio.decode import DECODER_VERSION, duration_s
from distill.cache.compaction import compact_if_wasteful
from distill.cache.manifest import MANIFEST_NAME, fingerprint, open_manifest, row_shape
from distill.cache.reader import CacheReader
from distill.cache.writer import CacheWriter, check_space, storage_error
from distill.config import (
    AugmentationConfig,
    CacheDtype,
    ComplexSpectrogramConfig,
    Normalize,
    TrainingConfig,
    collecting_faults,
)
from distill.device import resolve_device
from distill.errors import CacheError, ConfigError, PreprocessingCancelled, StorageError
from distill.features import FEATURE_VERSION
from distill.features.spectrogram import ComplexSpectrogram
from distill.index import Dataset, Trust, check_workers
from distill.preprocess.extraction import Extractor, Failed, Finished, Rows, Source, extract
from distill.preprocess.result import PreprocessResult, log_found, nothing_usable
from distill.text import counted, differences
from distill.types import ConfirmCallback, PathLike, ProgressCallback

logger = logging.getLogger(__name__)

CONFIRM_ABOVE_BYTES = 100_000_000
_SMALL_DATASET_FILES = 1000
_SMALL_DATASET_EXPANSION = 4


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
        Files of the dataset, absolute or relative to it; None: every audio file under it.
    dataset_dir : path
        The folder.
    complex_spectrogram_config : ComplexSpectrogramConfig
        The feature.
    augmentation_config : AugmentationConfig, optional
        Ranges of the variants. Default: ``AugmentationConfig()``.
    augmentation_expansion : int
        Variants of each chunk beside the original. Default: 0.
    chunk_samples : int
        Length of a chunk, samples. Default: 48000.
    sample_rate : int
        Hz; the same as the feature's. Default: 48000.
    progress_callback : callable, optional
        Called with (stage, current, total); stages are "check" (packs that something touched), "scan", "hash" and
        "features".
    confirm_callback : callable, optional
        Asked with a message before more than 100 MB are written.
    cache_dir : path, optional
        Default: DATASET/.cache.
    device : str
        Where features are computed: "auto", "cpu", "cuda", "cuda:N" or "mps". Default: "auto".
    workers : int, optional
        Threads. Default: one a core.
    normalize : {"file", "chunk", "none"}
        What is scaled to a peak of 1. Default: "file".
    cache_dtype : {"float32", "float16"}
        How rows are kept. Default: "float32".
    trust : {"stat", "content"}
        When a file counts as unchanged: its stamps are those recorded, or, read anew, its bytes. Default: "stat".
    follow_links : bool
        Follow symbolic links that lead out of the dataset, and links to folders. Default: False.

    Returns
    -------
    cache_dir : Path
    normalization_stats : dict
        mag_mean, mag_std, if_mean, if_std over all rows.

    Raises
    ------
    ConfigError
        If the configuration cannot be used.
    DatasetError
        If the dataset is no folder, or holds no audio.
    NothingUsableError
        If no file gives a single chunk.
    PreprocessingCancelled
        If `confirm_callback` returned False.
    StorageError
        If the cache cannot be written; what was finished is kept.
    """
    if sample_rate != complex_spectrogram_config.sample_rate:
        raise ConfigError(
            [f"sample_rate={sample_rate} must be the feature's, {complex_spectrogram_config.sample_rate}"]
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
        Dataset(dataset_dir, files, cache_dir, follow_links, trust),
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
    """Bring a dataset's cache up to date for a training configuration; what commands and training call.

    Parameters
    ----------
    dataset : Dataset or path
        The folder of audio, and where its features are kept.
    config : TrainingConfig
        What a row is; an `augmentation_expansion` of None is chosen here, so that every caller gets the same.
    workers : int, optional
        Threads. Default: one a core.
    check_packs : bool
        Check every row's checksum, not only those of packs that something touched. Default: False.
    progress, confirm : callable, optional
        As `progress_callback` and `confirm_callback` of `preprocess_complex_spectrograms`.

    Returns
    -------
    PreprocessResult

    Raises
    ------
    DistillError
        As `preprocess_complex_spectrograms`.
    """
    dataset = Dataset.of(dataset)
    workers = check_workers(workers)
    dataset.check()
    job = _Job(
        dataset=dataset,
        config=config,
        workers=workers,
        check_packs=check_packs,
        progress=progress or (lambda stage, current, total: None),
        confirm=confirm,
    )
    return job.run()


@dataclass(kw_only=True)
class _Job:
    """One call of `preprocess`."""

    dataset: Dataset
    config: TrainingConfig
    workers: int
    check_packs: bool
    progress: ProgressCallback
    confirm: ConfirmCallback | None

    def __post_init__(self) -> None:
        self.start = time.monotonic()
        self.cache_dir = self.dataset.cache_path
        self.device = resolve_device(self.config.device)
        self.spectrogram = ComplexSpectrogram(self.config.complex_spectrogram)
        self.changed_fields: list[str] = []
        self.decoded = 0
        self.failed: list[tuple[str, str]] = []

    def run(self) -> PreprocessResult:
        if self._is_new():
            # Said before anything is written: a folder without audio gets no cache.
            self.dataset.require_audio(self._scan(_native.Manifest(), hash_added=False))
        try:
            with CacheWriter(self.cache_dir, self._say_waiting) as writer:
                result = self._update(writer)
        except StorageError as error:
            # A read-only dataset is as good as any while nothing has changed, and nothing is to be repaired.
            result = None if self.check_packs else self._unchanged()
            if result is None:
                raise
            logger.info("%s; nothing has changed, so it need not be", error)
        if not result.rows:
            raise nothing_usable(self.dataset.path, result.skipped)
        return result

    def _is_new(self) -> bool:
        try:
            (self.cache_dir / MANIFEST_NAME).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError as error:
            raise storage_error(self.cache_dir, error) from error
        return False

    def _say_waiting(self) -> None:
        logger.info("another process is preprocessing this dataset: waiting for it")

    def _scan(self, manifest: _native.Manifest, *, hash_added: bool = True) -> _native.Scan:
        return self.dataset.scan(manifest, workers=self.workers, hash_added=hash_added, progress=self.progress)

    def _resolve(self, manifest: _native.Manifest, n_files: int) -> None:
        """Settle what the configuration leaves open, and what that makes of a row."""
        header = json.loads(manifest.header)
        expansion = self.config.augmentation_expansion
        self.is_chosen = expansion is None
        if expansion is None:
            expansion = self._choose_expansion(header, n_files)
            logger.info("chosen: augmentation_expansion=%d", expansion)
        self.expansion: int = expansion
        if expansion:
            check_available(self.config.augmentation)
        self.identity = self._identity(expansion)
        if header and header["config_fingerprint"] != fingerprint(self.identity):
            self.changed_fields = differences(header["identity"], self.identity)

    def _choose_expansion(self, header: Mapping[str, Any], n_files: int) -> int:
        """What was chosen before, so that a file more does not compute everything anew; else by the size."""
        before = header.get("augmentation_expansion", 0)
        if header.get("expansion_is_chosen") and header["config_fingerprint"] == fingerprint(self._identity(before)):
            return before
        return _SMALL_DATASET_EXPANSION if n_files <= _SMALL_DATASET_FILES else 0

    def _identity(self, expansion: int) -> dict[str, Any]:
        versions = {"feature_version": FEATURE_VERSION, "decoder_version": DECODER_VERSION}
        return self.config.identity(expansion) | versions

    def _unchanged(self) -> PreprocessResult | None:
        """The result if the cache already has everything, without writing; else None."""
        manifest = open_manifest(self.cache_dir)
        if manifest is None:
            return None
        scan = self._scan(manifest)
        self._resolve(manifest, scan.n_files)
        rows = manifest.live()
        manifest.apply(scan)
        # A copy of what is known, or a file that is gone, leaves nothing to do, and yet other rows to serve.
        if self.changed_fields or scan.todo or manifest.live() != rows:
            return None
        try:
            # That its packs are there. What was checked beyond that could not be noted, and readers check every row.
            CacheReader(self.cache_dir)
        except CacheError as error:
            logger.warning("%s", error)
            return None
        return self._result(manifest, scan)

    def _update(self, writer: CacheWriter) -> PreprocessResult:
        manifest = writer.manifest
        writer.drop_damaged(every=self.check_packs, progress=self.progress)
        scan = self._scan(manifest)
        self.dataset.require_audio(scan)
        self._resolve(manifest, scan.n_files)
        if self.changed_fields:
            logger.info("the cache is computed anew: %s", "; ".join(self.changed_fields))
            manifest.clear_contents()
            scan = self._scan(manifest)
        log_found(self.dataset.path, scan, is_walk=self.dataset.files is None)
        root = os.fsencode(self.dataset.folder)
        sources = [Source(os.fsdecode(os.path.join(root, path)), todo_hash) for path, todo_hash, _ in scan.todo]
        if sources:
            # A backend that was asked for and cannot is an error here, before anything is computed.
            chunk = torch.empty((1, 1, self.config.chunk_samples), device=self.device)
            writer.backend = self.spectrogram.backend_for(chunk)
            durations = [duration_s(source.path) for source in sources]
            self._check_need(durations)
            # Longest first, so that no thread has a long one left to do when the others have ended.
            by_length = sorted(zip(durations, sources, strict=True), key=lambda pair: -pair[0])
            sources = [source for _, source in by_length]
        writer.dirty = manifest.apply(scan) or writer.dirty or bool(self.changed_fields)
        writer.begin(self.identity, asdict(self.config.complex_spectrogram), expansion_is_chosen=self.is_chosen)
        self._extract(writer, sources)
        writer.finish()
        if writer.has_committed:
            compact_if_wasteful(writer)
        return self._result(manifest, scan)

    def _check_need(self, durations: Sequence[float]) -> None:
        """Say what the features need, and ask, before the work starts."""
        config = self.config
        chunk_s = config.chunk_samples / config.complex_spectrogram.sample_rate
        chunks = sum(math.ceil(duration / chunk_s) for duration in durations)
        rows = chunks * (1 + self.expansion)
        shape = row_shape(config.complex_spectrogram, config.chunk_samples)
        needed = rows * math.prod(shape) * np.dtype(config.cache_dtype).itemsize
        work = f"{counted(len(durations), 'file')} to compute: {counted(rows, 'row')}"
        message = f"{work}, {needed / 1e6:.0f} MB in {self.cache_dir}"
        logger.info("%s, on %s", message, self.device)
        check_space(self.cache_dir, needed)
        if needed > CONFIRM_ABOVE_BYTES and self.confirm and not self.confirm(f"{message}. Go on?"):
            raise PreprocessingCancelled("preprocessing was cancelled before anything was computed")

    def _extract(self, writer: CacheWriter, sources: Sequence[Source]) -> None:
        extractor = Extractor(self.spectrogram, self.device, self.config, self.expansion)
        ended = 0
        with closing(extract(extractor, sources, min(self.workers, max(1, len(sources))))) as events:
            for event in events:
                if isinstance(event, Rows):
                    writer.add_rows(event.source.content_hash, event.rows)
                else:
                    ended += 1
                    self._end(writer, event)
                # With rows too: a file of hours must not make a caller wait who wants to stop.
                self.progress("features", ended, len(sources))

    def _end(self, writer: CacheWriter, event: Finished | Failed) -> None:
        content_hash = event.source.content_hash
        if isinstance(event, Finished):
            self.decoded += 1
            if event.sums[0]:
                writer.finish_content(content_hash, event.silent, event.sums)
            else:
                writer.skip_content(content_hash, SILENT, event.silent)
        elif event.permanent:
            writer.skip_content(content_hash, event.reason)
        else:
            writer.drop_content(content_hash)
            self.failed.append((os.path.relpath(event.source.path, self.dataset.path), event.reason))

    def _result(self, manifest: _native.Manifest, scan: _native.Scan) -> PreprocessResult:
        header = json.loads(manifest.header)
        return PreprocessResult(
            cache_dir=self.cache_dir,
            normalization_stats=header["normalization_stats"],
            rows=header["total_spectrograms"],
            decoded=self.decoded,
            skipped=sorted([*manifest.skipped(), *scan.faults, *self.failed]),
            counts=dict(scan.counts),
            augmentation_expansion=self.expansion,
            changed_fields=self.changed_fields,
            seconds=time.monotonic() - self.start,
        )
