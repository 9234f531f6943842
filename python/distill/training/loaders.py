"""Data loaders with a repeatable order, from memory on the training device or with a batch read ahead."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, SequentialSampler, default_collate

from distill.config import TrainingConfig
from distill.device import resolve_device
from distill.models.part import part_bounds
from distill.training.cached import Batch, CachedSpectrogramDataset
from distill.training.defaults import batch_size_for
from distill.training.order import BLOCK_BYTES, BUFFER_BYTES, BlockSampler, EpochSampler, Shuffle, shuffle_for
from distill.training.waveforms import AudioTrainingDataset

logger = logging.getLogger(__name__)


class EpochBatchSampler(BatchSampler):
    """Batches of indices that can continue an interrupted epoch.

    Lightning makes it distributed by another one with a sampler of its own, accelerate by taking every n-th batch.

    Parameters
    ----------
    sampler : Sampler
        An EpochSampler, or any other, such as a DistributedSampler.
    batch_size : int
        Rows in a batch; the last may have fewer.
    drop_last : bool
        Leave out a last batch that has fewer. Default: False.

    Attributes
    ----------
    first_step : int
        Batches that the next pass leaves out at its beginning, to continue an interrupted epoch. The pass resets it.
        Only an EpochSampler can leave out rows; with another, it must be 0.
    share : tuple of int
        (rank, size): of each batch, the next pass gives the part of process `rank` of `size`, see `part_bounds`. Where
        that is empty, it gives one row, so that a batch has a shape. Default: all of it. The pass resets it.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int, drop_last: bool = False) -> None:
        super().__init__(sampler, batch_size, drop_last)
        self.first_step, self.share = 0, (0, 1)

    @property
    def shuffle(self) -> Shuffle:
        """How the sampler shuffles."""
        return cast("EpochSampler", self.sampler).shuffle

    @property
    def epoch(self) -> int:
        """The epoch of the sampler's next pass."""
        return cast("EpochSampler", self.sampler).epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass, if the sampler has epochs."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        first, share = self.first_step, self.share
        self.first_step, self.share = 0, (0, 1)
        if first:
            if not isinstance(self.sampler, EpochSampler):
                raise TypeError(f"{type(self.sampler).__name__} cannot continue an epoch, only an EpochSampler can")
            self.sampler.first_row = first * self.batch_size
        for batch in super().__iter__():
            start, stop = part_bounds(len(batch), *share)
            yield batch[start:stop] or batch[:1]


class _PrefetchLoader(DataLoader[torch.Tensor]):
    """A DataLoader whose worker thread reads the next batch while the current one is used."""

    def __iter__(self) -> Iterator[torch.Tensor]:  # type: ignore[override]
        batches = super().__iter__()
        with ThreadPoolExecutor(1, "distill-read") as reader:
            pending = reader.submit(next, batches, None)
            while (batch := pending.result()) is not None:
                pending = reader.submit(next, batches, None)
                yield batch


