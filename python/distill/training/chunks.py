"""The validation chunks that a run is judged by: features, the sounds that they are from, and their recordings."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from torch import Tensor
from torch.utils.data import Subset

from distill.audio.chunking import Chunks
from distill.audio.decode import unreadable
from distill.audio.readers.protocol import ByteSource
from distill.config import TrainingConfig
from distill.errors import AudioFileError
from distill.index import Dataset, path_bytes
from distill.text import counted, reason_lines
from distill.training.cached import CachedSpectrogramDataset
from distill.training.data import TrainingData
from distill.training.waveforms import AudioTrainingDataset

logger = logging.getLogger(__name__)

COUNT = 32
"""The most chunks that are used."""


class _Source(NamedTuple):
    """Where a chunk comes from, if the cache holds its features only."""

    path: Path
    content_hash: bytes
    chunk: int


class ValidationChunks:
    """Up to 32 validation chunks, evenly spaced among the first 256.

    Parameters
    ----------
    data : TrainingData
    dataset : Dataset
        The dataset of `data`.
    config : TrainingConfig

    Attributes
    ----------
    rows : Tensor [N, C, M, T]
        Normalised features.
    names : list of str
        Of each, the name of its file, and where it starts in it.
    """

    def __init__(self, data: TrainingData, dataset: Dataset, config: TrainingConfig) -> None:
        self._data, self._dataset, self._config = data, dataset, config
        self.rows = data.validation_rows(COUNT)
        self._indices = data.validation_indices(COUNT)
        self._sources: list[_Source] = []
        rows = data.val.dataset
        if isinstance(rows, CachedSpectrogramDataset):
            places = [rows.provenance(index) for index in self._indices]
            self.names = _names([(place.paths[0], place.chunk, place.start_s) for place in places])
            contents = rows.content_hashes(self._indices)
            self._sources = [
                _Source(dataset.path / os.fsdecode(path_bytes(place.paths[0])), content, place.chunk)
                for place, content in zip(places, contents, strict=True)
            ]
        else:
            self.names = _names(
                [(*waveforms.place(index), None) for waveforms, index in map(self._decoded, self._indices)]
            )

    def _decoded(self, index: int) -> tuple[AudioTrainingDataset, int]:
        """Return the chunks in memory, and which of them is a validation chunk."""
        subset = cast("Subset[Tensor]", self._data.val.dataset)
        return cast("AudioTrainingDataset", subset.dataset), subset.indices[index]

    @cached_property
    def recordings(self) -> list[np.ndarray | None]:
        """The waveform [S] of each as it was before features were computed; None if its file cannot be had any more.

        If the cache holds features only, the files are decoded again when this is first used.
        """
        if not self._sources:
            return [waveforms[number][0].numpy() for waveforms, number in map(self._decoded, self._indices)]
        found: dict[_Source, np.ndarray] = {}
        lost: list[tuple[str, str]] = []
        for path in dict.fromkeys(source.path for source in self._sources):
            of_file = [source for source in self._sources if source.path == path]
            try:
                found |= self._decode(of_file)
            except AudioFileError as error:
                lost.append((os.fspath(path), error.reason))
        if lost:
            logger.warning(
                "%s cannot be compared with the model:%s", counted(len(lost), "recording"), reason_lines(lost)
            )
        return [found.get(source) for source in self._sources]

    def _decode(self, sources: list[_Source]) -> dict[_Source, np.ndarray]:
        """Decode chunks of one file again.

        Raises
        ------
        AudioFileError
            If it cannot be read, or is not what the features were computed from.
        """
        config, path = self._config, sources[0].path
        wanted = {source.chunk: source for source in sources}
        try:
            with closing(ByteSource(path)) as opened:
                chunks = Chunks(
                    path, config.features.sample_rate, config.chunk_samples, config.normalize, source=opened
                )
                with closing(chunks):
                    found = {wanted[number]: chunk for number, chunk in enumerate(chunks) if number in wanted}
                if opened.digest() != sources[0].content_hash or len(found) < len(wanted):
                    raise AudioFileError(os.fspath(path), "has changed since its features were computed")
        except OSError as error:
            raise unreadable(path, error) from error
        return found


def _names(places: Sequence[tuple[str, int, float | None]]) -> list[str]:
    """Return the names of chunks: that of the file, and where the chunk starts in it unless that is the start.

    The folder is named, too, if files in several folders have the same name.
    """
    paths = {Path(file) for file, _, _ in places}
    count = Counter(path.name for path in paths)
    names = []
    for file, chunk, offset_s in places:
        path = Path(file)
        name = path.name if count[path.name] == 1 else os.path.join(*path.parts[-2:])
        start = f"chunk {chunk + 1}" if offset_s is None else f"{offset_s:.1f} s"
        names.append(f"{name}, {start}" if chunk else name)
    return names
