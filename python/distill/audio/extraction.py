"""Files to feature rows, in parallel threads, with memory that does not grow with a file or with their number.

threads   decode → chunk → augment → features ─┐
          decode → chunk → augment → features ─┼→ bounded queue → the caller, who alone writes
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from distill import _native
from distill.audio.augmentation import variant
from distill.audio.chunking import Chunks
from distill.audio.spectrogram import ComplexSpectrogram
from distill.config import AugmentationConfig, Normalize
from distill.errors import AudioFileError

_BATCH_ROWS = 32


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


@dataclass(frozen=True)
class Extractor:
    """Everything that turns a file into rows."""

    spectrogram: ComplexSpectrogram
    device: torch.device
    augmentation: AugmentationConfig
    expansion: int
    chunk_samples: int
    sample_rate: int
    normalize: Normalize

    def events(self, source: Source) -> Iterator[Event]:
        """Rows of one source, and how it ended."""
        sums = np.zeros(5)
        chunks = Chunks(source.path, self.sample_rate, self.chunk_samples, self.normalize)
        try:
            for waveforms in self._batches(chunks, source.content_hash):
                rows = self._features(waveforms)
                sums += _sums(rows)
                _check_finite(sums, source)
                yield Rows(source, rows)
        except AudioFileError as error:
            # A file that was replaced while it was decoded may fail for that reason alone.
            unchanged = _still_holds(source)
            reason = error.reason if unchanged else "changed while it was read"
            yield Failed(source, reason, permanent=unchanged)
            return
        if not _still_holds(source):
            yield Failed(source, "changed while it was read", permanent=False)
        else:
            yield Finished(source, chunks.silent, sums.tolist())

    def _batches(self, chunks: Chunks, content_hash: bytes) -> Iterator[np.ndarray]:
        batch: list[np.ndarray] = []
        for index, chunk in enumerate(chunks):
            batch.append(chunk)
            for number in range(1, self.expansion + 1):
                batch.append(variant(chunk, self.augmentation, self.sample_rate, content_hash, index, number))
                if len(batch) == _BATCH_ROWS:
                    yield np.stack(batch)
                    batch = []
            if len(batch) >= _BATCH_ROWS:
                yield np.stack(batch)
                batch = []
        if batch:
            yield np.stack(batch)

    def _features(self, waveforms: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batch = torch.from_numpy(waveforms)[:, None].to(self.device)
            return self.spectrogram(batch).cpu().numpy()


def _sums(rows: np.ndarray) -> np.ndarray:
    """[n, sum, sum of squares, sum, sum of squares] over both channels, in float64."""
    result = [float(rows[:, 0].size)]
    for channel in (0, 1):
        values = rows[:, channel].astype(np.float64).reshape(-1)
        result += [values.sum(), np.dot(values, values)]
    return np.array(result)


def _check_finite(sums: np.ndarray, source: Source) -> None:
    if not np.isfinite(sums).all():
        raise AudioFileError(source.path, "has samples so large that its features are not finite")


def _still_holds(source: Source) -> bool:
    try:
        return _native.hash_file(source.path) == source.content_hash
    except OSError:
        return False


def extract(extractor: Extractor, sources: Sequence[Source], workers: int) -> Iterator[Event]:
    """Events of all sources, those of one source in order, sources interleaved.

    Closing the iterator stops the threads. Each source's rows are the same whatever `workers` is.

    Raises
    ------
    Exception
        What a thread raised that is not the file's fault (out of memory, say).
    """
    events: queue.Queue[Event | Exception | None] = queue.Queue(maxsize=2 * workers)
    remaining = iter(sources)
    lock, stop = threading.Lock(), threading.Event()

    def put(event: Event | Exception | None) -> bool:
        while not stop.is_set():
            try:
                events.put(event, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        torch.set_num_threads(1)
        try:
            while True:
                with lock:
                    source = next(remaining, None)
                if source is None or not all(map(put, extractor.events(source))):
                    break
        except Exception as error:  # noqa: BLE001 - carried to the caller, who raises it
            put(error)
        put(None)

    threads_before = torch.get_num_threads()
    threads = [threading.Thread(target=work, name=f"distill-{n}", daemon=True) for n in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield from _until_all_end(events, len(threads))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        torch.set_num_threads(threads_before)


def _until_all_end(events: queue.Queue[Event | Exception | None], threads: int) -> Iterator[Event]:
    while threads:
        event = events.get()
        if isinstance(event, Exception):
            raise event
        if event is None:
            threads -= 1
        else:
            yield event
