"""Preprocessing: brings the cache of a dataset up to date. Composes index, decoding, features and cache.

In three acts: plan what has to be computed, extract the rows into packs, commit the manifest.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from distill.availability import RootFolder
from distill.cache.compaction import compact_if_wasteful
from distill.cache.disk import cache_write_error
from distill.cache.folder import load_file_table
from distill.cache.manifest import open_manifest
from distill.cache.parts import share
from distill.cache.reader import CacheReader
from distill.cache.row_format import RowFormat
from distill.cache.slots import find_slot, slot_formats, slot_path
from distill.cache.writer import CacheWriter
from distill.config import TrainingConfig
from distill.device import resolve_device
from distill.errors import CacheError, StorageError
from distill.features.backend_names import resolve_backend
from distill.features.mel import MelSpec, empty_bands
from distill.index import Dataset, Hashing, Manifest, Scan, check_workers
from distill.preprocess.events import Source
from distill.preprocess.parts import Engine, Job, make_parts
from distill.preprocess.plan import Plan, Sources, confirm_plan, make_plan, resolve_row_format
from distill.preprocess.recording import Extracted, Recorder
from distill.preprocess.result import PreprocessResult, known_result, nothing_usable
from distill.preprocess.retries import forget_what_can_be_read
from distill.preprocess.shard import extract_shard
from distill.preprocess.shares import Shard
from distill.text import counted
from distill.types import ConfirmCallback, PathLike, ProgressCallback, hands_on_errors_of_progress, no_progress

logger = logging.getLogger(__name__)


@hands_on_errors_of_progress
def preprocess(
    dataset: Dataset | PathLike,
    config: TrainingConfig,
    *,
    workers: int | None = None,
    check_packs: bool = False,
    row_format: RowFormat | None = None,
    shard: Shard | None = None,
    engine: Engine | None = None,
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
    row_format : RowFormat, optional
        What `config` makes of a row, where it leaves the number of variants open. Default: as in the slot last used.
    shard : Shard, optional
        Compute only this share of the files, as parts, which this or another process adopts. Default: all of them.
    engine : callable, optional
        What computes the parts of the work, on several machines. Default: threads of this process.
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
    # These raise, before anything is read, if this machine has no such device, or the environment names no backend.
    if config.device not in ("auto", "cpu"):
        resolve_device(config.device)
    resolve_backend("auto")
    dataset.check()
    run = _Run(
        dataset=dataset,
        root=RootFolder.at(dataset.path),
        config=config,
        workers=workers,
        progress=progress or no_progress,
        engine=engine,
    )
    if message := empty_bands(MelSpec.of(config.complex_spectrogram)):
        logger.warning("%s", message)
    cache_dir = dataset.cache_path
    if not slot_formats(cache_dir):
        # Checked before the cache folder is made: a folder without audio gets no cache.
        run.require_audio()
    if shard is not None:
        row_format = row_format or resolve_row_format(config, cache_dir, run.require_audio)
        return replace(_shard(run, row_format, shard), seconds=time.monotonic() - start)
    try:
        with CacheWriter(cache_dir, progress=run.progress) as writer:
            writer.open(row_format or resolve_row_format(config, cache_dir, run.require_audio))
            writer.drop_damaged(every=check_packs, progress=run.progress)
            result = _update(run, writer, confirm)
            writer.mark_used()
    except StorageError as error:
        # A cache on a read-only disk can be used as long as nothing has changed and no repair is requested.
        unchanged = None if check_packs else _unchanged(run)
        if unchanged is None:
            raise
        result = unchanged
        logger.info("%s; nothing has changed, so nothing has to be written", error)
    except OSError:
        # The folder of the dataset may be gone since it was checked.
        run.root.check()
        raise
    if not result.rows:
        raise nothing_usable(dataset.path, result.skipped, result.unread)
    return replace(result, seconds=time.monotonic() - start)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """The arguments of a call of `preprocess`, checked, and what follows from them."""

    dataset: Dataset
    root: RootFolder
    config: TrainingConfig
    workers: int
    progress: ProgressCallback
    engine: Engine | None

    def require_audio(self) -> int:
        """Return the number of audio files, without opening any; raise DatasetError if there is none."""
        scan = self.dataset.scan(Manifest(), workers=self.workers, hash_added=False, progress=self.progress)
        self.dataset.require_audio(scan)
        return scan.n_files


def _update(run: _Run, writer: CacheWriter, confirm: ConfirmCallback | None) -> PreprocessResult:
    """Plan, extract, commit."""
    hashing: Hashing = "same-size" if run.engine is None or run.dataset.trust == "content" else "none"
    plan = make_plan(run.dataset, run.config, writer, workers=run.workers, progress=run.progress, hashing=hashing)
    has_work = bool(plan.sources or plan.copies)
    job = Job(run.dataset.path, writer.cache_dir, run.config, writer.row_format, writer.cache_dir, root=run.root)
    if has_work:
        # Raises, before anything is computed, if the requested backend cannot compute such chunks.
        writer.use_backend(job.extractor.backend)
        confirm_plan(plan, run.dataset.cache_path, job.extractor.device, confirm)
    writer.dirty = writer.manifest.apply(plan.scan) or writer.dirty
    extracted = _compute(run, writer, plan, job) if has_work else Extracted()
    writer.finish()
    if writer.has_committed:
        compact_if_wasteful(writer)
    return _result(
        writer.slot_dir,
        writer.manifest,
        plan.scan,
        writer.row_format,
        extracted=extracted,
        adopted=writer.adopted,
        changed_fields=plan.changed_fields,
    )


def _compute(run: _Run, writer: CacheWriter, plan: Plan, job: Job) -> Extracted:
    """Copy and compute what is planned."""
    damaged = _copy(run, writer, plan)
    writer.use_backend(job.extractor.backend)
    sources = [*plan.sources, *damaged] if damaged else plan.sources
    if run.engine is None:
        return _extract(run, writer, job, sources)
    return _extract_parts(run, run.engine, writer, plan, job, sources)


def _copy(run: _Run, writer: CacheWriter, plan: Plan) -> list[Source]:
    """Copy the rows that another slot has; return the sources that have to be computed, because those are damaged."""
    if plan.copies is None:
        return []
    damaged = []
    sources = {source.content_hash: source for source in plan.copied}
    for number, (content_hash, is_done) in enumerate(plan.copies.copy(writer), 1):
        if not is_done:
            damaged.append(sources[content_hash])
        run.progress("features", number, len(sources))
    logger.info("%s of features copied from slot %s", counted(plan.copies.rows, "row"), plan.copies.slot)
    return damaged


def _extract(run: _Run, writer: CacheWriter, job: Job, sources: Sequence[Source]) -> Extracted:
    """Compute the rows of some sources and hand them to the writer."""
    extractor = replace(job.extractor, unused=frozenset(writer.manifest.unused_contents()))
    recorder = Recorder(writer, run.dataset.path)
    with closing(extractor.run(sources, run.workers)) as events:
        for event in events:
            recorder.record(event)
            # Also after rows, so that the callback can cancel in the middle of a long file.
            run.progress("features", recorder.found.ended, len(sources))
    return recorder.found


def _extract_parts(
    run: _Run, engine: Engine, writer: CacheWriter, plan: Plan, job: Job, sources: Sequence[Source]
) -> Extracted:
    """Let an engine compute the rows of some sources, and adopt its parts as they end."""
    planned = dict(zip(plan.sources, plan.durations, strict=True))
    parts = make_parts(sources, [planned.get(source, 0.0) for source in sources], writer.row_format)
    found, is_whole = Extracted(), True
    try:
        share(job.slot_dir)
        with closing(engine(replace(job, spool_dir=Path(tempfile.gettempdir())), parts)) as results:
            for extracted in results:
                if extracted.path is not None:
                    is_whole &= writer.adopt_part(extracted.path)
                found.add(extracted)
                run.progress("features", found.ended, len(sources))
    except OSError as error:
        raise cache_write_error(writer.cache_dir, error) from error
    lost = [] if is_whole else _lost(run, writer, plan, found)
    if lost:
        logger.warning("%s of parts that were lost on the way: computed here", counted(len(lost), "file"))
        found.add(_extract(run, writer, job, lost))
    return found


def _lost(run: _Run, writer: CacheWriter, plan: Plan, found: Extracted) -> Sources:
    """Return the sources that an engine should have computed, and whose rows did not arrive."""
    scan = run.dataset.scan(
        writer.manifest, known=writer.files, workers=run.workers, hashing="none", progress=run.progress
    )
    failed = {path for path, _ in found.failed}
    names = (scan.todo_at(number)[0] for number in range(scan.n_todo))
    lost = [n for n, name in enumerate(names) if os.fsdecode(name) not in failed and plan.scan.stamps(name)]
    return Sources(run.dataset.folder, scan, np.array(lost, np.int64))


def _shard(run: _Run, row_format: RowFormat, shard: Shard) -> PreprocessResult:
    """Compute a share of the files."""
    extracted, scan, known = extract_shard(
        run.dataset, run.root, run.config, row_format, shard, workers=run.workers, progress=run.progress
    )
    slot = slot_path(run.dataset.cache_path, row_format.fingerprint)
    return _result(slot, known.manifest, scan, row_format, extracted=extracted, adopted=known.adopted)


def _unchanged(run: _Run) -> PreprocessResult | None:
    """Return the result if the cache already has everything, without writing; else None."""
    cache_dir = run.dataset.cache_path
    row_format = resolve_row_format(run.config, cache_dir, run.require_audio)
    slot = find_slot(cache_dir, row_format.fingerprint)
    if not slot:
        return None
    known = load_file_table(cache_dir, run.progress)
    manifest = open_manifest(slot, known, run.progress)
    if not manifest:
        return None
    forget_what_can_be_read(manifest)
    scan = run.dataset.scan(manifest, known=known, workers=run.workers, hashing="same-size", progress=run.progress)
    rows = manifest.live()
    manifest.apply(scan)
    # A copy of a known file, or a removed file, needs no decoding, but changes which rows belong to the dataset.
    if scan.n_todo or manifest.live() != rows:
        return None
    try:
        # Checks that the packs exist. The rows are checked when they are read.
        CacheReader(slot)
    except CacheError as error:
        logger.warning("%s", error)
        return None
    return _result(slot, manifest, scan, row_format)


def _result(
    cache_dir: Path,
    manifest: Manifest,
    scan: Scan,
    row_format: RowFormat,
    *,
    extracted: Extracted | None = None,
    adopted: int = 0,
    changed_fields: Sequence[str] = (),
) -> PreprocessResult:
    extracted = extracted or Extracted()
    return replace(
        known_result(cache_dir, manifest, scan, row_format.expansion),
        decoded=extracted.decoded,
        adopted=adopted,
        skipped=sorted([*manifest.skipped(), *scan.faults, *extracted.failed]),
        channels=dict(sorted(extracted.channels.items())),
        changed_fields=list(changed_fields),
        with_offset=sorted(extracted.with_offset),
    )
