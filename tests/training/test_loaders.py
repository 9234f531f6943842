"""Loaders: held and prefetched batches are equal, and no thread is left running."""

from __future__ import annotations

import io
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from distill.errors import CacheError
from distill.preprocess.pipeline import preprocess
from distill.training import CachedSpectrogramDataset, create_complex_data_loaders, create_data_loaders
from sounds import training, write_dataset


def epoch(loader) -> list[torch.Tensor]:
    loader.batch_sampler.epoch = 3
    return list(loader)


@pytest.fixture
def budgets(small_config):
    """Configurations whose budget holds all rows, and none."""
    return replace(small_config, device_budget_mb=1_000), replace(small_config, device_budget_mb=0)


def test_held_and_prefetched_batches_are_equal(cache, budgets):
    (held, held_val), (prefetched, prefetched_val) = (create_complex_data_loaders(cache, config) for config in budgets)
    assert isinstance(held, DataLoader)
    assert isinstance(prefetched, DataLoader)
    for one, other in ((epoch(held), epoch(prefetched)), (list(held_val), list(prefetched_val))):
        assert len(one) > 2
        assert len(torch.cat(one).flatten(1).unique(dim=0)) > 20
        assert all(map(torch.equal, one, other))


def test_held_rows_are_not_read_from_the_cache_again(cache, budgets, monkeypatch):
    held, prefetched = (create_complex_data_loaders(cache, config) for config in budgets)
    expected = epoch(held[0])
    monkeypatch.setattr("distill.cache.reader.CacheReader.read", lambda *given: pytest.fail("read"))
    assert all(map(torch.equal, epoch(held[0]), expected))
    assert len(list(held[1])) > 0
    with pytest.raises(pytest.fail.Exception):
        epoch(prefetched[0])


def test_rows_are_held_only_if_the_whole_cache_fits_the_budget(cache, small_config, caplog):
    need = CachedSpectrogramDataset(cache).cache_bytes
    assert need == len(CachedSpectrogramDataset(cache)) * 2 * 32 * 32 * 4
    with caplog.at_level("INFO", "distill"):
        create_complex_data_loaders(cache, replace(small_config, device_budget_mb=int(need / 1e6)))
        assert "held on" not in caplog.text
        create_complex_data_loaders(cache, replace(small_config, device_budget_mb=int(need / 1e6) + 1))
        assert "held on cpu" in caplog.text


def test_a_thread_reads_the_next_batch_while_one_is_used(cache, budgets):
    loader, _ = create_complex_data_loaders(cache, budgets[1])
    was_read, getitems = threading.Event(), loader.dataset.__getitems__
    calls = []

    def watched(indices):
        calls.append(threading.current_thread())
        if len(calls) == 2:
            was_read.set()
        return getitems(indices)

    loader.dataset.__getitems__ = watched
    batches = iter(loader)
    next(batches)
    assert was_read.wait(30), "the second batch was not requested"
    assert threading.main_thread() not in calls
    assert len(set(calls)) == 1
    batches.close()


def test_breaking_out_of_a_loader_stops_its_thread(cache, budgets):
    loader, _ = create_complex_data_loaders(cache, budgets[1])
    before = threading.active_count()
    for _ in loader:
        break
    assert threading.active_count() == before
    state = torch.get_rng_state()
    epoch(loader)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_error_in_the_reading_thread_is_raised_in_the_caller(tmp_path):
    write_dataset(tmp_path / "dataset")
    cache_dir = preprocess(tmp_path / "dataset", training()).cache_dir
    (path,) = (cache_dir / "packs").iterdir()
    content = bytearray(path.read_bytes())
    for row in range(10):
        content[1024 + row * 2 * 32 * 32 * 4] ^= 1
    path.write_bytes(content)
    loader, _ = create_complex_data_loaders(cache_dir, training(batch_size=2))
    with pytest.raises(CacheError, match="does not match its checksum"):
        list(loader)


def test_a_batch_is_one_tensor_and_its_items_are_views(cache):
    dataset = CachedSpectrogramDataset(cache)
    batch = dataset.__getitems__([5, 2, 9])
    assert len(batch) == 3
    np.testing.assert_array_equal(torch.stack(list(batch)), dataset.rows([5, 2, 9]))
    assert batch[0].data_ptr() == batch.rows.data_ptr()


