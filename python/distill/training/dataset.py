"""Datasets: rows of the cache for the two-channel path, waveforms for the v1.0 path."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset, Subset

from distill import _native
from distill.audio.chunking import Chunks
from distill.cache.manifest import normalization_arrays
from distill.cache.reader import CacheReader
from distill.config import Normalize, TrainingConfig
from distill.errors import AudioFileError, ConfigError

Split = Literal["all", "train", "val"]
SplitBy = Literal["chunk", "file"]

_PIECE_ROWS = 256

VAL_FRACTION = TrainingConfig().val_fraction


def held_out(content_hashes: np.ndarray, chunks: np.ndarray, val_fraction: float, split_by: SplitBy) -> np.ndarray:
    """Which chunks are for validation.

    A chunk's fate hangs on the hash of its file's content and its index alone, so that adding a file moves no other
    chunk. Where that would leave a side empty, the chunk nearest to the border goes there.

    Parameters
    ----------
    content_hashes : ndarray of shape [N, 32], uint8
        Of each row's source.
    chunks : ndarray of shape [N], int64
        Each row's chunk within its source.
    val_fraction : float
        Share held out.
    split_by : {"chunk", "file"}
        Whether all chunks of a file share its fate.

    Returns
    -------
    ndarray of shape [N], bool
        All False if there is only one chunk (or file).
    """
    index = chunks if split_by == "chunk" else np.zeros_like(chunks)
    keys = np.concatenate([content_hashes, index.astype("<i8").view(np.uint8).reshape(-1, 8)], axis=1)
    drawn = np.frombuffer(_native.row_checksums(np.ascontiguousarray(keys).reshape(-1), keys.shape[1]), "<u8")
    mask = drawn < val_fraction * 2.0**64
    if drawn.size and drawn.min() == drawn.max():
        return np.zeros_like(mask)
    if drawn.size and not mask.any():
        return drawn == drawn.min()
    if drawn.size and mask.all():
        return drawn != drawn.max()
    return mask


def _check_split(split: str, val_fraction: float, split_by: str) -> None:
    faults = []
    if split not in ("all", "train", "val"):
        faults.append(f"split={split!r} must be 'all', 'train' or 'val'")
    if split_by not in ("chunk", "file"):
        faults.append(f"split_by={split_by!r} must be 'chunk' or 'file'")
    if not 0 < val_fraction < 1:
        faults.append(f"val_fraction={val_fraction} must be above 0 and below 1")
    if faults:
        raise ConfigError(faults)


class CachedSpectrogramDataset(Dataset[torch.Tensor]):
    """Rows of a cache, normalised.

    Parameters
    ----------
    cache_dir : path
        The folder that `preprocess_complex_spectrograms` returned.
    split : {"all", "train", "val"}
        "all": every row; "train": every variant of the chunks that are not held out; "val": the originals of those
        that are. A cache of one chunk gives it to both. Default: "all".
    val_fraction : float
        Share of chunks held out. Default: 0.15.
    split_by : {"chunk", "file"}
        What is held out. Default: "chunk".
    normalization_stats : dict, optional
        mag_mean, mag_std, if_mean, if_std to normalise with. Default: the cache's own.

    Attributes
    ----------
    normalization_stats : dict
        What rows are normalised with.
    row_shape : tuple of int
        (2, n_mels, T).
    content_key : str
        The same for the same contents and variants.
    is_shared : bool
        Whether training and validation are the same chunk, for want of a second.

    Raises
    ------
    CacheError
        If there is no valid cache, or when a row that is read turns out to be damaged.
    ConfigError
        If an argument is out of range.
    """

    def __init__(
        self,
        cache_dir: str | os.PathLike[str],
        split: Split = "all",
        val_fraction: float = VAL_FRACTION,
        split_by: SplitBy = "chunk",
        normalization_stats: dict[str, float] | None = None,
    ) -> None:
        _check_split(split, val_fraction, split_by)
        self._reader = CacheReader(cache_dir)
        self.row_shape = self._reader.row_shape
        self.content_key = f"{_native.hash_bytes(b''.join(self._reader.content_hashes)).hex()} {len(self._reader)}"
        self.normalization_stats = dict(normalization_stats or self._reader.header["normalization_stats"])
        self._mean, self._scale = normalization_arrays(self.normalization_stats)
        self._held: torch.Tensor | None = None
        self._choose(split, val_fraction, split_by)

    def with_split(self, split: Split, val_fraction: float, split_by: SplitBy) -> CachedSpectrogramDataset:
        """Another part of the same cache, opened once: both see the same manifest, whatever is written meanwhile."""
        _check_split(split, val_fraction, split_by)
        other = copy.copy(self)
        other._choose(split, val_fraction, split_by)
        return other

    def _choose(self, split: Split, val_fraction: float, split_by: SplitBy) -> None:
        reader = self._reader
        if split == "all":
            self._rows, self.is_shared = np.arange(len(reader)), False
            return
        hashes = np.frombuffer(b"".join(reader.content_hashes), np.uint8).reshape(-1, 32)
        validation = held_out(hashes[reader.source], reader.chunk, val_fraction, split_by)
        self.is_shared = not validation.any()
        originals = reader.variant == 0
        if self.is_shared:
            mask = originals if split == "val" else np.ones_like(originals)
        else:
            mask = validation & originals if split == "val" else ~validation
        self._rows = np.flatnonzero(mask)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.rows([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[torch.Tensor]:
        """Several rows at once; what a DataLoader calls for a batch."""
        return Batch(self.rows(indices))

    def rows(self, indices: Sequence[int]) -> torch.Tensor:
        """Normalised rows [k, 2, n_mels, T], in the order asked for, on the device where they are held, else the CPU.

        Read from the mapped packs in the order in which they lie there.
        """
        rows = self._rows[np.asarray(indices, np.int64)]
        if self._held is not None:
            return self._held[torch.from_numpy(rows).to(self._held.device)]
        return self._read(rows)

    def _read(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self._reader.read(rows, self._mean, self._scale))

    @property
    def cache_bytes(self) -> int:
        """Size of all rows of the cache as tensors."""
        return len(self._reader) * math.prod(self.row_shape) * 4

    def hold(self, device: torch.device) -> None:
        """Keep all rows of the cache on a device: from then on nothing is read, by other splits made of this one too.

        Parameters
        ----------
        device : torch.device
            It needs room for `cache_bytes`.
        """
        held = torch.empty((len(self._reader), *self.row_shape), device=device)
        for first in range(0, len(held), _PIECE_ROWS):
            held[first : first + _PIECE_ROWS] = self._read(np.arange(first, min(first + _PIECE_ROWS, len(held))))
        self._held = held


class Batch(list[torch.Tensor]):
    """Rows, and the tensor [k, 2, n_mels, T] that they are views of, so that nobody need stack them again."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__(rows)
        self.rows = rows


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
        _check_split("all", val_fraction, split_by)
        hashes = np.frombuffer(b"".join(key[0] for key in self._keys), np.uint8).reshape(-1, 32)
        index = np.array([key[1] for key in self._keys], np.int64)
        validation = held_out(hashes, index, val_fraction, split_by)
        train = np.flatnonzero(~validation).tolist()
        return Subset(self, train), Subset(self, np.flatnonzero(validation).tolist() or train)
