"""Data loaders with a repeatable order, from memory on the training device or with a batch read ahead."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler, SequentialSampler
from typing_extensions import TypeVar

from distill.config import TrainingConfig
from distill.device import resolve_device
from distill.training.cached import CachedSpectrogramDataset, collate
from distill.training.defaults import batch_size_for
from distill.training.order import BLOCK_BYTES, BUFFER_BYTES, BlockSampler, EpochSampler, shuffle_for
from distill.training.resumable import EpochBatchSampler, PrefetchLoader, ResumableLoader
from distill.training.waveforms import AudioTrainingDataset

logger = logging.getLogger(__name__)

# What `transform` makes of a row; the batches that are made of them have the same structure.
_Batch = TypeVar("_Batch", default=torch.Tensor)


def create_complex_data_loaders(
    cache_dir: str | os.PathLike[str],
    config: TrainingConfig,
    val_fraction: float | None = None,
    *,
    normalization_stats: dict[str, float] | None = None,
    val_limit: int | None = None,
    transform: Callable[[torch.Tensor], _Batch] | None = None,
    sampler: Sampler[int] | None = None,
    drop_last: bool = False,
    num_workers: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[ResumableLoader[_Batch], ResumableLoader]:
    """Create the loaders of normalised rows [B, 2, n_mels, T] of a cache.

    If the whole cache fits `config.device_budget_mb`, it is held on the training device. Otherwise a thread reads one
    batch ahead. If the rows do not fit into memory either, blocks of rows that are stored together are shuffled,
    unless `config.shuffle` says otherwise. Without a configured budget nothing is held on a CPU, where the packs are in
    the page cache already.

    The dataset also works in worker processes, with every start method. They pay only for work of your own on each row,
    as in `transform`: reading a row takes less time than handing it from one process to another (docs/notes/model.md
    has figures).

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
    transform : callable, optional
        Applied to each training row [2, n_mels, T], before rows are put together to a batch.
    sampler : Sampler, optional
        The order of the training rows, as of a WeightedRandomSampler over
        ``CachedSpectrogramDataset(cache_dir, "train").labels``. One of torch that has no generator gets one with the
        seed of `config`. Default: shuffled as described above.
    drop_last : bool
        Leave out a last training batch that has fewer rows. Default: False.
    num_workers : int
        Processes that read training rows. Default: 0.
    progress : callable, optional
        Called with (rows copied, rows) while rows are copied to the device. An exception that it raises ends that.

    Returns
    -------
    train_loader, val_loader : DataLoader
        The first shuffled by seed and epoch, with every augmented variant; the second in order, without variants.
        Each iteration of the first is a new epoch. Its `batch_sampler` is a torch BatchSampler with `set_epoch`.
        Both have `state_dict` and `load_state_dict`, which continue an epoch with the very next batch.

    Raises
    ------
    CacheError
        If there is no valid cache.

    Examples
    --------
    >>> from distill.audio import ComplexSpectrogramConfig, preprocess_complex_spectrograms
    >>> from distill.training import TrainingConfig, create_complex_data_loaders
    >>> cache_dir, stats = preprocess_complex_spectrograms(None, "recordings", ComplexSpectrogramConfig())
    >>> train, val = create_complex_data_loaders(cache_dir, TrainingConfig(batch_size=2))
    >>> next(iter(train)).shape
    torch.Size([2, 2, 128, 94])
    >>> state = train.state_dict()  # save it with the model
    >>> train.load_state_dict(state)  # after a restart: the next iteration begins with the second batch
    """
    fraction = config.val_fraction if val_fraction is None else val_fraction
    train = CachedSpectrogramDataset(
        cache_dir, "train", fraction, config.split_by, normalization_stats, val_limit=val_limit, transform=transform
    )
    device = resolve_device(config.device)
    fits = train.cache_bytes <= _budget_bytes(config, device)
    if fits:
        train.hold(device, progress)
        logger.info("%.0f MB of features are held on %s", train.cache_bytes / 1e6, device)
    val = train.with_split("val", fraction, config.split_by, val_limit=val_limit)
    val.transform = None
    reads_ahead = not (fits or num_workers)
    return _loaders(
        train,
        val,
        config,
        _sampler(train, config, fits=fits) if sampler is None else sampler,
        drop_last=drop_last,
        num_workers=num_workers,
        loader=PrefetchLoader if reads_ahead else ResumableLoader,
        pin_memory=device.type == "cuda" and not fits,
    )


def _sampler(train: CachedSpectrogramDataset[Any], config: TrainingConfig, *, fits: bool) -> EpochSampler:
    """Return the order of the training rows; `fits`: all of them are held in memory."""
    shuffle = config.shuffle
    if shuffle == "auto":
        shuffle = "rows" if fits else shuffle_for(train.stored_bytes)
    if shuffle == "rows":
        return EpochSampler(len(train), config.seed)
    logger.info("rows are shuffled by blocks of those that are stored together")
    return _block_sampler(train, config, announce=not fits)


def create_data_loaders(
    files: Sequence[str | os.PathLike[str]],
    config: TrainingConfig,
    val_fraction: float | None = None,
    *,
    progress: Callable[[int, int], object] | None = None,
    val_limit: int | None = None,
    sampler: Sampler[int] | None = None,
    drop_last: bool = False,
    num_workers: int = 0,
) -> tuple[ResumableLoader, ResumableLoader]:
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
    val_limit, sampler, drop_last, num_workers
        As for `create_complex_data_loaders`.

    Returns
    -------
    train_loader, val_loader : DataLoader
        The first shuffled by seed and epoch, the second in order; as those of `create_complex_data_loaders`.

    Examples
    --------
    >>> from distill.training import TrainingConfig, create_data_loaders
    >>> files = ["recordings/bell.wav", "recordings/pad.wav"]
    >>> train_loader, val_loader = create_data_loaders(files, TrainingConfig(batch_size=2))
    >>> next(iter(train_loader)).shape
    torch.Size([2, 1, 48000])
    """
    fraction = config.val_fraction if val_fraction is None else val_fraction
    rate = config.features.sample_rate
    dataset = AudioTrainingDataset(
        files, config.chunk_samples, rate, config.normalize, progress, partial=config.partial
    )
    train, val = dataset.split(fraction, config.split_by, val_limit=val_limit)
    sampler = sampler or EpochSampler(len(train), config.seed)
    return _loaders(train, val, config, sampler, drop_last=drop_last, num_workers=num_workers)


