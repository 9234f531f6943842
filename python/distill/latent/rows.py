"""The rows that an analysis reads, a batch at a time, and which sound each is of.

Two channels come from the cache, one channel (the v1.0 path) from decoding; both in the order of their contents'
hashes, which is that of `CachedSpectrogramDataset(split="all")` and of `AudioTrainingDataset`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distill.audio.chunking import Chunks
from distill.cache.manifest import load_manifest
from distill.cache.reader import CacheReader
from distill.config import TrainingConfig
from distill.errors import AudioFileError, CacheError
from distill.features.normalization import normalization_arrays, normalize
from distill.features.spectrogram import AudioSpectrogram
from distill.index import Dataset, Manifest, ManifestError
from distill.preprocess.pipeline import preprocess
from distill.preprocess.result import log_skipped, nothing_usable
from distill.text import differences
from distill.types import ProgressCallback

logger = logging.getLogger(__name__)

_BATCH_ROWS = 64


class Place(NamedTuple):
    """Which sound a row is of."""

    file: str
    """Relative to the dataset; of several files with the same content, the first."""
    chunk: int
    """Which of its chunks that are not silent."""
    offset_s: float | None
    """Where in the file the chunk begins; None where silent chunks were left out and the cache does not know."""
    variant: int
    """0: the original."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A dataset's rows, as a run sees them."""

    dataset: Dataset
    config: TrainingConfig
    stats: dict[str, float]
    """What the run's rows are normalised with."""
    device: str
    progress: ProgressCallback
    places: list[Place] = field(default_factory=list)
    """Of the rows that `batches` has given so far."""

    def batches(self) -> Iterator[Tensor]:
        """Normalised rows [b, C, M, T] on the CPU.

        Raises
        ------
        DatasetError, NothingUsableError
            If there are none.
        CacheError
            If the cache is of another configuration than the run's.
        StorageError
            If features are missing, and the cache cannot be written.
        """
        self.dataset.check()
        self.places.clear()
        return self._cached() if self.config.complex_spectrogram.enabled else self._decoded()

    def _cached(self) -> Iterator[Tensor]:
        _check_cache(self.dataset.cache_path, self.config)
        result = preprocess(self.dataset, replace(self.config, device=self.device), progress=self.progress)
        result.log()
        reader = CacheReader(result.cache_dir)
        self.places.extend(_places(reader, self.config))
        mean, scale = normalization_arrays(self.stats)
        for start in range(0, len(reader), _BATCH_ROWS):
            stop = min(start + _BATCH_ROWS, len(reader))
            yield torch.from_numpy(reader.read(np.arange(start, stop), mean, scale))
            self.progress("encode", stop, len(reader))

    def _decoded(self) -> Iterator[Tensor]:
        scan = self.dataset.scan(Manifest(), progress=self.progress)
        self.dataset.require_audio(scan)
        spectrogram = AudioSpectrogram(self.config.spectrogram)
        skipped = [*scan.skipped, *scan.faults]
        contents = sorted(scan.todo, key=lambda entry: entry[1])
        for number, (name, _, _) in enumerate(contents):
            path = os.fsdecode(name)
            try:
                chunks = self._chunks(path)
            except AudioFileError as error:
                skipped.append((path, error.reason))
                continue
            for start in range(0, len(chunks), _BATCH_ROWS):
                waveforms = torch.from_numpy(np.stack(chunks[start : start + _BATCH_ROWS]))[:, None]
                with torch.no_grad():
                    yield normalize(spectrogram(waveforms), self.stats)
            self.progress("decode", number + 1, len(contents))
        if not self.places:
            raise nothing_usable(self.dataset.path, skipped)
        log_skipped(sorted(skipped))

    def _chunks(self, path: str) -> list[np.ndarray]:
        """All chunks of a file, or none: it may turn out to be damaged at its end."""
        config = self.config
        rate = config.spectrogram.sample_rate
        source = Chunks(self.dataset.path / path, rate, config.chunk_samples, config.normalize)
        chunks, places = [], []
        for number, chunk in enumerate(source):
            chunks.append(chunk)
            places.append(Place(path, number, (number + source.silent) * config.chunk_samples / rate, 0))
        self.places.extend(places)
        return chunks


def _check_cache(cache_dir: Path, config: TrainingConfig) -> None:
    """Raise CacheError if the cache holds features of another configuration: preprocessing would give them up."""
    try:
        manifest = load_manifest(cache_dir)
    except ManifestError:
        return  # preprocessing says so, and computes anew
    if manifest is None:
        return
    before = json.loads(manifest.header)["identity"]
    expansion = config.augmentation_expansion
    wanted = config.identity(before["augmentation_expansion"] if expansion is None else expansion)
    changed = differences({name: before.get(name) for name in wanted}, wanted)
    if changed:
        raise CacheError(
            f"{cache_dir}: holds features of another configuration than the run's: {'; '.join(changed)}",
            "keep the run's features elsewhere, with --cache-dir DIR",
        )


def _places(reader: CacheReader, config: TrainingConfig) -> Iterator[Place]:
    files: dict[str, str] = {}
    for file in reader.manifest.files():
        files.setdefault(file["content_hash"] or "", file["path"])
    names = [files[content.hex()] for content in reader.content_hashes]
    silent = np.frombuffer(reader.manifest.live()[2], "<i8").tolist()
    chunk_s = config.chunk_samples / config.complex_spectrogram.sample_rate
    for content, chunk, variant in zip(
        reader.source.tolist(), reader.chunk.tolist(), reader.variant.tolist(), strict=True
    ):
        yield Place(names[content], chunk, None if silent[content] else chunk * chunk_s, variant)
