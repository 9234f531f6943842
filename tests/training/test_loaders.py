"""Loaders: held and prefetched batches are equal, and no thread is left running."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from distill.errors import CacheError
from distill.preprocess.pipeline import preprocess
from distill.training import CachedSpectrogramDataset, create_complex_data_loaders
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


@pytest.mark.gpu
def test_rows_held_on_a_gpu_equal_those_of_the_cache(cache, small_config):
    config = replace(small_config, device="cuda")
    held, _ = create_complex_data_loaders(cache, config)
    prefetched, _ = create_complex_data_loaders(cache, replace(config, device_budget_mb=0))
    for one, other in zip(epoch(held), epoch(prefetched), strict=True):
        assert one.is_cuda
        assert other.is_pinned()
        torch.testing.assert_close(one.cpu(), other)
