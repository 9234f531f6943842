"""One job of many that preprocess a dataset together, with nothing in common but the storage."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill import _native
from distill.availability import RootFolder
from distill.cache.disk import cache_write_error
from distill.cache.folder import load_file_table
from distill.cache.lock import LockedError
from distill.cache.manifest import open_manifest
from distill.cache.parts import in_groups, listed_by, load_parts, share
from distill.cache.row_format import RowFormat
from distill.cache.slots import slot_path
from distill.cache.writer import CacheWriter
from distill.config import TrainingConfig
from distill.index import Dataset, Hashing
from distill.preprocess.parts import Job, Part, extract_part, make_parts
from distill.preprocess.plan import Sources, divided, longest_first
from distill.preprocess.recording import Extracted
from distill.preprocess.retries import forget_what_can_be_read
from distill.preprocess.shares import Shard
from distill.preprocess.threads import CheckStop, in_threads
from distill.text import counted
from distill.types import ProgressCallback

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """What is computed already.

    Attributes
    ----------
    manifest : _native.Manifest
        That of the slot, with all parts.
    files : _native.FileTable
        The hashes of files.
    adopted : int
        Number of files of other jobs that were added to the slot by this call.
    """

    manifest: _native.Manifest
    files: _native.FileTable
    adopted: int = 0


def commit_parts(cache_dir: Path, row_format: RowFormat, progress: ProgressCallback | None = None) -> Known:
    """Adopt the parts of a slot and commit, unless another process holds the lock. Return what the slot then has.

    Raises
    ------
    StorageError
        If the cache cannot be written.
    CacheError
        If it cannot be read.
    """
    try:
        with CacheWriter(cache_dir, wait=False, progress=progress) as writer:
            writer.open(row_format)
            writer.drop_damaged()
            if writer.adopted or writer.dirty:
                writer.finish()
            return Known(writer.manifest, writer.files, writer.adopted)
    except LockedError:
        logger.info("another process is using this cache: it, or the next one, adopts what is computed here")
    slot_dir = slot_path(cache_dir, row_format.fingerprint)
    table = load_file_table(cache_dir, progress)
    known = Known(open_manifest(slot_dir, table, progress) or _native.Manifest(), table)
    for parts in in_groups(load_parts(slot_dir, row_format)):
        listed = listed_by(parts)
        known.manifest.adopt(listed)
        known.files.adopt(listed.file_table())
    return known


def extract_shard(
    dataset: Dataset,
    root: RootFolder,
    config: TrainingConfig,
    row_format: RowFormat,
    shard: Shard,
    *,
    workers: int,
    progress: ProgressCallback,
) -> tuple[Extracted, _native.Scan, Known]:
    """Compute a shard's files that neither the slot nor a part has, in parts, and commit them if nobody else does now.

    Returns
    -------
    extracted : Extracted
        What was decoded.
    scan : Scan
        The comparison of the whole dataset with the slot, before.
    known : Known
        What the slot has afterwards.

    Raises
    ------
    DistillError
        As `preprocess_complex_spectrograms`.
    """
    try:
        # First of all, so that no other job takes the folder for one that nobody needs.
        share(slot_path(dataset.cache_path, row_format.fingerprint))
    except OSError as error:
        raise cache_write_error(dataset.cache_path, error) from error
    before = commit_parts(dataset.cache_path, row_format, progress)
    forget_what_can_be_read(before.manifest)
    # Nothing is hashed, unless the user trusts content alone: each file is hashed by the job that decodes it.
    hashing: Hashing = "all" if dataset.trust == "content" else "none"
    scan = dataset.scan(before.manifest, known=before.files, workers=workers, hashing=hashing, progress=progress)
    dataset.require_audio(scan)
    numbers = np.array([number for number in range(scan.n_todo) if shard.has(scan.todo_at(number)[0])], np.int64)
    copies, copied, own = divided(dataset.cache_path, row_format, Sources(dataset.folder, scan, numbers))
    if copies:
        message = "%s left to the next run without --shard, which copies the rows from slot %s"
        logger.info(message, counted(len(copied), "file"), copies.slot)
    logger.info("shard %d of %d: %s to compute", shard.number, shard.count, counted(len(own), "file"))
    sources, durations = longest_first(own, workers, progress)
    parts = make_parts(sources, durations.tolist(), row_format, least=2 * workers)
    # Of files that were renamed, or touched, the hash is found while they are decoded.
    known = frozenset((*before.manifest.kept().content_hashes, *before.manifest.unused_contents()))
    job = Job(dataset.path, dataset.cache_path, config, row_format, Path(tempfile.gettempdir()), known, root)
    found = Extracted()
    try:
        # Closed here, so that the parts are saved wherever an interruption comes.
        with closing(_in_threads(job, parts, workers)) as results:
            for extracted in results:
                found.add(extracted)
                progress("features", found.ended, len(own))
    except OSError as error:
        raise cache_write_error(dataset.cache_path, error) from error
    after = commit_parts(dataset.cache_path, row_format, progress)
    return found, scan, Known(after.manifest, after.files, before.adopted + max(0, after.adopted - found.ended))


def _in_threads(job: Job, parts: Sequence[Part], workers: int) -> Generator[Extracted, None, None]:
    def work(part: Part, check_stop: CheckStop) -> Iterator[Extracted]:
        yield extract_part(job, part, check_stop)

    with closing(in_threads(work, parts, workers)) as results:
        yield from results
