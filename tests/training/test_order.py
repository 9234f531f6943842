"""The order of training rows: a new epoch for each iteration, and samplers that can be made distributed."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, SequentialSampler

from distill.training import CachedSpectrogramDataset, create_complex_data_loaders, create_data_loaders, loaders, train
from distill.training.order import BlockSampler, shuffle_for

ROW_BYTES = 2 * 32 * 32 * 4
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["held", "prefetched", "blocks", "waveforms"])
def loader(request, sounds, cache, small_config, small_blocks) -> DataLoader:
    if request.param == "waveforms":
        files = [path for path in (sounds / "metal").rglob("*") if path.is_file()]
        return create_data_loaders(files, replace(small_config, batch_size=4))[0]
    budget = 1_000 if request.param == "held" else 0
    shuffle = "blocks" if request.param == "blocks" else "auto"
    return create_complex_data_loaders(cache, replace(small_config, device_budget_mb=budget, shuffle=shuffle))[0]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of three rows, of which four are shuffled together."""
    monkeypatch.setattr(loaders, "BLOCK_BYTES", 3 * ROW_BYTES)
    monkeypatch.setattr(loaders, "BUFFER_BYTES", 12 * ROW_BYTES)


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


@pytest.mark.parametrize(("rows", "group_blocks"), [(0, 4), (1, 4), (5, 1), (100, 3), (101, 8), (1_000, 1_000)])
def test_blocks_are_announced_once_each_and_before_their_rows(rows, group_blocks):
    stored = np.random.default_rng(3).permutation(rows)
    announced: list[np.ndarray] = []
    sampler = BlockSampler(stored, 1, block_rows=4, group_blocks=group_blocks, announce=announced.append)
    seen, ahead = [], 0
    for index in sampler:
        known = np.concatenate(announced)
        assert index in known
        seen.append(index)
        ahead = max(ahead, len(known) - len(seen))
    assert sorted(seen) == sorted(stored)
    assert sorted(np.concatenate([*announced, [-1]])) == [-1, *range(rows)]
    # Of two groups at most: what waits in memory is bounded.
    assert ahead <= 2 * 4 * group_blocks
    assert all(len(block) <= 4 and np.ptp(np.flatnonzero(np.isin(stored, block))) < 4 for block in announced)
    assert seen == sampler.order(0).tolist()


def test_a_batch_of_shuffled_blocks_has_rows_of_many_blocks():
    stored = np.arange(10_000)
    sampler = BlockSampler(stored, 1, block_rows=40, group_blocks=50, announce=lambda block: None)
    order = sampler.order(0)
    blocks = [len(np.unique(order[first : first + 32] // 40)) for first in range(0, 10_000, 32)]
    # 32 of 50 blocks drawn with replacement: 24 different ones are expected.
    assert np.mean(blocks) == pytest.approx(50 * (1 - (49 / 50) ** 32), abs=1)
    # And neighbours in a batch are no neighbours on the disk.
    assert np.mean(np.abs(np.diff(order)) == 1) < 0.01


def test_rows_beyond_the_memory_are_shuffled_by_blocks(cache, small_config, monkeypatch):
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert [shuffle_for(size) for size in (0, memory // 2, memory)] == ["rows", "rows", "blocks"]
    monkeypatch.setattr(loaders, "shuffle_for", lambda stored_bytes: "blocks" if stored_bytes else "rows")
    cases = [(0, "auto", "blocks"), (0, "rows", "rows"), (1_000, "auto", "rows"), (1_000, "blocks", "blocks")]
    for budget, chosen, expected in cases:
        config = replace(small_config, device_budget_mb=budget, shuffle=chosen)
        assert create_complex_data_loaders(cache, config)[0].batch_sampler.shuffle == expected


def test_shuffling_by_blocks_reads_the_rows_that_the_order_names(cache, small_config, small_blocks):
    orders = []
    # Those that are held on the device come in the same order.
    for budget in (0, 1_000):
        config = replace(small_config, device_budget_mb=budget, shuffle="blocks")
        loader, _ = create_complex_data_loaders(cache, config)
        order = loader.batch_sampler.sampler.order(0).tolist()
        assert torch.equal(torch.cat(list(loader)), loader.dataset.rows(order))
        assert budget == 0 or order == orders[0]
        orders.append(order)


def test_a_run_records_how_it_shuffles_and_an_interrupted_epoch_continues(
    brief_sounds, brief_cache, brief_config, tmp_path, small_blocks
):
    config = replace(brief_config, shuffle="blocks", device="cpu", batch_size=4)
    whole = train(brief_sounds, tmp_path / "whole", config, cache_dir=brief_cache, analyze=False)
    cancel = threading.Event()

    def stop(event) -> None:
        if event.kind == "step" and (event.values["epoch"], event.values["step"]) == (2, 3):
            cancel.set()

    run = tmp_path / "run"
    broken = train(brief_sounds, run, config, cache_dir=brief_cache, analyze=False, on_event=stop, cancel_event=cancel)
    assert broken.status == "interrupted"
    assert 'shuffle = "blocks"' in (run / "config.toml").read_text()
    train(None, run, resume=True, analyze=False)
    one, other = (load_file(path / "model.safetensors") for path in (whole.run_dir, run))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("is_older", [False, True])
def test_an_epoch_is_started_again_if_rows_are_stored_elsewhere_since_or_it_is_unknown_where_they_were(
    is_older, brief_sounds, brief_cache, brief_config, tmp_path, monkeypatch, caplog
):
    config = replace(brief_config, shuffle="blocks", device="cpu", batch_size=4)
    run, steps, cancel = tmp_path / "run", [], threading.Event()

    def stop(event) -> None:
        if event.kind == "step":
            steps.append((event.values["epoch"], event.values["step"]))
            if steps[-1] == (2, 3):
                cancel.set()

    train(brief_sounds, run, config, cache_dir=brief_cache, analyze=False, on_event=stop, cancel_event=cancel)
    if is_older:
        for path in (run / "checkpoints").glob("*.pt"):
            state = torch.load(path, weights_only=True)
            del state["order_key"]
            torch.save(state, path)
    else:
        # As after a compaction.
        stored = CachedSpectrogramDataset.stored_order
        monkeypatch.setattr(CachedSpectrogramDataset, "stored_order", lambda self: stored(self)[::-1].copy())
    for first in [(2, 0), (2, 4)]:
        steps.clear()
        caplog.clear()
        cancel.clear()
        train(None, run, resume=True, analyze=False, on_event=stop, cancel_event=cancel)
        assert steps[0] == first
        assert ("the order of the rows has changed" in caplog.text) == (first == (2, 0))
