"""The cache as a torch dataset of normalised rows (the two-channel path)."""

from __future__ import annotations

import logging
import math
import operator
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, SupportsIndex, overload

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate, get_worker_info
from typing_extensions import TypeVar

from distill import _native
from distill.cache.places import Origins, Provenance
from distill.cache.reader import CacheReader, reopen
from distill.features.normalization import denormalize, normalization_arrays, normalize
from distill.text import counted
from distill.training.split import VAL_FRACTION, Split, SplitBy, check_split, held_out

logger = logging.getLogger(__name__)

_READ_ROWS = 256
# What `transform` makes of a row.
_Row = TypeVar("_Row", default=torch.Tensor)


class CachedSpectrogramDataset(Dataset[_Row]):
    """Rows of a cache, normalised, for training, validation or both.

    ``dataset[index]`` is a row [2, n_mels, T], ``dataset[first:stop]`` a batch of rows [k, 2, n_mels, T]. To train with
    labels, combine both: ``torch.utils.data.StackDataset(dataset, dataset.labels)``.

    A pickle or a copy, such as that of a DataLoader's worker, holds no rows: it opens the cache again when it is first
    used, which has to hold the same rows still.

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
    val_limit : int, optional
        Hold out the chunks that a run holds out whose `val_limit` this is, instead of a share of all. Default: None.
    transform : callable, optional
        Applied to each row [2, n_mels, T] that is returned by index, as an augmentation or a crop. `rows` returns them
        without it. It may return any type. For worker processes it must be picklable. Default: None.

    Attributes
    ----------
    val_limit : int or None
        The largest hash of a chunk that is held out; None for "all".
    normalization_stats : dict
        The statistics that rows are normalised with.
    row_shape : tuple of int
        (2, n_mels, T).
    transform : callable or None
        As above.
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

    Examples
    --------
    >>> from distill.audio import ComplexSpectrogramConfig, preprocess_complex_spectrograms
    >>> from distill.training import CachedSpectrogramDataset
    >>> cache_dir, stats = preprocess_complex_spectrograms(None, "recordings", ComplexSpectrogramConfig())
    >>> rows = CachedSpectrogramDataset(cache_dir, split="train")
    >>> rows[0].shape
    torch.Size([2, 128, 94])
    """

    def __init__(
        self,
        cache_dir: str | os.PathLike[str],
        split: Split = "all",
        val_fraction: float = VAL_FRACTION,
        split_by: SplitBy = "chunk",
        normalization_stats: dict[str, float] | None = None,
        *,
        val_limit: int | None = None,
        transform: Callable[[torch.Tensor], _Row] | None = None,
    ) -> None:
        check_split(split, val_fraction, split_by)
        reader = CacheReader(cache_dir)
        self.transform = transform
        self._reader = reader
        self._cache = reader.cache_dir, reader.identity
        self.row_shape = reader.row_shape
        self.content_key = f"{_native.hash_bytes(b''.join(reader.content_hashes)).hex()} {len(reader)}"
        self.normalization_stats = dict(normalization_stats or reader.header["normalization_stats"])
        self._mean, self._scale = normalization_arrays(self.normalization_stats)
        self._held: torch.Tensor | None = None
        self._choose(reader, split, val_fraction, split_by, val_limit)

    def _choose(
        self, reader: CacheReader, split: Split, val_fraction: float, split_by: SplitBy, val_limit: int | None
    ) -> None:
        self._rows, self.is_shared, self.val_limit = _select(reader, split, val_fraction, split_by, val_limit)
        self._split = split, val_fraction, split_by, self.val_limit
        vars(self).pop("labels", None)

    # Of a copy, when it is first used: an error then reaches the process that waits for the rows.
    @cached_property
    def _reader(self) -> CacheReader:
        return reopen(*self._cache)

    @cached_property
    def _rows(self) -> np.ndarray:
        return _select(self._reader, *self._split)[0]

    @cached_property
    def _origins(self) -> Origins:
        return Origins(self._reader)

    def __getstate__(self) -> dict[str, Any]:
        reopened = ("_reader", "_rows", "_origins")
        return {name: value for name, value in vars(self).items() if name not in reopened} | {"_held": None}

    def __repr__(self) -> str:
        split, rows = self._split[0], "row" if len(self) == 1 else "rows"
        shape = " x ".join(map(str, self.row_shape))
        return f"{type(self).__name__}({os.fspath(self.cache_dir)!r}, {split!r}): {len(self)} {rows} of {shape}"

    def with_split(
        self, split: Split, val_fraction: float, split_by: SplitBy, *, val_limit: int | None = None
    ) -> CachedSpectrogramDataset[_Row]:
        """Return another split of the same open cache, so that both see the same manifest even if it is replaced."""
        check_split(split, val_fraction, split_by)
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other._choose(self._reader, split, val_fraction, split_by, val_limit)
        return other

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: SupportsIndex) -> _Row: ...
    @overload
    def __getitem__(self: CachedSpectrogramDataset, index: slice) -> torch.Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Any: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        if isinstance(index, slice):
            rows = self.__getitems__(range(*index.indices(len(self))))
            return collate(rows) if isinstance(rows, Batch) or rows else rows
        return self.__getitems__([self._checked(index)])[0]

    def _checked(self, index: SupportsIndex) -> int:
        """Return an index from 0."""
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        return number % len(self)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return the rows of a batch; a DataLoader calls this."""
        rows = Batch(self.rows(indices))
        return rows if self.transform is None else [self.transform(row) for row in rows]

    def rows(self, indices: Sequence[int]) -> torch.Tensor:
        """Return normalised rows [k, 2, n_mels, T] in the order of `indices`, on the CPU unless `hold` was called.

        They are read from the packs in file order, and `transform` is not applied.
        """
        rows = self._rows[np.asarray(indices, np.int64)]
        # A forked worker cannot use CUDA.
        if self._held is not None and not (self._held.is_cuda and get_worker_info()):
            return self._held[torch.from_numpy(rows).to(self._held.device)]
        return self._read(rows)

    def _read(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self._reader.read(rows, self._mean, self._scale))

    def provenance(self, index: int) -> Provenance:
        """Return where a row comes from.

        Parameters
        ----------
        index : int
            Index of the row.

        Returns
        -------
        Provenance
            `paths` of the files, `start_s` and `duration_s` of the chunk in seconds, its number `chunk`, and the number
            `variant` of the augmented variant, 0 for the original.

        Examples
        --------
        >>> from distill.audio import ComplexSpectrogramConfig, preprocess_complex_spectrograms
        >>> from distill.training import CachedSpectrogramDataset
        >>> cache_dir, stats = preprocess_complex_spectrograms(None, "recordings", ComplexSpectrogramConfig())
        >>> CachedSpectrogramDataset(cache_dir).provenance(0)
        Provenance(paths=('...',), start_s=0.0, duration_s=1.0, chunk=0, variant=0)
        """
        return self._origins.of(int(self._rows[self._checked(index)]))

    @cached_property
    def class_names(self) -> list[str]:
        """The folders directly inside the dataset, sorted; "." for files that are in none. The names of `labels`.

        All of those with rows, also if none is in this split.
        """
        return sorted({_top_folder(path) for paths in self._origins.paths for path in paths})

    @cached_property
    def labels(self) -> torch.Tensor:
        """Index into `class_names` of each row, [N], int64.

        Files of the same content in several folders have the first of them; a warning is logged.
        """
        numbers = {name: number for number, name in enumerate(self.class_names)}
        ambiguous = [paths for paths in self._origins.paths if len(set(map(_top_folder, paths))) > 1]
        if ambiguous:
            found = counted(len(ambiguous), "sound")
            logger.warning(
                "%s found in several folders, and labelled with the first: %s", found, ", ".join(ambiguous[0])
            )
        of_content = np.array([numbers[_top_folder(paths[0])] for paths in self._origins.paths], np.int64)
        return torch.from_numpy(of_content[self._reader.source[self._rows]])

    def normalize(self, features: torch.Tensor) -> torch.Tensor:
        """Return the z-scores of features [..., 2, n_mels, T], as rows of this dataset have them."""
        return normalize(features, self.normalization_stats)

    def denormalize(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the features [..., 2, n_mels, T] of normalised rows, as `ComplexSpectrogram.inverse` needs them."""
        return denormalize(rows, self.normalization_stats)

    @property
    def rows_key(self) -> str:
        """Equal for equal rows, of the same cache, in the same order."""
        return _native.hash_bytes(self._cache[1].encode() + self._rows.astype("<i8").tobytes()).hex()

    def content_hashes(self, indices: Sequence[int]) -> list[bytes]:
        """Return the hash of the file that each of some rows comes from."""
        sources = self._reader.source[self._rows[np.asarray(indices, np.int64)]]
        return [self._reader.content_hashes[source] for source in sources.tolist()]

    @property
    def cache_dir(self) -> str | os.PathLike[str]:
        """The cache folder."""
        return self._cache[0]

    @property
    def cache_bytes(self) -> int:
        """Size in bytes of all rows of the cache as float32 tensors."""
        row_bytes: int = math.prod(self.row_shape) * 4
        return len(self._reader) * row_bytes

    @property
    def row_bytes(self) -> int:
        """Size in bytes of a stored row."""
        return self._reader.row_bytes

    @property
    def stored_bytes(self) -> int:
        """Size in bytes of all rows of the cache as they are stored."""
        return len(self._reader) * self.row_bytes

    def stored_order(self) -> np.ndarray:
        """Return all indices, int64, in the order in which their rows are stored."""
        return self._reader.stored_order(self._rows)

    def announce(self, indices: np.ndarray) -> None:
        """Let the system read rows that will be used soon; does not wait for them."""
        self._reader.announce(self._rows[indices])

    def hold(self, device: torch.device, progress: Callable[[int, int], object] | None = None) -> None:
        """Copy all rows of the cache to a device, from which `rows` then takes them.

        Splits that `with_split` makes afterwards share the copy; pickles and copies read the cache.

        Parameters
        ----------
        device : torch.device
            With at least `cache_bytes` of free memory.
        progress : callable, optional
            Called with (rows copied, rows). An exception that it raises ends the copying; `rows` then reads the cache.
        """
        held = torch.empty((len(self._reader), *self.row_shape), dtype=torch.float32, device=device)
        for first in range(0, len(held), _READ_ROWS):
            stop = min(first + _READ_ROWS, len(held))
            held[first:stop] = self._read(np.arange(first, stop))
            if progress is not None:
                progress(stop, len(held))
        self._held = held


