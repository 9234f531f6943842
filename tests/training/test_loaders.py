"""However batches come, they are the same; and no thread is left behind."""

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
    """One under which all is held, and one under which nothing is."""
    return replace(small_config, device_budget_mb=1_000), replace(small_config, device_budget_mb=0)


def test_held_and_read_ahead_give_the_same_batches(cache, budgets):
    (held, held_val), (ahead, ahead_val) = (create_complex_data_loaders(cache, config) for config in budgets)
    assert isinstance(held, DataLoader)
    assert isinstance(ahead, DataLoader)
    for one, other in ((epoch(held), epoch(ahead)), (list(held_val), list(ahead_val))):
        assert len(one) > 2
        assert len(torch.cat(one).flatten(1).unique(dim=0)) > 20
        assert all(map(torch.equal, one, other))


def test_what_is_held_is_read_no_more(cache, budgets, monkeypatch):
    held, ahead = (create_complex_data_loaders(cache, config) for config in budgets)
    expected = epoch(held[0])
    monkeypatch.setattr("distill.cache.reader.CacheReader.read", lambda *given: pytest.fail("read"))
    assert all(map(torch.equal, epoch(held[0]), expected))
    assert len(list(held[1])) > 0
    with pytest.raises(pytest.fail.Exception):
        epoch(ahead[0])


def test_the_budget_is_that_of_all_rows(cache, small_config, caplog):
    need = CachedSpectrogramDataset(cache).cache_bytes
    assert need == len(CachedSpectrogramDataset(cache)) * 2 * 32 * 32 * 4
    with caplog.at_level("INFO", "distill"):
        create_complex_data_loaders(cache, replace(small_config, device_budget_mb=int(need / 1e6)))
        assert "held on" not in caplog.text
        create_complex_data_loaders(cache, replace(small_config, device_budget_mb=int(need / 1e6) + 1))
        assert "held on cpu" in caplog.text


def test_the_next_batch_is_read_while_one_is_used(cache, budgets):
    loader, _ = create_complex_data_loaders(cache, budgets[1])
    read, whole = threading.Event(), loader.dataset.__getitems__
    calls = []

    def watched(indices):
        calls.append(threading.current_thread())
        if len(calls) == 2:
            read.set()
        return whole(indices)

    loader.dataset.__getitems__ = watched
    batches = iter(loader)
    next(batches)
    assert read.wait(30), "the second batch was not asked for"
    assert threading.main_thread() not in calls
    assert len(set(calls)) == 1
    batches.close()


def test_leaving_early_leaves_no_thread(cache, budgets):
    loader, _ = create_complex_data_loaders(cache, budgets[1])
    before = threading.active_count()
    for _ in loader:
        break
    assert threading.active_count() == before
    state = torch.get_rng_state()
    epoch(loader)
    assert torch.equal(torch.get_rng_state(), state)


def test_damage_that_the_thread_meets_reaches_the_caller(tmp_path):
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


def test_a_batch_is_not_copied_row_by_row(cache):
    dataset = CachedSpectrogramDataset(cache)
    batch = dataset.__getitems__([5, 2, 9])
    assert len(batch) == 3
    np.testing.assert_array_equal(torch.stack(list(batch)), dataset.rows([5, 2, 9]))
    assert batch[0].data_ptr() == batch.rows.data_ptr()


@pytest.mark.gpu
def test_rows_held_on_a_gpu_are_those_of_the_cache(cache, small_config):
    config = replace(small_config, device="cuda")
    held, _ = create_complex_data_loaders(cache, config)
    ahead, _ = create_complex_data_loaders(cache, replace(config, device_budget_mb=0))
    for one, other in zip(epoch(held), epoch(ahead), strict=True):
        assert one.is_cuda
        assert other.is_pinned()
        torch.testing.assert_close(one.cpu(), other)