def positive(row: torch.Tensor) -> torch.Tensor:
    return row.abs()


@pytest.mark.parametrize("options", [{}, {"device_budget_mb": 1_000}, {"num_workers": 2}, {"shuffle": "blocks"}])
def test_a_new_loader_continues_with_the_very_next_batch(cache, small_config, options):
    workers = {"num_workers": options.pop("num_workers", 0)}
    config = replace(small_config, batch_size=4, **options)

    def make():
        return create_complex_data_loaders(cache, config, **workers)[0]

    loader = make()
    list(loader)
    begun, states = [], [loader.state_dict()]
    for batch in loader:
        begun.append(batch)
        states.append(loader.state_dict())
        if len(begun) == 3:
            break
    states.append(loader.state_dict())  # where the epoch was left
    rest = [torch.load(io.BytesIO(_saved(state)), weights_only=True) for state in states]
    whole = make()
    whole.batch_sampler.epoch = 1
    expected = list(whole)
    assert all(map(torch.equal, begun, expected))
    for state, done in zip(rest, (0, 1, 2, 3, 3), strict=True):
        other = make()
        other.load_state_dict(state)
        assert other.state_dict() == state
        found = list(other)
        assert len(found) == len(expected) - done > 2
        assert all(map(torch.equal, found, expected[done:]))
        assert other.state_dict() == {**state, "epoch": 2, "step": 0}
        following, same = next(iter(other)), next(iter(whole))
        assert torch.equal(following, same)
        whole.batch_sampler.epoch = 2


def _saved(state: dict) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def test_a_state_of_another_order_is_refused(cache, small_config):
    state = create_complex_data_loaders(cache, small_config)[0].state_dict()
    for changes, name in (({"batch_size": 3}, "batch_size"), ({"seed": 5}, "seed"), ({"val_fraction": 0.5}, "rows")):
        other, val = create_complex_data_loaders(cache, replace(small_config, **changes))
        for loader in (other, val):
            with pytest.raises(ValueError, match=f"a loader with {name if loader is other else ''}.*make the loader"):
                loader.load_state_dict(state)
    with pytest.raises(ValueError, match="epoch=None, which must be"):
        other.load_state_dict({})


def test_a_state_of_other_rows_or_another_process_is_refused(cache, small_config):
    config = replace(small_config, batch_size=2)
    # As many rows, but others.
    rows, by_file = CachedSpectrogramDataset(cache), replace(config, split_by="file")
    chunks = sum(rows.provenance(index).variant == 0 for index in range(len(rows)))
    other, val = create_complex_data_loaders(cache, by_file)
    loader, _ = create_complex_data_loaders(cache, config, (len(val.dataset) - 0.5) / chunks)
    state = loader.state_dict()
    assert len(other.dataset) == len(loader.dataset)
    with pytest.raises(ValueError, match="a loader with rows_key"):
        other.load_state_dict(state)
    first, second = (
        create_complex_data_loaders(cache, config, sampler=DistributedSampler(range(8), size, rank, seed=seed))[0]
        for size, rank, seed in ((2, 0, 1), (4, 3, 9))
    )
    with pytest.raises(ValueError, match="a loader with seed=1, this one has 9"):
        second.load_state_dict(first.state_dict())


def test_processes_continue_from_the_state_of_one(cache, small_config):
    """As Lightning saves it."""
    config = replace(small_config, batch_size=2)

    def make(rank):
        sampler = DistributedSampler(range(12), 2, rank, seed=1)
        return create_complex_data_loaders(cache, config, sampler=sampler)[0]

    batches = iter(loader := make(0))
    next(batches)
    whole, other = list(make(1)), make(1)
    other.load_state_dict(loader.state_dict())
    found = list(other)
    assert len(found) == len(whole) - 1 == 2
    assert all(map(torch.equal, found, whole[1:]))