def _loaders(
    train: Dataset[Any],
    val: Dataset[Any],
    config: TrainingConfig,
    sampler: Sampler[int],
    *,
    drop_last: bool,
    num_workers: int,
    loader: type[ResumableLoader[Any]] = ResumableLoader,
    pin_memory: bool = False,
) -> tuple[ResumableLoader[Any], ResumableLoader[Any]]:
    size = config.batch_size or batch_size_for(len(train))  # type: ignore[arg-type]
    if getattr(sampler, "generator", sampler) is None:
        # Otherwise it would draw from torch's global generator, which cannot continue where it was.
        sampler.generator = torch.Generator().manual_seed(config.seed)  # type: ignore[attr-defined]
    batches = EpochBatchSampler(sampler, size, drop_last)
    in_order = EpochBatchSampler(SequentialSampler(val), size)  # type: ignore[arg-type]
    options: dict[str, Any] = {"collate_fn": collate, "pin_memory": pin_memory}
    # A DataLoader draws a seed whenever it starts. Its own generator keeps that out of torch's global one, which
    # decides dropout and sampling.
    return (
        loader(train, batch_sampler=batches, generator=torch.Generator(), num_workers=num_workers, **options),
        loader(val, batch_sampler=in_order, generator=torch.Generator(), **options),
    )


def _block_sampler(train: CachedSpectrogramDataset[Any], config: TrainingConfig, *, announce: bool) -> BlockSampler:
    block_rows = max(1, BLOCK_BYTES // train.row_bytes)
    return BlockSampler(
        train.stored_order(),
        config.seed,
        block_rows=block_rows,
        group_blocks=max(1, BUFFER_BYTES // (block_rows * train.row_bytes)),
        announce=train.announce if announce else lambda block: None,
    )


def _budget_bytes(config: TrainingConfig, device: torch.device) -> int:
    """Return how much memory on `device` the cache's rows may take."""
    if config.device_budget_mb is not None:
        return config.device_budget_mb * 1_000_000
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 4
    if device.type == "mps":
        return torch.mps.recommended_max_memory() // 4
    return 0
