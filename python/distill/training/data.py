"""Training data: batches that are normalised, shifted and weighted where they are loaded."""

from __future__ import annotations

import itertools
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from distill.config import TrainingConfig
from distill.features.mel import MelSpec, empty_bands
from distill.features.normalization import energy_of, normalize, silence_of
from distill.features.spectrogram import AudioSpectrogram
from distill.index import Dataset
from distill.models.part import Part
from distill.preprocess.result import log_mixed, log_offsets, log_partial, log_skipped, log_unread, nothing_usable
from distill.text import counted
from distill.training.cached import CachedSpectrogramDataset
from distill.training.loaders import create_complex_data_loaders, create_data_loaders
from distill.training.order import EpochSampler
from distill.training.resumable import EpochBatchSampler
from distill.training.shifts import shift_rows
from distill.training.waveforms import AudioTrainingDataset, list_files
from distill.types import ProgressCallback, no_progress

logger = logging.getLogger(__name__)

MEASURED_ROWS = 256
"""Validation rows that quality figures, previews and pictures may use: reading all of them would take too long."""

_CPU = torch.device("cpu")
# Rows that are read between two checks for cancellation: a disk may take 10 ms for each.
_DRAWN_ROWS = 32
_STATISTICS_ROWS = 4096


def features_of(
    batch: Tensor,
    spectrogram: nn.Module | None,
    stats: dict[str, float] | None,
    device: torch.device,
    *,
    cached: bool,
) -> Tensor:
    """Return the normalised features [B, C, M, T] of a loader's batch on `device`.

    Parameters
    ----------
    batch : Tensor
        Features [B, 2, M, T] that are normalised already if `cached`, otherwise waveforms [B, 1, S].
    spectrogram : nn.Module or None
        Turns waveforms into features; not used if `cached`.
    stats : dict or None
        Means and standard deviations to normalise the features of waveforms with; None leaves them unnormalised.
    device : torch.device
    cached : bool

    Raises
    ------
    ValueError
        If the batch has the wrong shape, waveforms come without a spectrogram, or cached features without `stats`.
    """
    shape = list(batch.shape)
    if cached:
        if batch.ndim != 4 or batch.shape[1] != 2:
            raise ValueError(f"a batch of cached spectrograms must be [B, 2, n_mels, T], this one is {shape}")
        if stats is None:
            raise ValueError(
                "cached spectrograms are normalised, and the loss needs them as they were before: "
                "pass the normalization_stats of their dataset"
            )
        return batch.to(device)
    if batch.ndim != 3 or batch.shape[1] != 1:
        raise ValueError(f"a batch of waveforms must be [B, 1, samples], this one is {shape}")
    if spectrogram is None:
        raise ValueError("waveforms need a spectrogram: pass spectrogram=AudioSpectrogram(...)")
    with torch.no_grad():
        return normalize(spectrogram(batch.to(device)), stats)


def model_batches(
    loader: Iterable[Tensor],
    spectrogram: nn.Module | None,
    stats: dict[str, float] | None,
    device: torch.device,
    *,
    cached: bool,
    shifted_share: float = 0.0,
    parts: Iterable[Part | None] | None = None,
) -> Iterator[tuple[Tensor, Tensor | None, Part | None]]:
    """Yield every batch of a loader as what a step of the model takes.

    Parameters
    ----------
    loader, spectrogram, stats, device, cached
        As for `features_of`.
    shifted_share : float
        Share of the rows that `shift_rows` moves. Its numbers are drawn when a batch is requested, from torch's global
        generator. Default: 0, which draws nothing.
    parts : iterable of Part, optional
        Which rows of its batch each batch of the loader is, if other processes compute the others; see `World.parts`.

    Yields
    ------
    target : Tensor [B, C, M, T]
        Normalised features.
    energy : Tensor [B, M, T] or None
        Weights of the instantaneous frequency; None for one channel.
    part : Part or None
        The part of the batch; None if it is whole.
    """
    for batch, part in zip(loader, itertools.repeat(None) if parts is None else parts, strict=False):
        target = features_of(batch, spectrogram, stats, device, cached=cached)
        if part is not None:
            # A part without rows was loaded with one, so that it has a shape.
            target = target[: len(part)]
        target = shift_rows(target, shifted_share, silence_of(target, stats), part=part)
        yield target, energy_of(target, stats), part


