"""A small cache with any byte changed: no crash, no wrong row, and the damage is computed again."""

from __future__ import annotations

import shutil
import time
from collections import Counter

import numpy as np
import pytest

from distill.audio import ComplexSpectrogramConfig, load_cache_manifest
from distill.cache import CacheReader
from distill.cache.folder import load_file_table
from distill.errors import CacheError
from distill.preprocess.pipeline import preprocess
from distill.preprocess.status import dataset_status
from sounds import noise, rows_by_content, slot_of, training, write

TINY = training(
    complex_spectrogram=ComplexSpectrogramConfig(sample_rate=16_000, n_fft=128, hop_length=64, n_mels=8),
    chunk_samples=128,
)


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    # As a large cache, with binary copies of its tables.
    monkeypatch.setattr("distill.cache.binary.COPY_FROM_BYTES", 0)
    for number in range(3):
        write(tmp_path / "dataset" / f"{number}.wav", noise(number, 128 + 128 * number), subtype="PCM_16")
    preprocess(tmp_path / "dataset", TINY)
    return tmp_path / "dataset"


def damaged(content: bytes, stride: int):
    """Yield the content with a bit flipped in each byte, and truncated to each length."""
    for at in range(0, len(content), stride):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        yield bytes(flipped)
        yield content[:at]


def assert_recovers(dataset, before) -> None:
    preprocess(dataset, TINY)
    after = rows_by_content(dataset / ".cache")
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[content], rows) for content, rows in before.items())


def test_damage_at_every_byte_of_the_manifest_is_found(dataset, tried: Counter[str], soak):
    before = rows_by_content(dataset / ".cache")
    path = slot_of(dataset) / "manifest.json"
    content = path.read_bytes()
    assert len(content) > 2_000
    for number, bad in enumerate(damaged(content, 1)):
        path.write_bytes(bad)
        assert load_cache_manifest(dataset / ".cache") is None
        with pytest.raises(CacheError, match="no valid cache"):
            CacheReader(dataset / ".cache")
        if number % (7 if soak else 151) == 0:
            assert_recovers(dataset, before)
            tried["recoveries"] += 1
    tried["bytes flipped"] += len(content)
    tried["lengths cut to"] += len(content)


@pytest.mark.parametrize("name", ["manifest.bin", "files.bin"])
def test_damage_at_every_byte_of_a_binary_copy_changes_nothing(dataset, name, tried: Counter[str], soak):
    time.sleep(2.1)  # until the stamps are old enough to be trusted, so that the tables stay the same
    preprocess(dataset, TINY)
    before = rows_by_content(dataset / ".cache")
    status = dataset_status(dataset)
    manifest = load_cache_manifest(dataset / ".cache")
    path = (slot_of(dataset) if name == "manifest.bin" else dataset / ".cache") / name
    content = path.read_bytes()
    assert len(content) > 400
    for number, bad in enumerate(damaged(content, 1)):
        path.write_bytes(bad)
        assert load_cache_manifest(dataset / ".cache") == manifest
        assert len(load_file_table(dataset / ".cache")) == 3
        if number % (7 if soak else 151) == 0:
            assert dataset_status(dataset)["unchanged"] == status["unchanged"] == 3
            assert preprocess(dataset, TINY).decoded == 0
            assert path.read_bytes() == content  # written again
            after = rows_by_content(dataset / ".cache")
            assert all(np.array_equal(after[content], rows) for content, rows in before.items())
            tried["recoveries"] += 1
    tried["bytes flipped"] += len(content)
    tried["lengths cut to"] += len(content)


def test_damage_at_every_byte_of_a_pack_is_found(dataset, tmp_path, tried: Counter[str], soak):
    before = rows_by_content(dataset / ".cache")
    (pack,) = (slot_of(dataset) / "packs").iterdir()
    content = pack.read_bytes()
    assert len(content) > 2_000
    copy = tmp_path / "copy"
    for number, bad in enumerate(damaged(content, 1)):
        pack.write_bytes(bad)
        reader = None
        with pytest.raises(CacheError, match=pack.name):  # noqa: PT012 - either line may raise
            reader = CacheReader(dataset / ".cache")
            reader.read(np.arange(len(reader)))
        if reader is not None:
            # One row is damaged, the others are unchanged.
            correct = 0
            for row in range(len(reader)):
                try:
                    found = reader.read(np.array([row]))
                except CacheError:
                    continue
                source = reader.content_hashes[reader.source[row]].hex()
                np.testing.assert_array_equal(found[0], before[source][reader.chunk[row]])
                correct += 1
            assert correct == len(reader) - 1
        if number % (7 if soak else 151) == 0:
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(dataset, copy)
            assert_recovers(copy, before)
            tried["recoveries"] += 1
    tried["bytes flipped"] += len(content)
    tried["lengths cut to"] += len(content)
