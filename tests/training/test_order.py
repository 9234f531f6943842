"""The order of training rows: a new epoch for each iteration, and samplers that can be made distributed."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, SequentialSampler

from distill.training import create_complex_data_loaders, create_data_loaders


@pytest.fixture(params=["held", "prefetched", "waveforms"])
def loader(request, sounds, cache, small_config) -> DataLoader:
    if request.param == "waveforms":
        files = [path for path in (sounds / "metal").rglob("*") if path.is_file()]
        return create_data_loaders(files, replace(small_config, batch_size=4))[0]
    budget = 1_000 if request.param == "held" else 0
    return create_complex_data_loaders(cache, replace(small_config, device_budget_mb=budget))[0]


def flat(batches) -> list[int]:
    return [index for batch in batches for index in batch]


def test_a_new_iteration_gives_other_batches_also_after_one_that_was_broken_off(loader):
    first = [next(iter(loader)) for _ in range(5)]
    assert not any(torch.equal(first[i], first[j]) for i in range(5) for j in range(i))
    parts = [torch.cat(list(islice(loader, 2))) for _ in range(5)]
    assert not any(torch.equal(parts[i], parts[j]) for i in range(5) for j in range(i))


def test_every_iteration_that_is_read_to_its_end_has_each_row_once(loader):
    sampler, rows = loader.batch_sampler, len(loader.dataset)
    next(iter(sampler))
    epochs = [flat(sampler) for _ in range(3)]
    assert all(sorted(epoch) == list(range(rows)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_order_depends_on_the_seed_and_the_epoch_only(cache, small_config):
    def orders(seed: int, *epochs: int) -> list[list[int]]:
        sampler = create_complex_data_loaders(cache, replace(small_config, seed=seed))[0].batch_sampler
        found = []
        for epoch in epochs:
            sampler.set_epoch(epoch)
            found.append(flat(sampler))
        return found

    assert orders(1, 0, 1, 7) == orders(1, 7, 1, 0)[::-1]
    assert orders(1, 3) != orders(2, 3)


def test_a_set_epoch_is_that_of_the_next_iteration_and_the_following_ones_count_on(loader):
    sampler = loader.batch_sampler
    epochs = [flat(sampler) for _ in range(4)]
    sampler.set_epoch(2)
    assert [flat(sampler), flat(sampler)] == epochs[2:]
    # Lightning calls the inner sampler's.
    sampler.sampler.set_epoch(1)
    assert flat(sampler) == epochs[1]


def test_an_epoch_that_is_continued_has_the_remaining_batches_and_the_next_one_all(loader):
    sampler = loader.batch_sampler
    whole, following = list(sampler), list(sampler)
    sampler.epoch, sampler.first_step = 0, 2
    next(iter(sampler))
    sampler.epoch, sampler.first_step = 0, 2
    assert list(sampler) == whole[2:]
    assert list(sampler) == following


def test_lightning_can_replace_the_sampler_by_a_distributed_one(loader):
    """It makes another batch sampler of the same class, for each process, and sets the epoch of its sampler."""
    batches = loader.batch_sampler
    assert isinstance(batches, BatchSampler)
    parts = []
    for rank in range(2):
        sampler = DistributedSampler(loader.dataset, num_replicas=2, rank=rank, shuffle=True)
        part = type(batches)(sampler, batch_size=batches.batch_size, drop_last=batches.drop_last)
        epochs = []
        for epoch in range(2):
            part.sampler.set_epoch(epoch)
            epochs.append(flat(part))
        assert len(list(part)) == len(part)
        assert epochs[0] != epochs[1]
        parts.append(epochs[0])
    assert set(parts[0]) | set(parts[1]) == set(range(len(loader.dataset)))
    # With an odd number of rows, one is in both parts.
    assert len(set(parts[0]) & set(parts[1])) == len(loader.dataset) % 2


def test_accelerate_can_give_each_process_every_second_batch(cache, small_config):
    """Each process has the sampler, and leaves out the batches of the others."""
    samplers = [create_complex_data_loaders(cache, small_config)[0].batch_sampler for _ in range(2)]
    for _ in range(2):
        parts = [list(islice(sampler, rank, None, 2)) for rank, sampler in enumerate(samplers)]
        # It fills up a last batch that is smaller, and drops it if the sampler does.
        assert {len(batch) for part in parts for batch in part[:-1]} == {samplers[0].batch_size}
        assert samplers[0].drop_last is False
        assert sorted(flat(parts[0]) + flat(parts[1])) == list(range(len(samplers[0].sampler)))


def test_the_last_batch_is_dropped_on_request_and_a_sampler_without_epochs_is_accepted(loader):
    sampler = type(loader.batch_sampler)(SequentialSampler(range(11)), batch_size=4, drop_last=True)
    sampler.set_epoch(3)
    assert list(sampler) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(sampler) == 2
