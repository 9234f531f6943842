"""Extraction of feature rows from files in worker threads. Memory depends on neither the length nor number of files.

threads   decode → chunk → augment → features ─┐
          decode → chunk → augment → features ─┼→ bounded queue → the caller, the only one that writes
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from distill.audio.augmentation import variant
from distill.audio.chunking import CHANGED, Chunks
from distill.audio.readers.protocol import ByteSource
from distill.availability import RootFolder, dataset_away, is_away
from distill.config import TrainingConfig
from distill.errors import AudioFileError
from distill.features.normalization import row_sums
from distill.features.spectrogram import ComplexSpectrogram
from distill.preprocess.batches import feature_rows
from distill.preprocess.events import BATCH_ROWS, Cached, Event, Failed, Finished, Rows, Source
from distill.preprocess.threads import CheckStop, in_threads
from distill.types import Reason

_CUDA_BATCH_ROWS = 32
_NOT_FINITE = Reason("has samples so large that its features are not finite", "not-finite")
# Rows that wait for the caller: about what the threads compute while it waits for the disk.
_QUEUED_BYTES = 64 << 20
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class Extractor:
    """Computes the rows of files; used by all worker threads.

    Parameters
    ----------
    spectrogram : ComplexSpectrogram
        The feature.
    device : torch.device
        Where it is computed.
    config : TrainingConfig
        Chunks, normalisation and augmentation.
    expansion : int
        Augmented variants of each chunk, besides the original.
    root : RootFolder
        The folder of the dataset.
    spool_dir : Path
        Folder for temporary files.
    unused : frozenset of bytes
        Hashes of contents in the cache that no file has any more. A file that is back need not be computed.
    """

    spectrogram: ComplexSpectrogram
    device: torch.device
    config: TrainingConfig
    expansion: int
    root: RootFolder
    spool_dir: Path
    unused: frozenset[bytes]

    @property
    def backend(self) -> str:
        """What computes the features; raises an error if the requested backend cannot."""
        chunk = torch.zeros((1, 1, self.config.chunk_samples), dtype=torch.float32, device=self.device)
        with torch.inference_mode():
            self.spectrogram(chunk)  # the first launch shows whether a kernel can be compiled and loaded
        return self.spectrogram.backend_for(chunk)

    def run(self, sources: Sequence[Source], workers: int) -> Generator[Event, None, None]:
        """Yield the events of all sources, which worker threads compute.

        The rows of a source do not depend on `workers`. If there are fewer sources, each has several threads for its
        features. The events of a source are in order; those of different sources are interleaved.

        Raises
        ------
        SystemLimitError, BaseException
            As `in_threads`.
        """
        row_bytes = 4 * math.prod(self.config.complex_spectrogram.row_shape(self.config.chunk_samples))
        return in_threads(self.events, sources, workers, _QUEUED_BYTES // (BATCH_ROWS * row_bytes))

    def events(self, source: Source, check_stop: CheckStop) -> Generator[Event, None, None]:
        """Yield the rows of a source, then Finished or Failed.

        The file is read once, and hashed on the way. If its hash is known already it must still be the same. The source
        of an event has a hash, unless the file could not be read.

        Raises
        ------
        DatasetError
            If the dataset is away: its folder is gone, or a file cannot be had at the moment.
        """
        try:
            stamps = _stamps(source.path)
            opened = ByteSource(source.path)
        except OSError as error:
            yield Failed(source, self._unread(source.path, error), permanent=False)
            return
        if not _is_as_scanned(source.scanned, stamps):
            opened.close()
            yield Failed(source, CHANGED, permanent=False)
            return
        with closing(opened), closing(self._chunks(source, opened, check_stop)) as chunks:
            failed = self._decode(source, chunks, stamps, check_stop)
            if failed is not None:
                yield failed
                return
            # The same again costs nothing: the hash is known.
            source = source._replace(content_hash=opened.digest())
            if source.content_hash in self.unused:
                yield Cached(source)
                return
            yield from self._rows(source, chunks, stamps, check_stop)

    def _decode(self, source: Source, chunks: Chunks, stamps: tuple[int, ...], check_stop: CheckStop) -> Failed | None:
        """Decode a source; return why it cannot be used, if so.

        The hash is that of the bytes that were decoded, apart from those that were read more than once; the stamps
        must be the same before and after because of these.
        """
        reason: Reason | None = None
        opened = chunks.source
        assert opened is not None
        try:
            try:
                chunks.decode()
            except AudioFileError as error:
                if isinstance(error.__cause__, OSError):
                    raise error.__cause__ from error
                reason = Reason.of(error.reason)
            content_hash = opened.digest(lambda *hashed: check_stop())
            is_same = _stamps(source.path) == stamps and source.content_hash in (None, content_hash)
        except OSError as error:
            return Failed(source, self._unread(source.path, error), permanent=False)
        if not is_same:
            return Failed(source, CHANGED, permanent=False)
        # Also a file that cannot be decoded has a hash, which it is known by.
        return None if reason is None else Failed(source._replace(content_hash=content_hash), reason, permanent=True)

    def _rows(self, source: Source, chunks: Chunks, stamps: tuple[int, ...], check_stop: CheckStop) -> Iterator[Event]:
        """Yield the rows of a source that is decoded, then Finished or Failed."""
        assert source.content_hash is not None
        sums, is_spooled = np.zeros(5), chunks.is_spooled
        try:
            batches = self._batches(chunks, source.content_hash, check_stop)
            for rows in feature_rows(batches, self.spectrogram, self.device):
                sums += row_sums(rows)
                if not np.isfinite(sums).all():
                    yield Failed(source, _NOT_FINITE, permanent=True)
                    return
                yield Rows(source, rows)
            # A file that is decoded twice has to be the same until the end.
            is_same = is_spooled or _stamps(source.path) == stamps
        except (AudioFileError, OSError) as error:
            cause = error.__cause__ if isinstance(error, AudioFileError) else error
            reason = self._unread(source.path, cause) if isinstance(cause, OSError) else CHANGED
            yield Failed(source, reason, permanent=False)
            return
        if not is_same:
            yield Failed(source, CHANGED, permanent=False)
            return
        silence, partial = chunks.silence, chunks.partial
        yield Finished(source, chunks.silent_runs, sums.tolist(), chunks.levels, silence, partial, chunks.channels)

    def _chunks(self, source: Source, opened: ByteSource, check_stop: CheckStop) -> Chunks:
        config = self.config
        return Chunks(
            source.path,
            config.complex_spectrogram.sample_rate,
            config.chunk_samples,
            config.normalize,
            on_block=check_stop,
            skips_partial=config.partial == "skip",
            source=opened,
            spool_dir=self.spool_dir,
        )

    def _unread(self, path: str, error: OSError) -> Reason:
        """Return why a file could not be read this time; raise DatasetError if that is not about the file."""
        if is_away(error):
            raise dataset_away(path, error) from error
        # The decoder and the system say the same of a file that was removed and of a dataset that is away.
        self.root.check()
        # An error without a number: the file is shorter than it was.
        if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno is None:
            return CHANGED
        return Reason(f"unreadable: {(error.strerror or str(error)).lower()}", "unreadable")

    def _batches(self, chunks: Chunks, content_hash: bytes, check_stop: CheckStop) -> Iterator[np.ndarray]:
        """Yield batches [B, S] of chunks, each chunk followed by its variants. The next batch overwrites the last."""
        augmentation, rate = self.config.augmentation, self.config.complex_spectrogram.sample_rate
        size = _CUDA_BATCH_ROWS if self.device.type == "cuda" else BATCH_ROWS
        batch, filled = np.empty((size, self.config.chunk_samples), np.float32), 0
        for index, chunk in enumerate(chunks):
            for number in range(1 + self.expansion):
                check_stop()
                batch[filled] = variant(chunk, augmentation, rate, content_hash, index, number) if number else chunk
                filled += 1
                if filled == size:
                    yield batch
                    filled = 0
        if filled:
            yield batch[:filled]


def _is_as_scanned(scanned: tuple[int, int, int, int, bool], stamps: tuple[int, ...]) -> bool:
    """Whether a file with these stamps is the one that was scanned, for its hash is recorded as that one's."""
    *_, found_inode, found_size, found_mtime_ns, found_ctime_ns = stamps
    size, mtime_ns, ctime_ns, inode, _ = scanned
    found = (found_mtime_ns, found_ctime_ns)
    if inode == 0:
        found = (found_mtime_ns // _NS_PER_S * _NS_PER_S, found_ctime_ns // _NS_PER_S * _NS_PER_S)
    return (found_size, *found) == (size, mtime_ns, ctime_ns) and inode in (0, found_inode)


def _stamps(path: str) -> tuple[int, ...]:
    """Return what changes when a file, or a link that leads to it, is written or replaced.

    Raises
    ------
    OSError
        If it is missing or cannot be looked at.
    """
    looks = (os.lstat(path), os.stat(path))  # noqa: PTH116 - making a Path is slow
    return tuple(
        stamp
        for status in looks
        for stamp in (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    )