@pytest.mark.parametrize("name", ["epoch", "step"])
@pytest.mark.parametrize("value", [-1, 1000, "2", 2.0, None, True])
def test_a_place_that_is_none_is_refused(cache, small_config, name, value):
    loader, _ = create_complex_data_loaders(cache, small_config)
    if (name, value) != ("epoch", 1000):
        with pytest.raises(ValueError, match=f"{name}={value!r}, which must be"):
            loader.load_state_dict({**loader.state_dict(), name: value})


@pytest.mark.parametrize("own_generator", [False, True])
def test_random_samplers_of_torch_continue(cache, small_config, own_generator):
    rows = len(CachedSpectrogramDataset(cache, "train", small_config.val_fraction))
    generators = iter(range(100))

    def make(kind):
        generator = torch.Generator().manual_seed(5 + next(generators)) if own_generator else None
        sampler = {
            "weighted": lambda: WeightedRandomSampler(range(rows), 16, generator=generator),
            "random": lambda: RandomSampler(range(rows), replacement=True, num_samples=64, generator=generator),
            "subset": lambda: SubsetRandomSampler(range(16), generator=generator),
        }[kind]()
        return create_complex_data_loaders(cache, replace(small_config, batch_size=4), sampler=sampler)[0]

    for kind in ("weighted", "random", "subset"):
        loader, other = make(kind), make(kind)
        list(loader)
        batches = iter(loader)
        begun = [next(batches), next(batches)]
        saved = torch.load(io.BytesIO(_saved(loader.state_dict())), weights_only=True)
        expected = list(batches)
        before = torch.get_rng_state()
        other.load_state_dict(saved)
        found = list(other)
        assert torch.equal(torch.get_rng_state(), before)
        assert len(found) == len(expected) >= 2
        assert all(map(torch.equal, found, expected))
        assert not torch.equal(found[0], begun[0])


def test_a_validation_loader_continues_too(cache, small_config):
    _, val = create_complex_data_loaders(cache, replace(small_config, batch_size=2))
    batches = iter(val)
    next(batches)
    _, other = create_complex_data_loaders(cache, replace(small_config, batch_size=2))
    other.load_state_dict(val.state_dict())
    assert all(map(torch.equal, other, list(batches)))
    assert len(list(other)) > 1  # the next pass is whole


def test_training_rows_can_be_transformed_sampled_and_cut_to_whole_batches(cache, small_config):
    train = CachedSpectrogramDataset(cache, "train", small_config.val_fraction)
    plain, plain_val = create_complex_data_loaders(cache, small_config)
    loader, val = create_complex_data_loaders(
        cache, replace(small_config, batch_size=4), transform=positive, sampler=range(5), drop_last=True
    )
    (batch,) = list(loader)
    assert torch.equal(batch, train[:4].abs())
    assert all(map(torch.equal, val, create_complex_data_loaders(cache, replace(small_config, batch_size=4))[1]))
    chosen, _ = create_complex_data_loaders(cache, small_config, sampler=SubsetRandomSampler([3, 7]))
    found = torch.cat(list(chosen)).flatten(1).unique(dim=0)
    assert torch.equal(found, train.rows([3, 7]).flatten(1).unique(dim=0))
    assert plain_val.dataset.transform is None
    assert len(plain) > len(loader)


@pytest.mark.gpu
def test_rows_held_on_a_gpu_equal_those_of_the_cache(cache, small_config):
    config = replace(small_config, device="cuda")
    held, _ = create_complex_data_loaders(cache, config)
    prefetched, _ = create_complex_data_loaders(cache, replace(config, device_budget_mb=0))
    for one, other in zip(epoch(held), epoch(prefetched), strict=True):
        assert one.is_cuda
        assert other.is_pinned()
        torch.testing.assert_close(one.cpu(), other)


def test_a_state_of_other_waveforms_is_refused(sounds, small_config):
    files = sorted(path for path in sounds.rglob("*") if path.is_file())
    first, second = (create_data_loaders(chosen, small_config)[0] for chosen in (files[:2], files[2:4]))
    assert len(first.dataset) == len(second.dataset)
    second.load_state_dict(second.state_dict())
    with pytest.raises(ValueError, match="a loader with rows_key"):
        second.load_state_dict(first.state_dict())