def create_complex_data_loaders(
    cache_dir: str | os.PathLike[str],
    config: TrainingConfig,
    val_fraction: float | None = None,
    *,
    normalization_stats: dict[str, float] | None = None,
    val_limit: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[DataLoader[torch.Tensor], DataLoader[torch.Tensor]]:
    """Create the loaders of normalised rows [B, 2, n_mels, T] of a cache.

    If the whole cache fits `config.device_budget_mb`, it is held on the training device. Otherwise a thread reads one
    batch ahead. If the rows do not fit into memory either, blocks of rows that are stored together are shuffled,
    unless `config.shuffle` says otherwise. Without a configured budget nothing is held on a CPU, where the packs are in
    the page cache already.

    The dataset also works in worker processes, with every start method. They pay only for work of your own on each row:
    reading a row takes less time than handing it from one process to another (docs/notes/model.md has figures).

    Parameters
    ----------
    cache_dir : path
        The cache folder, as `preprocess_complex_spectrograms` returned it.
    config : TrainingConfig
        Batch size, seed, split, device and budget.
    val_fraction : float, optional
        Share of the chunks that is held out. Default: that of `config`.
    normalization_stats : dict, optional
        Statistics to normalise with, such as those of a run to resume. Default: those of the cache.
    val_limit : int, optional
        Hold out the chunks of a run to resume, whose `val_limit` this is. Default: a share of all chunks.
    progress : callable, optional
        Called with (rows copied, rows) while rows are copied to the device. An exception that it raises ends that.

    Returns
    -------
    train_loader, val_loader : DataLoader
        The first shuffled by seed and epoch, with every augmented variant; the second in order, without variants.
        Each iteration of the first is a new epoch. Its `batch_sampler` is a torch BatchSampler with `set_epoch`.

    Raises
    ------
    CacheError
        If there is no valid cache.
    """
    fraction = config.val_fraction if val_fraction is None else val_fraction
    train = CachedSpectrogramDataset(
        cache_dir, "train", fraction, config.split_by, normalization_stats, val_limit=val_limit
    )
    device = resolve_device(config.device)
    fits = train.cache_bytes <= _budget_bytes(config, device)
    if fits:
        train.hold(device, progress)
        logger.info("%.0f MB of features are held on %s", train.cache_bytes / 1e6, device)
    val = train.with_split("val", fraction, config.split_by, val_limit=val_limit)
    shuffle = config.shuffle
    if shuffle == "auto":
        shuffle = "rows" if fits else shuffle_for(train.stored_bytes)
    sampler = None
    if shuffle == "blocks":
        sampler = _block_sampler(train, config, announce=not fits)
        logger.info("rows are shuffled by blocks of those that are stored together")
    if fits:
        return _loaders(train, val, config, sampler=sampler)
    return _loaders(train, val, config, loader=_PrefetchLoader, sampler=sampler, pin_memory=device.type == "cuda")


def create_data_loaders(
    files: Sequence[str | os.PathLike[str]],
    config: TrainingConfig,
    val_fraction: float | None = None,
    *,
    progress: Callable[[int, int], object] | None = None,
    val_limit: int | None = None,
) -> tuple[DataLoader[torch.Tensor], DataLoader[torch.Tensor]]:
    """Create the loaders of waveforms [B, 1, S] for the v1.0 path.

    Parameters
    ----------
    files : sequence of path
        Audio files.
    config : TrainingConfig
        Chunk length, sample rate, batch size, seed and split.
    val_fraction : float, optional
        Share of the chunks that is held out. Default: that of `config`.
    progress : callable, optional
        Called with (files decoded, files).
    val_limit : int, optional
        As for `create_complex_data_loaders`.

    Returns
    -------
    train_loader, val_loader : DataLoader
        The first shuffled by seed and epoch, the second in order.
    """
    fraction = config.val_fraction if val_fraction is None else val_fraction
    rate = config.features.sample_rate
    dataset = AudioTrainingDataset(
        files, config.chunk_samples, rate, config.normalize, progress, partial=config.partial
    )
    return _loaders(*dataset.split(fraction, config.split_by, val_limit=val_limit), config)


def _loaders(
    train: Dataset[torch.Tensor],
    val: Dataset[torch.Tensor],
    config: TrainingConfig,
    *,
    loader: type[DataLoader[torch.Tensor]] = DataLoader,
    sampler: EpochSampler | None = None,
    pin_memory: bool = False,
) -> tuple[DataLoader[torch.Tensor], DataLoader[torch.Tensor]]:
    size = config.batch_size or batch_size_for(len(train))  # type: ignore[arg-type]
    shuffled = EpochBatchSampler(sampler or EpochSampler(len(train), config.seed), size)  # type: ignore[arg-type]
    in_order = EpochBatchSampler(SequentialSampler(val), size)  # type: ignore[arg-type]
    options: dict[str, Any] = {"collate_fn": _collate, "pin_memory": pin_memory}
    # A DataLoader draws a seed whenever it starts. Its own generator keeps that out of torch's global one, which
    # decides dropout and sampling.
    return (
        loader(train, batch_sampler=shuffled, generator=torch.Generator(), **options),
        loader(val, batch_sampler=in_order, generator=torch.Generator(), **options),
    )


def _block_sampler(train: CachedSpectrogramDataset, config: TrainingConfig, *, announce: bool) -> BlockSampler:
    block_rows = max(1, BLOCK_BYTES // train.row_bytes)
    return BlockSampler(
        train.stored_order(),
        config.seed,
        block_rows=block_rows,
        group_blocks=max(1, BUFFER_BYTES // (block_rows * train.row_bytes)),
        announce=train.announce if announce else lambda block: None,
    )


def _collate(rows: list[torch.Tensor]) -> torch.Tensor:
    return rows.rows if isinstance(rows, Batch) else default_collate(rows)


def _budget_bytes(config: TrainingConfig, device: torch.device) -> int:
    """Return how much memory on `device` the cache's rows may take."""
    if config.device_budget_mb is not None:
        return config.device_budget_mb * 1_000_000
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 4
    if device.type == "mps":
        return torch.mps.recommended_max_memory() // 4
    return 0