@dataclass(frozen=True)
class TrainingData:
    """The loaders of a run and what is needed to turn their batches into normalised features.

    Attributes
    ----------
    train, val : DataLoader
        Normalised features [B, 2, M, T] from the cache, or waveforms [B, 1, S].
    spectrogram : nn.Module or None
        Turns waveforms into features; None for features from the cache.
    stats : dict
        Means and standard deviations of the features before normalisation.
    is_shared : bool
        Whether training and validation are the same chunk because there is only one.
    content_key : str
        Equal for equal audio; a resumed run compares it with that of its checkpoint.
    val_limit : int
        The largest hash of a chunk that is held out; a resumed run keeps it, so that no chunk changes sides.
    """

    train: DataLoader[Tensor]
    val: DataLoader[Tensor]
    spectrogram: AudioSpectrogram | None
    stats: dict[str, float]
    is_shared: bool
    content_key: str
    val_limit: int

    @classmethod
    def from_cache(
        cls,
        cache_dir: str | os.PathLike[str],
        config: TrainingConfig,
        stats: dict[str, float] | None = None,
        progress: Callable[[int, int], object] | None = None,
        *,
        val_limit: int | None = None,
    ) -> TrainingData:
        """Training data of a cache of two-channel features.

        Parameters
        ----------
        cache_dir : path
        config : TrainingConfig
        stats : dict, optional
            Statistics to normalise with. Default: the cache's.
        progress : callable, optional
            Called with (rows copied to the device, rows), if they are held there.
        val_limit : int, optional
            That of a run to resume.
        """
        train, val = create_complex_data_loaders(
            cache_dir, config, normalization_stats=stats, val_limit=val_limit, progress=progress
        )
        rows = train.dataset
        assert isinstance(rows, CachedSpectrogramDataset)
        assert rows.val_limit is not None
        return cls(train, val, None, rows.normalization_stats, rows.is_shared, rows.content_key, rows.val_limit)

    @classmethod
    def from_audio(
        cls,
        dataset: Dataset,
        config: TrainingConfig,
        stats: dict[str, float] | None = None,
        progress: Callable[[int, int], object] | None = None,
        val_limit: int | None = None,
    ) -> TrainingData:
        """Training data of a folder of audio, decoded into memory (the v1.0 path).

        Parameters
        ----------
        dataset : Dataset
        config : TrainingConfig
        stats : dict, optional
            Statistics to normalise with. Default: those of the training rows, of 4096 of them if there are more.
        progress : callable, optional
            Called with (files decoded, files).
        val_limit : int, optional
            That of a run to resume.

        Raises
        ------
        DatasetError
            If there are no audio files.
        NothingUsableError
            If no file gives a single chunk.
        """
        if message := empty_bands(MelSpec.of(config.spectrogram)):
            logger.warning("%s", message)
        files, skipped, unread = list_files(dataset)
        logger.info("%s: %s", dataset.path, counted(len(files) + len(skipped), "audio file"))
        train, val = create_data_loaders(files, config, progress=progress, val_limit=val_limit)
        waveforms: AudioTrainingDataset = train.dataset.dataset  # type: ignore[attr-defined]
        skipped += waveforms.skipped
        if not len(waveforms):
            raise nothing_usable(dataset.path, skipped, unread)
        logger.info("%s decoded", counted(len(waveforms), "chunk"))
        log_mixed(waveforms.channels)
        log_offsets(waveforms.with_offset)
        log_partial(waveforms.partial)
        log_skipped(skipped)
        log_unread(unread)
        spectrogram = AudioSpectrogram(config.spectrogram)
        if stats is None:
            drawn = _drawn(train, _STATISTICS_ROWS)
            stats = _magnitude_stats(features_of(batch, spectrogram, None, _CPU, cached=False) for batch in drawn)
        is_shared = train.dataset.indices == val.dataset.indices  # type: ignore[attr-defined]
        assert waveforms.val_limit is not None
        return cls(train, val, spectrogram, stats, is_shared, waveforms.content_key, waveforms.val_limit)

    @property
    def is_cached(self) -> bool:
        """Whether batches are features from the cache, not waveforms."""
        return self.spectrogram is None

    @property
    def sampler(self) -> EpochBatchSampler:
        """The sampler of the training batches."""
        return cast("EpochBatchSampler", self.train.batch_sampler)

    @property
    def order_key(self) -> str:
        """Equal for equal orders of the training rows, if `content_key` is; see `EpochSampler`."""
        return cast("EpochSampler", self.sampler.sampler).order_key

    def features(self, loader: DataLoader[Tensor]) -> Iterator[Tensor]:
        """Yield the normalised features of each batch of `loader`, on the CPU."""
        for batch in loader:
            yield features_of(batch, self.spectrogram, self.stats, _CPU, cached=self.is_cached)

    def validation_rows(self, count: int) -> Tensor:
        """Return at most `count` rows [N, C, M, T] of the first 256 validation rows, normalised.

        They are evenly spaced, because neighbouring rows are of the same file.
        """
        wanted = self.validation_indices(count)
        rows = (row for batch in self.features(self.val) for row in batch)
        return torch.stack([row for index, row in zip(range(wanted[-1] + 1), rows, strict=False) if index in wanted])

    def validation_indices(self, count: int) -> list[int]:
        """Return which of the validation rows `validation_rows` returns."""
        length = min(len(self.val.dataset), MEASURED_ROWS)  # type: ignore[arg-type]
        spaced = torch.linspace(0, length - 1, min(count, length), dtype=torch.float32)
        indices: list[int] = spaced.long().unique().tolist()
        return indices

    def training_rows(self, count: int, progress: ProgressCallback = no_progress) -> Iterator[Tensor]:
        """Yield at most `count` training rows, normalised, in small batches: the first ones of the first epoch.

        They are drawn at random, with the seed of the run, and no other rows are read. `progress` is called with
        ("draw", rows read, rows to read) between batches.
        """
        read, count = 0, min(count, len(self.train.dataset))  # type: ignore[arg-type]
        progress("draw", read, count)
        for batch in _drawn(self.train, count):
            yield features_of(batch, self.spectrogram, self.stats, _CPU, cached=self.is_cached)
            read += len(batch)
            progress("draw", read, count)


def _drawn(loader: DataLoader[Tensor], count: int) -> Iterator[Tensor]:
    """Yield the first `count` rows of the first epoch of a training loader."""
    sampler = cast("EpochBatchSampler", loader.batch_sampler)
    chosen = cast("EpochSampler", sampler.sampler).order(0)[:count]
    for first in range(0, len(chosen), _DRAWN_ROWS):
        indices = chosen[first : first + _DRAWN_ROWS].tolist()
        yield loader.collate_fn(loader.dataset.__getitems__(indices))  # type: ignore[attr-defined]


def _magnitude_stats(batches: Iterable[Tensor]) -> dict[str, float]:
    """Return mean and standard deviation of one-channel features; a standard deviation of 0 becomes 1."""
    sums = torch.zeros(3, dtype=torch.float64)
    for batch in batches:
        values = batch.double()
        sums += torch.stack([torch.tensor(values.numel()), values.sum(), values.square().sum()])
    n, total, squares = sums.tolist()
    mean = total / n
    return {"mag_mean": mean, "mag_std": math.sqrt(max(squares / n - mean * mean, 0.0)) or 1.0}
