"""Files to feature rows, in parallel threads, with memory that does not grow with a file or with their number.

threads   decode → chunk → augment → features ─┐
          decode → chunk → augment → features ─┼→ bounded queue → the caller, who alone writes
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from distill import _native
from distill.audio.augmentation import variant
from distill.audio.chunking import Chunks
from distill.config import TrainingConfig
from distill.errors import AudioFileError
from distill.features.spectrogram import ComplexSpectrogram
from distill.preprocess.batches import feature_rows

# Rows computed together. A CPU goes clip by clip, and a short queue is memory saved.
_BATCH_ROWS = 8
_CUDA_BATCH_ROWS = 32


class Source(NamedTuple):
    """One content to compute: a path that has it, and its hash."""

    path: str
    content_hash: bytes


class Rows(NamedTuple):
    """Some rows [k, 2, n_mels, T] of a source, in order."""

    source: Source
    rows: np.ndarray


class Finished(NamedTuple):
    """A source whose rows have all been given."""

    source: Source
    silent: int
    sums: list[float]


class Failed(NamedTuple):
    """A source that cannot be used; `permanent` if its bytes are to blame."""

    source: Source
    reason: str
    permanent: bool


Event = Rows | Finished | Failed
CheckStop = Callable[[], None]
"""Called often; raises StoppedError if nobody wants the events any more."""


class StoppedError(Exception):
    """Nobody wants the events any more."""


@dataclass(frozen=True)
class Extractor:
    """Everything that turns a file into rows."""

    spectrogram: ComplexSpectrogram
    device: torch.device
    config: TrainingConfig
    expansion: int

    def events(self, source: Source, check_stop: CheckStop) -> Iterator[Event]:
        """Rows of one source, and how it ended."""
        sums = np.zeros(5)
        stamps = _stamps(source.path)
        config = self.config
        chunks = Chunks(source.path, self._sample_rate, config.chunk_samples, config.normalize, check_stop)
        try:
            batches = self._batches(chunks, source.content_hash, check_stop)
            for rows in feature_rows(batches, self.spectrogram, self.device):
                sums += _sums(rows)
                _check_finite(sums, source)
                yield Rows(source, rows)
        except AudioFileError as error:
            # A file that was replaced while it was decoded may fail for that reason alone.
            unchanged = _still_holds(source, stamps, check_stop)
            reason = error.reason if unchanged else "changed while it was read"
            yield Failed(source, reason, permanent=unchanged)
            return
        if not _still_holds(source, stamps, check_stop):
            yield Failed(source, "changed while it was read", permanent=False)
        else:
            yield Finished(source, chunks.silent, sums.tolist())

    def _batches(self, chunks: Chunks, content_hash: bytes, check_stop: CheckStop) -> Iterator[np.ndarray]:
        """Chunks, each followed by its variants, [k, S]; overwritten when the next are asked for."""
        size = _CUDA_BATCH_ROWS if self.device.type == "cuda" else _BATCH_ROWS
        batch, filled = np.empty((size, self.config.chunk_samples), np.float32), 0
        for index, chunk in enumerate(chunks):
            for number in range(1 + self.expansion):
                check_stop()
                batch[filled] = self._variant(chunk, content_hash, index, number)
                filled += 1
                if filled == size:
                    yield batch
                    filled = 0
        if filled:
            yield batch[:filled]

    def _variant(self, chunk: np.ndarray, content_hash: bytes, index: int, number: int) -> np.ndarray:
        if number == 0:
            return chunk
        return variant(chunk, self.config.augmentation, self._sample_rate, content_hash, index, number)

    @property
    def _sample_rate(self) -> int:
        return self.config.complex_spectrogram.sample_rate


def _sums(rows: np.ndarray) -> np.ndarray:
    """[n, sum, sum of squares, sum, sum of squares] over both channels, in float64."""
    values = rows.reshape(len(rows), 2, -1).astype(np.float64)
    # Not np.dot: BLAS has threads of its own, that spin while they wait.
    squares = np.einsum("rcn,rcn->c", values, values)
    return np.array([rows[:, 0].size, *np.stack([values.sum(axis=(0, 2)), squares], axis=1).flat])


def _check_finite(sums: np.ndarray, source: Source) -> None:
    if not np.isfinite(sums).all():
        raise AudioFileError(source.path, "has samples so large that its features are not finite")


def _stamps(path: str) -> tuple[int, ...] | None:
    """What moves when a file, or the link that leads to it, is written or replaced; None if it is not there."""
    try:
        looks = (os.lstat(path), os.stat(path))  # noqa: PTH116 - a Path each is a tenth of a short file
    except OSError:
        return None
    return tuple(
        stamp
        for status in looks
        for stamp in (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    )


def _still_holds(source: Source, before: tuple[int, ...] | None, check_stop: CheckStop) -> bool:
    """Whether a file has the bytes it was hashed for, and had them since its stamps were taken.

    The hash alone would not tell of other bytes that stood there while it was decoded, and are gone again.
    """
    if before is None or _stamps(source.path) != before:
        return False
    try:
        return _native.hash_file(source.path, lambda stage, current, total: check_stop()) == source.content_hash
    except OSError:
        return False


def extract(extractor: Extractor, sources: Sequence[Source], workers: int) -> Iterator[Event]:
    """Events of all sources, those of one source in order, sources interleaved.

    Closing the iterator stops the threads, within 200 ms. Each source's rows are the same whatever `workers` is.

    Raises
    ------
    Exception
        What a thread raised that is not the file's fault (out of memory, say).
    """
    outlet = _Outlet(2 * workers)
    remaining = iter(sources)
    lock = threading.Lock()

    def work() -> None:
        torch.set_num_threads(1)
        with suppress(StoppedError):
            try:
                while True:
                    with lock:
                        source = next(remaining, None)
                    if source is None:
                        break
                    for event in extractor.events(source, outlet.check_stop):
                        outlet.put(event)
            except StoppedError:
                raise
            except Exception as error:  # noqa: BLE001 - carried to the caller, who raises it
                outlet.put(error)
            outlet.put(None)

    threads_before = torch.get_num_threads()
    threads = [threading.Thread(target=work, name=f"distill-{n}", daemon=True) for n in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield from outlet.until_all_end(len(threads))
    finally:
        outlet.close()
        for thread in threads:
            thread.join()
        torch.set_num_threads(threads_before)


class _Outlet:
    """Where threads put their events, each one None at its end, until nobody takes them any more."""

    def __init__(self, size: int) -> None:
        self._events: queue.Queue[Event | Exception | None] = queue.Queue(size)
        self._closed = threading.Event()

    def check_stop(self) -> None:
        """Raise StoppedError if it is closed."""
        if self._closed.is_set():
            raise StoppedError

    def put(self, event: Event | Exception | None) -> None:
        """Add an event, or raise StoppedError."""
        while True:
            self.check_stop()
            with suppress(queue.Full):
                return self._events.put(event, timeout=0.1)

    def close(self) -> None:
        """Say that nobody takes events any more."""
        self._closed.set()

    def until_all_end(self, threads: int) -> Iterator[Event]:
        """Events until each of the threads has ended; raises what one of them raised."""
        while threads:
            event = self._events.get()
            if isinstance(event, Exception):
                raise event
            if event is None:
                threads -= 1
            else:
                yield event