def _select(
    reader: CacheReader, split: Split, val_fraction: float, split_by: SplitBy, val_limit: int | None
) -> tuple[np.ndarray, bool, int | None]:
    """Return the rows of a split, whether both parts share their only chunk, and the limit of the split."""
    if split == "all":
        return np.arange(len(reader)), False, val_limit
    hashes = np.frombuffer(b"".join(reader.content_hashes), np.uint8).reshape(-1, 32)
    validation, limit = held_out(hashes[reader.source], reader.chunk, val_fraction, split_by, val_limit)
    originals = reader.variant == 0
    is_shared = not validation.any()
    if is_shared:
        mask = originals if split == "val" else np.ones_like(originals)
    else:
        mask = validation & originals if split == "val" else ~validation
    return np.flatnonzero(mask), is_shared, limit


def _top_folder(path: str) -> str:
    folder, _, rest = path.partition("/")
    return folder if rest else "."


class Batch(list[torch.Tensor]):
    """A list of rows, and `rows`, the tensor [k, 2, n_mels, T] they are views of: it need not be stacked again."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__(rows)
        self.rows = rows


def collate(rows: list[Any]) -> Any:
    """Return rows as one batch, as a DataLoader does by default."""
    return rows.rows if isinstance(rows, Batch) else default_collate(rows)
