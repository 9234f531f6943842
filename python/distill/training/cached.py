"""The cache as a torch dataset of normalised rows (the two-channel path)."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from distill import _native
from distill.cache.reader import CacheReader
from distill.features.normalization import normalization_arrays
from distill.training.split import VAL_FRACTION, Split, SplitBy, check_split, held_out

_READ_ROWS = 256


class CachedSpectrogramDataset(Dataset[torch.Tensor]):
    """Rows of a cache, normalised, for training, validation or both.

    Parameters
    ----------
    cache_dir : path
        The cache folder, as `preprocess_complex_spectrograms` returned it.
    split : {"all", "train", "val"}
        "all": every row. "train": all variants of the chunks that are not held out. "val": the held-out chunks without
        their augmented variants. If the cache has a single chunk, it is in both. Default: "all".
    val_fraction : float
        Share of the chunks that is held out. Default: 0.15.
    split_by : {"chunk", "file"}
        Whether chunks are held out one by one, or all chunks of a file together. Default: "chunk".
    normalization_stats : dict, optional
        mag_mean, mag_std, if_mean, if_std to normalise with. Default: those of the cache.

    Attributes
    ----------
    normalization_stats : dict
        The statistics that rows are normalised with.
    row_shape : tuple of int
        (2, n_mels, T).
    content_key : str
        Equal for caches of the same audio with the same variants.
    is_shared : bool
        Whether training and validation are the same chunk because there is only one.

    Raises
    ------
    CacheError
        If there is no valid cache; on reading, if a row is damaged.
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
        check_split(split, val_fraction, split_by)
        self._reader = CacheReader(cache_dir)
        self.row_shape = self._reader.row_shape
        self.content_key = f"{_native.hash_bytes(b''.join(self._reader.content_hashes)).hex()} {len(self._reader)}"
        self.normalization_stats = dict(normalization_stats or self._reader.header["normalization_stats"])
        self._mean, self._scale = normalization_arrays(self.normalization_stats)
        self._held: torch.Tensor | None = None
        self._select(split, val_fraction, split_by)

    def with_split(self, split: Split, val_fraction: float, split_by: SplitBy) -> CachedSpectrogramDataset:
        """Return another split of the same open cache, so that both see the same manifest even if it is replaced."""
        check_split(split, val_fraction, split_by)
        other = copy.copy(self)
        other._select(split, val_fraction, split_by)
        return other

    def _select(self, split: Split, val_fraction: float, split_by: SplitBy) -> None:
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
        """Return the rows of a batch; a DataLoader calls this."""
        return Batch(self.rows(indices))

    def rows(self, indices: Sequence[int]) -> torch.Tensor:
        """Return normalised rows [k, 2, n_mels, T] in the order of `indices`, on the CPU unless `hold` was called.

        They are read from the mapped packs in file order.
        """
        rows = self._rows[np.asarray(indices, np.int64)]
        if self._held is not None:
            return self._held[torch.from_numpy(rows).to(self._held.device)]
        return self._read(rows)

    def _read(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self._reader.read(rows, self._mean, self._scale))

    @property
    def cache_bytes(self) -> int:
        """Size in bytes of all rows of the cache as float32 tensors."""
        return len(self._reader) * math.prod(self.row_shape) * 4

    def hold(self, device: torch.device) -> None:
        """Copy all rows of the cache to a device, from which `rows` then takes them.

        Splits that `with_split` makes afterwards share the copy.

        Parameters
        ----------
        device : torch.device
            With at least `cache_bytes` of free memory.
        """
        held = torch.empty((len(self._reader), *self.row_shape), dtype=torch.float32, device=device)
        for first in range(0, len(held), _READ_ROWS):
            held[first : first + _READ_ROWS] = self._read(np.arange(first, min(first + _READ_ROWS, len(held))))
        self._held = held


class Batch(list[torch.Tensor]):
    """A list of rows, and `rows`, the tensor [k, 2, n_mels, T] they are views of: it need not be stacked again."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__(rows)
        self.rows = rows
