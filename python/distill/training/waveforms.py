"""Waveforms, decoded once and held in memory: the dataset of the v1.0 path."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, Subset

from distill import _native
from distill.audio.chunking import Chunks
from distill.config import Normalize
from distill.errors import AudioFileError
from distill.training.split import VAL_FRACTION, SplitBy, check_split, held_out


class AudioTrainingDataset(Dataset[torch.Tensor]):
    """Waveforms [1, S] for the v1.0 path, decoded once and held in memory.

    Parameters
    ----------
    files : sequence of path
        Files; those that cannot be used are left out and listed in `skipped`.
    chunk_samples : int
        Length of a chunk, samples. Default: 48000.
    sample_rate : int
        Hz. Default: 48000.
    normalize : {"file", "chunk", "none"}
        What is scaled to a peak of 1. Default: "file".
    progress : callable, optional
        Called with (files decoded, files).

    Attributes
    ----------
    skipped : list of (path, reason)
        Files that could not be used.
    content_key : str
        The same for the same contents.
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
        # By content, as in the cache: neither names nor their order matter.
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
        """Training and validation parts, by the rule of `CachedSpectrogramDataset`; one chunk alone is in both."""
        check_split("all", val_fraction, split_by)
        hashes = np.frombuffer(b"".join(key[0] for key in self._keys), np.uint8).reshape(-1, 32)
        index = np.array([key[1] for key in self._keys], np.int64)
        validation = held_out(hashes, index, val_fraction, split_by)
        train = np.flatnonzero(~validation).tolist()
        return Subset(self, train), Subset(self, np.flatnonzero(validation).tolist() or train)
