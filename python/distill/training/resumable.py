"""Loaders that continue an epoch where it was left."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, Subset
from typing_extensions import TypeVar

from distill import _native
from distill.models.part import part_bounds
from distill.training.cached import CachedSpectrogramDataset
from distill.training.order import EpochSampler, Shuffle
from distill.training.waveforms import AudioTrainingDataset


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
        They are the ones that were used before if the order of the sampler depends on nothing but its epoch.
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
        return int(getattr(self.sampler, "epoch", 0))

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
        if isinstance(self.sampler, EpochSampler):
            self.sampler.first_row, first = first * self.batch_size, 0
        for batch in islice(super().__iter__(), first, None):
            start, stop = part_bounds(len(batch), *share)
            yield batch[start:stop] or batch[:1]


# What `transform` makes of a row; the batches that are made of them have the same structure.
_Batch = TypeVar("_Batch", default=torch.Tensor)


class ResumableLoader(DataLoader[_Batch]):
    """A DataLoader that can continue where another one was, in the middle of an epoch.

    Its methods are those of torchdata's ``StatefulDataLoader``. A batch counts once it has been handed over, whatever
    workers or a thread have read ahead. Batches continue exactly if the order of the sampler depends on its epoch, or
    on a ``torch.Generator`` that is its attribute ``generator``, as samplers of torch have it.

    Examples
    --------
    >>> from distill.audio import ComplexSpectrogramConfig, preprocess_complex_spectrograms
    >>> from distill.training import ResumableLoader, TrainingConfig, create_complex_data_loaders
    >>> cache_dir, stats = preprocess_complex_spectrograms(None, "recordings", ComplexSpectrogramConfig())
    >>> train, val = create_complex_data_loaders(cache_dir, TrainingConfig(batch_size=2))
    >>> isinstance(train, ResumableLoader)
    True
    >>> batches = iter(train)
    >>> first, state, second = next(batches), train.state_dict(), next(batches)
    >>> train.load_state_dict(state)
    >>> next(iter(train)).equal(second)
    True
    """

    # Epoch and batches of the pass that goes on, or was left; None before the first, and after a complete one.
    _position: tuple[int, int] | None = None
    # The state of the sampler's generator when that pass began.
    _drawn_from: torch.Tensor | None = None

    @property
    def _sampler(self) -> EpochBatchSampler:
        return cast("EpochBatchSampler", self.batch_sampler)

    def __iter__(self) -> Iterator[_Batch]:  # type: ignore[override]
        sampler = self._sampler
        epoch, first = sampler.epoch, sampler.first_step
        self._position, self._drawn_from = (epoch, first), _generator_state(sampler.sampler)
        for step, batch in enumerate(self._batches(), first + 1):
            self._position = epoch, step
            yield batch
        self._position = None

    def _batches(self) -> Iterator[_Batch]:
        return super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is: epoch, batches of it that were used, and what their order depends on.

        After an epoch that was not read to its end, that is where it ended, until the next one begins.
        """
        sampler = self._sampler
        state: dict[str, Any] = {"epoch": sampler.epoch, "step": sampler.first_step}
        drawn_from = _generator_state(sampler.sampler)
        if self._position:
            state["epoch"], state["step"] = self._position
            drawn_from = self._drawn_from
        if drawn_from is not None:
            state["generator"] = drawn_from
        return state | self._order()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where another loader was: the next iteration yields the batch after the last one that it yielded.

        Parameters
        ----------
        state_dict : dict
            From `state_dict` of a loader of the same rows, with the same options.

        Raises
        ------
        ValueError
            If the loader has another order, so that it cannot continue there, or this is no state of a loader; the
            message says why.
        """
        sampler = self._sampler
        for name, most in (("epoch", None), ("step", len(sampler))):
            value = state_dict.get(name)
            if type(value) is not int or value < 0 or (most is not None and value > most):
                limit = "at least 0" if most is None else f"from 0 to {most}, the batches of an epoch"
                raise ValueError(f"the state of a loader has {name}={value!r}, which must be {limit}")
        for name, value in self._order().items():
            if state_dict.get(name) != value:
                raise ValueError(
                    f"the state is of a loader with {name}={state_dict.get(name)!r}, this one has {value!r}: "
                    "make the loader with the same rows and options"
                )
        if _generator_state(sampler.sampler) is not None:
            if "generator" not in state_dict:
                raise ValueError("the state is of a loader whose sampler has no generator, this one has one")
            cast("Any", sampler.sampler).generator.set_state(state_dict["generator"])
        sampler.set_epoch(state_dict["epoch"])
        sampler.first_step = state_dict["step"]
        self._position = None

    def _order(self) -> dict[str, Any]:
        """Return what the order of the batches depends on besides the epoch."""
        batches = self._sampler
        sampler = batches.sampler
        # Without the rank: Lightning saves the state of one process, from which all of them continue.
        names = ("seed", "order_key", "num_replicas", "shuffle")
        return {
            "rows": len(self.dataset),  # type: ignore[arg-type]
            "rows_key": _rows_key(self.dataset),
            "batch_size": batches.batch_size,
            "drop_last": batches.drop_last,
            "sampler": type(sampler).__name__,
            **{name: getattr(sampler, name) for name in names if hasattr(sampler, name)},
        }


def _generator_state(sampler: Any) -> torch.Tensor | None:
    """Return the state of the generator that a sampler draws from, as those of torch have one; None if it has none."""
    generator = getattr(sampler, "generator", None)
    return generator.get_state() if isinstance(generator, torch.Generator) else None


def _rows_key(dataset: Dataset[Any]) -> str | None:
    """Return what is equal for equal rows in the same order; None if it is unknown."""
    if isinstance(dataset, CachedSpectrogramDataset):
        return dataset.rows_key
    if isinstance(dataset, Subset) and isinstance(dataset.dataset, AudioTrainingDataset):
        indices = np.asarray(dataset.indices, np.int64)
        return f"{dataset.dataset.content_key} {_native.hash_bytes(indices.tobytes()).hex()}"
    return None


class PrefetchLoader(ResumableLoader[_Batch]):
    """A loader whose thread reads the next batch while the current one is used."""

    def _batches(self) -> Iterator[_Batch]:
        batches = super()._batches()
        with ThreadPoolExecutor(1, "distill-read") as reader:
            pending = reader.submit(next, batches, None)
            while (batch := pending.result()) is not None:
                pending = reader.submit(next, batches, None)
                yield batch
