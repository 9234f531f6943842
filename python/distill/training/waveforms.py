"""Waveforms, decoded once and kept in memory: the dataset of the v1.0 path."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Subset

from distill import _native
from distill.audio.chunking import Chunks
from distill.config import Normalize
from distill.errors import AudioFileError
from distill.index import Dataset, Manifest
from distill.preprocess.result import log_left_out
from distill.training.split import VAL_FRACTION, SplitBy, check_split, held_out


class AudioTrainingDataset(TorchDataset[torch.Tensor]):
    """Chunks of audio as waveforms [1, S], decoded once and kept in memory (the v1.0 path).

    Parameters
    ----------
    files : sequence of path
        Audio files. Those that cannot be used are listed in `skipped`.
    chunk_samples : int
        Length of a chunk in samples. Default: 48000.
    sample_rate : int
        Sample rate of the chunks in Hz. Default: 48000.
    normalize : {"file", "chunk", "none"}
        Whether each file or each chunk is scaled to a peak of 1, or neither. Default: "file".
    progress : callable, optional
        Called with (files decoded, files).

    Attributes
    ----------
    skipped : list of (path, reason)
        Files that could not be used.
    content_key : str
        Equal for equal contents of the files.
    """

    def __init__(
        self,
        files: Sequence[str | os.PathLike[str]],
        chunk_samples: int = 48_000,
        sample_rate: int = 48_000,
        normalize: Normalize = "file",
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.skipped: list[tuple[str, str]] = []
        found: dict[tuple[bytes, int], np.ndarray] = {}
        for number, path in enumerate(files):
            if progress is not None:
                progress(number, len(files))
            chunks = Chunks(path, sample_rate, chunk_samples, normalize)
            try:
                content_hash = _native.hash_file(path)
                found |= {(content_hash, index): chunk for index, chunk in enumerate(chunks)}
            except AudioFileError as error:
                self.skipped.append((os.fspath(path), error.reason))
            except OSError as error:
                self.skipped.append((os.fspath(path), f"cannot be read: {error.strerror or error}"))
        # In the order of the content hashes, as in the cache, so that file names and their order do not matter.
        self._keys = sorted(found)
        self._chunks = [found[key] for key in self._keys]
        hashes = b"".join(content_hash for content_hash, _ in self._keys)
        self.content_key = _native.hash_bytes(hashes).hex()

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self._chunks[index])[None]

    def split(
        self, val_fraction: float = VAL_FRACTION, split_by: SplitBy = "chunk"
    ) -> tuple[Subset[torch.Tensor], Subset[torch.Tensor]]:
        """Return the training and validation parts, split as by `CachedSpectrogramDataset`.

        A single chunk is in both.
        """
        check_split("all", val_fraction, split_by)
        hashes = np.frombuffer(b"".join(key[0] for key in self._keys), np.uint8).reshape(-1, 32)
        index = np.array([key[1] for key in self._keys], np.int64)
        validation = held_out(hashes, index, val_fraction, split_by)
        train = np.flatnonzero(~validation).tolist()
        return Subset(self, train), Subset(self, np.flatnonzero(validation).tolist() or train)


def list_files(dataset: Dataset) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the audio files of a dataset, and those that cannot be read, each with the reason.

    Raises
    ------
    DatasetError
        If there are no audio files.
    """
    scan = dataset.scan(Manifest(), hash_added=False)
    dataset.require_audio(scan)
    log_left_out(scan)
    return [os.path.join(dataset.folder, path) for path in scan.added], [*scan.skipped, *scan.faults]
