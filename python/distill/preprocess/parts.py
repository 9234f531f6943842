"""Parts of the work: about one pack each, to be computed by any process on any machine that sees the storage."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from distill.availability import RootFolder
from distill.cache.pack import rows_that_fit
from distill.cache.parts import PartWriter, share
from distill.cache.row_format import RowFormat
from distill.cache.slots import slot_path
from distill.config import TrainingConfig
from distill.preprocess.events import Source
from distill.preprocess.recording import Extracted, Recorder
from distill.preprocess.threads import CheckStop

if TYPE_CHECKING:
    from distill.preprocess.extraction import Extractor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What a process needs to compute parts of a dataset. It can be pickled.

    Parameters
    ----------
    dataset_dir, cache_dir : Path
        The dataset and its cache, as every machine finds them.
    config : TrainingConfig
        What a row is.
    row_format : RowFormat
        The same, as the cache records it.
    spool_dir : Path
        Folder for temporary files, on each machine.
    known : frozenset of bytes
        Hashes of contents whose rows the slot has. A file that turns out to have one of them need not be computed.
    root : RootFolder, optional
        The folder of the dataset when it was scanned. Default: as it is when the first part is computed, because every
        machine has other numbers for it.
    """

    dataset_dir: Path
    cache_dir: Path
    config: TrainingConfig
    row_format: RowFormat
    spool_dir: Path
    known: frozenset[bytes] = frozenset()
    root: RootFolder | None = None

    @cached_property
    def extractor(self) -> Extractor:
        """What computes the rows, in this process."""
        # Imported here, because torch takes a second and 500 MB, and most runs find nothing to compute.
        from distill.device import resolve_device  # noqa: PLC0415
        from distill.features.spectrogram import ComplexSpectrogram  # noqa: PLC0415
        from distill.preprocess.extraction import Extractor  # noqa: PLC0415

        return Extractor(
            spectrogram=ComplexSpectrogram(self.config.complex_spectrogram),
            device=resolve_device(self.config.device),
            config=self.config,
            expansion=self.row_format.expansion,
            root=self.root or RootFolder.at(self.dataset_dir),
            spool_dir=self.spool_dir,
            unused=self.known,
        )

    @property
    def slot_dir(self) -> Path:
        """The slot of the cache."""
        return slot_path(self.cache_dir, self.row_format.fingerprint)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "extractor"}


@dataclass(frozen=True)
class Part:
    """Sources of which about one pack of rows is computed.

    Parameters
    ----------
    sources : tuple of Source
        The files.
    seconds : float
        About how long they are.
    """

    sources: tuple[Source, ...]
    seconds: float


Engine = Callable[[Job, Sequence[Part]], Generator[Extracted, None, None]]
"""Computes parts, by `extract_part` in any processes, and yields what they found, in any order. Closing it stops it."""


def make_parts(
    sources: Sequence[Source], durations: Sequence[float], row_format: RowFormat, *, least: int = 1
) -> list[Part]:
    """Return the parts that make up some sources: the same for the same sources, whatever computes them.

    Parameters
    ----------
    sources : sequence of Source
        The sources, in the order in which they are computed.
    durations : sequence of float
        About how long they are, seconds.
    row_format : RowFormat
        What a row is.
    least : int
        Number of parts that there should be at least, if there are so many sources. Default: 1.
    """
    chunk_s = row_format.identity["chunk_samples"] / row_format.config.sample_rate
    room = rows_that_fit(row_format.shape, row_format.dtype)
    total = sum(math.ceil(duration / chunk_s) for duration in durations) * (1 + row_format.expansion)
    room = max(1, min(room, total // least))
    parts: list[Part] = []
    taken: list[Source] = []
    rows, seconds = 0, 0.0
    for source, duration in zip(sources, durations, strict=True):
        more = math.ceil(duration / chunk_s) * (1 + row_format.expansion)
        if taken and rows + more > room:
            parts.append(Part(tuple(taken), seconds))
            taken, rows, seconds = [], 0, 0.0
        taken.append(source)
        rows, seconds = rows + more, seconds + duration
    if taken:
        parts.append(Part(tuple(taken), seconds))
    return parts


def extract_part(job: Job, part: Part, check_stop: CheckStop) -> Extracted:
    """Compute a part on the calling thread: its packs, and the part file that lists what is in them.

    If it ends with an error, what was finished until then is kept.

    Raises
    ------
    DatasetError
        If the dataset is away.
    OSError
        If the packs cannot be written.
    """
    extractor = job.extractor
    writer = PartWriter(share(job.slot_dir), job.row_format)
    writer.use_backend(extractor.backend)
    recorder = Recorder(writer, job.dataset_dir)
    try:
        for source in part.sources:
            with closing(extractor.events(source, check_stop)) as events:
                for event in events:
                    recorder.record(event)
    except BaseException:
        try:
            _seal(job, writer)
        except OSError as another:
            # Not raised: the error on its way out says more.
            logger.warning("what was finished of a part is lost: %s", another)
        raise
    recorder.found.path = _seal(job, writer)
    return recorder.found


def _seal(job: Job, writer: PartWriter) -> Path | None:
    """Save the part file, and return its path; None if there is nothing to list. Remove packs that it does not list."""
    try:
        try:
            writer.close_pack()
        finally:
            # What is in packs that are closed is kept even if the last one cannot be.
            part = writer.take()
            path = None if part.is_empty else part.saved(job.slot_dir, job.row_format).path
            writer.keep(part)
    finally:
        writer.abandon()
    return path
