"""Copies and pickles of a reader: small, equal row by row, and an error once the cache holds other rows."""

from __future__ import annotations

import copy
import pickle
import shutil

import numpy as np
import pytest

from distill.cache import CacheReader
from distill.errors import CacheError
from distill.preprocess.pipeline import preprocess
from sounds import CHUNK, noise, training, write, write_dataset


def loads(pickled: bytes) -> CacheReader:
    return pickle.loads(pickled)  # noqa: S301 - made by the test itself


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, lambda reader: loads(pickle.dumps(reader))])
def test_a_copy_reads_the_same_rows(dataset, again):
    reader = CacheReader(preprocess(dataset, training()).cache_dir)
    other = again(reader)
    order = np.random.default_rng(0).permutation(len(reader))
    assert len(other) == 10
    np.testing.assert_array_equal(other.read(order), reader.read(order))
    assert len(np.unique(other.read(order).reshape(10, -1), axis=0)) == 10
    np.testing.assert_array_equal(other.source, reader.source)


def test_a_pickle_holds_no_rows_and_does_not_grow_with_them(dataset):
    sizes = []
    for _ in range(2):
        sizes.append(len(pickle.dumps(CacheReader(preprocess(dataset, training()).cache_dir))))
        write(dataset / "more.wav", noise(9, 40 * CHUNK))
    assert sizes[0] == sizes[1] < 1000


def test_a_relative_path_is_found_from_another_working_directory(dataset, tmp_path, monkeypatch):
    cache_dir = preprocess(dataset, training()).cache_dir
    monkeypatch.chdir(cache_dir.parent)
    reader = CacheReader(cache_dir.name)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(loads(pickle.dumps(reader)).read(np.arange(3)), reader.read(np.arange(3)))


def test_rows_that_moved_to_other_packs_are_the_same_rows(dataset):
    cache_dir = preprocess(dataset, training()).cache_dir
    reader = CacheReader(cache_dir)
    pickled, before = pickle.dumps(reader), reader.read(np.arange(10))
    packs = {path.name for path in (cache_dir / "packs").iterdir()}
    shutil.rmtree(cache_dir)
    cache_dir = preprocess(dataset, training()).cache_dir
    assert not packs & {path.name for path in (cache_dir / "packs").iterdir()}
    np.testing.assert_array_equal(loads(pickled).read(np.arange(10)), before)


def test_a_cache_with_other_rows_is_an_error_that_says_so(dataset):
    cache_dir = preprocess(dataset, training()).cache_dir
    pickled = pickle.dumps(CacheReader(cache_dir))
    write(dataset / "new.wav", noise(9))
    preprocess(dataset, training())
    with pytest.raises(CacheError, match="the cache has changed since it was opened") as caught:
        loads(pickled)
    assert str(cache_dir) in str(caught.value)
    assert "open the cache again" in caught.value.tip


def test_a_cache_that_is_gone_is_an_error(dataset):
    cache_dir = preprocess(dataset, training()).cache_dir
    pickled = pickle.dumps(CacheReader(cache_dir))
    shutil.rmtree(cache_dir)
    with pytest.raises(CacheError, match="no valid cache"):
        loads(pickled)
