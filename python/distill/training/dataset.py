"""Datasets and loaders: rows of the cache for the two-channel path, waveforms for the v1.0 path."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from distill import _native
from distill.audio.chunking import Chunks
from distill.cache.reader import CacheReader
from distill.config import Normalize, TrainingConfig
from distill.errors import AudioFileError, ConfigError
from distill.training.resolve import batch_size_for

Split = Literal["all", "train", "val"]
SplitBy = Literal["chunk", "file"]

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
    if drawn.size and drawn.min() != drawn.max():
        if not mask.any():
            mask = drawn == drawn.min()
        elif mask.all():
            mask = drawn != drawn.max()
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
        stats = self.normalization_stats
        self._mean = np.array([stats["mag_mean"], stats["if_mean"]], np.float32).reshape(2, 1, 1)
        self._scale = 1 / np.array([stats["mag_std"], stats["if_std"]], np.float32).reshape(2, 1, 1)
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
        return list(self.rows(indices))

    def rows(self, indices: Sequence[int]) -> torch.Tensor:
        """Normalised rows [k, 2, n_mels, T], in the order asked for."""
        features = self._reader.read(self._rows[np.asarray(indices, np.int64)])
        features -= self._mean
        features *= self._scale
        return torch.from_numpy(features)


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


class EpochBatches(Sampler[list[int]]):
    """Batches in an order that the seed and the epoch alone decide, from any step on.

    Parameters
    ----------
    length : int
        Number of rows.
    batch_size : int
        Rows a batch; the last may be smaller.
    seed : int
        Decides, with `epoch`, the order.

    Attributes
    ----------
    epoch : int
        Counts passes; set it to have a certain one.
    first_step : int
        Batches to leave out at the beginning, for an epoch that was interrupted.
    """

    def __init__(self, length: int, batch_size: int, seed: int) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.epoch = 0
        self.first_step = 0

    def __len__(self) -> int:
        return math.ceil(self.length / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length).tolist()
        for start in range(self.first_step * self.batch_size, self.length, self.batch_size):
            yield order[start : start + self.batch_size]
        self.epoch += 1
        self.first_step = 0


def _loaders(
    train: Dataset[torch.Tensor], val: Dataset[torch.Tensor], config: TrainingConfig
) -> tuple[DataLoader[torch.Tensor], DataLoader[torch.Tensor]]:
    size = config.batch_size or batch_size_for(len(train))  # type: ignore[arg-type]
    batches = EpochBatches(len(train), size, config.seed)  # type: ignore[arg-type]
    # A generator of their own: a loader draws a number when it starts, and must not draw it from the model's dropout.
    return (
        DataLoader(train, batch_sampler=batches, generator=torch.Generator()),
        DataLoader(val, batch_size=size, shuffle=False, generator=torch.Generator()),
    )


def create_complex_data_loaders(
    cache_dir: str | os.PathLike[str],
    config: TrainingConfig,
    val_fraction: float | None = None,
    *,
    normalization_stats: dict[str, float] | None = None,
) -> tuple[DataLoader[torch.Tensor], DataLoader[torch.Tensor]]:
    """Loaders of normalised rows [B, 2, n_mels, T] from a cache.

    Parameters
    ----------
    cache_dir : path
        The folder that `preprocess_complex_spectrograms` returned.
    config : TrainingConfig
        Batch size, seed and split.
    val_fraction : float, optional
        Share held out. Default: the configuration's.
    normalization_stats : dict, optional
        Statistics to normalise with, those of a run that goes on. Default: the cache's own.

    Returns
    -------
    train_loader, val_loader : DataLoader
        The first shuffled, by seed and epoch, with every variant; the second with originals only.

    Raises
    ------
    CacheError
        If there is no valid cache.
    """
    fraction = config.val_fraction if val_fraction is None else val_fraction
    train = CachedSpectrogramDataset(cache_dir, "train", fraction, config.split_by, normalization_stats)
    return _loaders(train, train.with_split("val", fraction, config.split_by), config)


def create_data_loaders(
    files: Sequence[str | os.PathLike[str]],
    config: TrainingConfig,
    val_fraction: float | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[DataLoader[torch.Tensor], DataLoader[torch.Tensor]]:
    """Loaders of waveforms [B, 1, S] for the v1.0 path.

    Parameters
    ----------
    files : sequence of path
        The dataset's files.
    config : TrainingConfig
        Chunk length, rate, batch size, seed and split.
    val_fraction : float, optional
        Share held out. Default: the configuration's.
    progress : callable, optional
        Called with (files decoded, files).

    Returns
    -------
    train_loader, val_loader : DataLoader
    """
    fraction = config.val_fraction if val_fraction is None else val_fraction
    rate = config.features.sample_rate
    dataset = AudioTrainingDataset(files, config.chunk_samples, rate, config.normalize, progress)
    return _loaders(*dataset.split(fraction, config.split_by), config)
