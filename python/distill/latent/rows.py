"""The rows of features that an analysis encodes, and which part of which file each row comes from.

Two-channel features are read from the cache; one-channel features are computed from decoded audio. Both come
in the order of the content hashes, as in `CachedSpectrogramDataset(split="all")` and `AudioTrainingDataset`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from distill.audio.chunking import Chunks
from distill.audio.decode import warn_if_partial
from distill.cache.places import Origins, Provenance
from distill.cache.reader import CacheReader
from distill.config import TrainingConfig
from distill.errors import AudioFileError
from distill.features.normalization import normalization_arrays, normalize
from distill.features.spectrogram import AudioSpectrogram
from distill.index import Dataset, Manifest
from distill.preprocess.plan import dataset_slot
from distill.preprocess.result import nothing_usable
from distill.runs.trained import TrainedRun
from distill.types import ProgressCallback

_BATCH_ROWS = 64

Skipped = list[tuple[str, str]]
"""Files that could not be used, each with the reason."""


class Batch(NamedTuple):
    """Consecutive rows."""

    features: Tensor
    """Normalised features on the CPU, [b, C, M, T]."""
    places: list[Provenance]
    """Where each comes from."""


class Rows(Protocol):
    """All rows of a dataset."""

    @property
    def dataset(self) -> Dataset:
        """The dataset."""

    def batches(self, progress: ProgressCallback) -> Iterator[Batch]:
        """Yield all rows."""


def open_rows(run: TrainedRun, dataset: Dataset, on_skipped: Callable[[Skipped], object] | None = None) -> Rows:
    """Open the rows of a dataset, with the features and the normalisation of a run. Preprocesses nothing.

    Parameters
    ----------
    run : TrainedRun
        The run.
    dataset : Dataset
        The dataset; for a two-channel run, preprocessed.
    on_skipped : callable, optional
        Called once with the files that could not be decoded, if the run has one channel.

    Raises
    ------
    CacheError
        If the cache is damaged, or has no features of the run's configuration.
    """
    if not run.config.complex_spectrogram.enabled:
        return _DecodedRows(dataset, run.config, run.stats, on_skipped)
    return _CachedRows(dataset, run.config, run.stats, CacheReader(dataset_slot(dataset, run.config)))


@dataclass(frozen=True)
class _CachedRows:
    """Rows of a cache."""

    dataset: Dataset
    config: TrainingConfig
    stats: dict[str, float]
    reader: CacheReader

    def batches(self, progress: ProgressCallback) -> Iterator[Batch]:
        """Yield all rows, reporting the stage "encode"."""
        count = len(self.reader)
        origins = Origins(self.reader)
        mean, scale = normalization_arrays(self.stats)
        for start in range(0, count, _BATCH_ROWS):
            stop = min(start + _BATCH_ROWS, count)
            features = torch.from_numpy(self.reader.read(np.arange(start, stop), mean, scale))
            yield Batch(features, [origins.of(row) for row in range(start, stop)])
            progress("encode", stop, count)


@dataclass(frozen=True)
class _DecodedRows:
    """Rows computed from decoded audio."""

    dataset: Dataset
    config: TrainingConfig
    stats: dict[str, float]
    on_skipped: Callable[[Skipped], object] | None

    def batches(self, progress: ProgressCallback) -> Iterator[Batch]:
        """Yield all rows, reporting the stages "scan", "hash" and "decode".

        Raises
        ------
        DatasetError, NothingUsableError
            If there are no rows.
        """
        self.dataset.check()
        scan = self.dataset.scan(Manifest(), progress=progress)
        self.dataset.require_audio(scan)
        spectrogram = AudioSpectrogram(self.config.spectrogram)
        skipped: list[tuple[str, str]] = [*scan.skipped, *scan.faults]
        contents = sorted(scan.todo, key=lambda entry: entry[1] or b"")
        is_empty = True
        for number, (name, _, _) in enumerate(contents, 1):
            path = os.fsdecode(name)
            try:
                chunks, places, silence = self._decode(path)
            except AudioFileError as error:
                skipped.append((path, error.reason))
                continue
            if not chunks:
                skipped.append((path, silence))
            for start in range(0, len(chunks), _BATCH_ROWS):
                waveforms = torch.from_numpy(np.stack(chunks[start : start + _BATCH_ROWS]))[:, None]
                with torch.no_grad():
                    features = normalize(spectrogram(waveforms), self.stats)
                yield Batch(features, places[start : start + _BATCH_ROWS])
                is_empty = False
            progress("decode", number, len(contents))
        if is_empty:
            raise nothing_usable(self.dataset.path, skipped, scan.unread)
        if self.on_skipped is not None:
            self.on_skipped(sorted(skipped))

    def _decode(self, path: str) -> tuple[list[np.ndarray], list[Provenance], str]:
        """Return the chunks of a file, their places, and why there are none, if so.

        It is decoded to the end before any chunk is used: a fault at the end excludes all of them.
        """
        config = self.config
        rate = config.spectrogram.sample_rate
        skips_partial = config.partial == "skip"
        source = Chunks(
            self.dataset.path / path, rate, config.chunk_samples, config.normalize, skips_partial=skips_partial
        )
        chunk_s = config.chunk_samples / rate
        chunks, places = [], []
        for number, chunk in enumerate(source):
            chunks.append(chunk)
            start_s = (number + source.silent) * chunk_s
            places.append(Provenance((path,), start_s, chunk_s, number, 0))
        warn_if_partial(path, source.partial)
        return chunks, places, source.silence
