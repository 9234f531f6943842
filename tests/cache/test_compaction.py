"""Compaction frees space, changes no rows, and does not disturb readers."""

from __future__ import annotations

import errno
import json
import os
import shutil

import numpy as np
import pytest

from distill.audio import load_cache_manifest
from distill.cache import CacheReader, compaction, descriptors, pack
from distill.cache.compaction import clean
from distill.errors import CacheError
from distill.index import Dataset
from distill.preprocess.pipeline import preprocess
from sounds import CHUNK, noise, rows_by_content, training, write, write_dataset

ROW_BYTES = 2 * 32 * 32 * 4


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path / "dataset", 10)
    return tmp_path / "dataset"


@pytest.fixture
def small_packs(monkeypatch):
    """Packs of five rows: files of two rows each, and every other pack ends inside a file."""
    monkeypatch.setattr(pack, "MAX_PACK_BYTES", 1024 + 5 * (ROW_BYTES + 8))


def rows_on_disk(cache_dir) -> int:
    named = {entry["name"]: entry["rows"] for entry in load_cache_manifest(cache_dir)["packs"]}
    assert {path.name for path in (cache_dir / "packs").iterdir()} == named.keys()
    return sum(named.values())


def remove(dataset, *numbers: int) -> None:
    for number in numbers:
        (dataset / ("" if number % 2 else "deep/er") / f"sound-{number}.wav").unlink()


def assert_same(cache_dir, before) -> None:
    after = rows_by_content(cache_dir)
    assert after.keys() <= before.keys()
    assert all(np.array_equal(before[content], rows) for content, rows in after.items())


def test_dead_rows_are_removed_once_they_are_over_30_percent(dataset, small_packs):
    cache_dir = preprocess(dataset, training()).cache_dir
    before = rows_by_content(cache_dir)
    remove(dataset, 0, 3, 6)
    assert preprocess(dataset, training()).rows == 14
    # 6 of 20 rows are dead, and kept: a file that comes back is not decoded.
    assert rows_on_disk(cache_dir) == 20
    assert load_cache_manifest(cache_dir)["dead_rows"] == 6
    remove(dataset, 7)
    result = preprocess(dataset, training())
    assert (result.rows, result.decoded) == (12, 0)
    # Packs with a smaller share of dead rows are not written again.
    assert 12 <= rows_on_disk(cache_dir) <= 12 / 0.7
    assert_same(cache_dir, before)
    assert len(rows_by_content(cache_dir)) == 6
    assert preprocess(dataset, training()).decoded == 0


def test_clean_removes_all_dead_rows_and_all_unnamed_packs(dataset, small_packs):
    cache_dir = preprocess(dataset, training()).cache_dir
    before = rows_by_content(cache_dir)
    remove(dataset, 4)
    preprocess(dataset, training())
    (cache_dir / "packs" / f"{0:016x}.safetensors").write_bytes(b"x" * 1_000)
    size = sum(path.stat().st_size for path in (cache_dir / "packs").iterdir())
    cleaned = clean(cache_dir)
    assert cleaned.rows == 2
    assert cleaned.bytes == size - sum(path.stat().st_size for path in (cache_dir / "packs").iterdir())
    assert cleaned.bytes > 2 * ROW_BYTES + 1_000
    assert rows_on_disk(cache_dir) == 18
    assert_same(cache_dir, before)
    assert len(rows_by_content(cache_dir)) == 9
    assert clean(cache_dir) == (0, 0)
    assert preprocess(dataset, training()).decoded == 0


def test_clean_without_a_valid_manifest_is_an_error_and_changes_nothing(dataset, tmp_path):
    with pytest.raises(CacheError, match="no valid cache"):
        clean(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    cache_dir = preprocess(dataset, training()).cache_dir
    (cache_dir / "manifest.json").write_text("{}")
    packs = sorted((cache_dir / "packs").iterdir())
    with pytest.raises(CacheError, match="no valid cache"):
        clean(cache_dir)
    assert sorted((cache_dir / "packs").iterdir()) == packs


def test_after_compaction_statistics_and_order_equal_those_of_a_new_cache(dataset, tmp_path, small_packs):
    cache_dir = preprocess(dataset, training()).cache_dir
    remove(dataset, 1, 2, 5, 8)
    stats = preprocess(dataset, training()).normalization_stats
    assert preprocess(Dataset(dataset, cache_dir=tmp_path / "new"), training()).normalization_stats == stats
    one, other = CacheReader(cache_dir), CacheReader(tmp_path / "new")
    everything = np.arange(12)
    np.testing.assert_array_equal(one.read(everything), other.read(everything))
    assert one.header["created"] <= other.header["created"]


def test_a_reader_keeps_its_rows_during_compaction(dataset, small_packs):
    cache_dir = preprocess(dataset, training()).cache_dir
    before = CacheReader(cache_dir)
    rows = CacheReader(cache_dir).read(np.arange(20))
    remove(dataset, 0, 2, 3, 4, 6, 9)
    preprocess(dataset, training())
    clean(cache_dir)
    assert rows_on_disk(cache_dir) == 8
    np.testing.assert_array_equal(before.read(np.arange(20)), rows)


def test_a_reader_without_descriptors_finds_its_rows_where_compaction_put_them(dataset, small_packs, monkeypatch):
    monkeypatch.setattr(descriptors, "_MOST", 1)
    cache_dir = preprocess(dataset, training()).cache_dir
    reader = CacheReader(cache_dir)
    everything = np.arange(20)
    rows = reader.read(everything)
    removed = [bytes.fromhex(file["content_hash"]) for file in load_cache_manifest(cache_dir)["files"]][:3]
    for file in load_cache_manifest(cache_dir)["files"][:3]:
        (dataset / file["path"]).unlink()
    preprocess(dataset, training())
    clean(cache_dir)
    is_removed = np.array([reader.content_hashes[source] in removed for source in reader.source])
    np.testing.assert_array_equal(reader.read(everything[~is_removed]), rows[~is_removed])
    np.testing.assert_array_equal(reader.read(everything[~is_removed][::-3]), rows[~is_removed][::-3])
    with pytest.raises(CacheError, match="were removed from the cache since it was opened") as caught:
        reader.read(everything)
    assert "begin again" in caught.value.tip


def test_many_small_packs_are_merged(tmp_path, monkeypatch):
    monkeypatch.setattr(compaction, "_SMALL_PACKS", 4)
    for number in range(7):
        write(tmp_path / f"{number}.wav", noise(number), subtype="PCM_16")
        result = preprocess(tmp_path, training())
        assert (result.decoded, result.rows) == (1, number + 1)
    packs = load_cache_manifest(result.cache_dir)["packs"]
    assert [entry["rows"] for entry in packs] == [5, 1, 1]
    rows = rows_by_content(result.cache_dir)
    preprocess(Dataset(tmp_path, cache_dir=tmp_path / "new"), training())
    computed = rows_by_content(tmp_path / "new")
    assert all(np.array_equal(computed[content], found) for content, found in rows.items())


def test_a_disk_too_full_for_compaction_gives_only_a_warning(dataset, small_packs, monkeypatch, caplog):
    # In one thread, so that the same rows share a pack each time.
    cache_dir = preprocess(dataset, training(), workers=1).cache_dir
    before = rows_by_content(cache_dir)
    remove(dataset, 0, 1, 3, 5, 7, 8)

    def full(*given, **named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(compaction, "PackWriter", full)
    assert preprocess(dataset, training()).rows == 8
    assert "could not be made smaller" in caplog.text
    assert "disk is full" in caplog.text
    monkeypatch.undo()
    assert_same(cache_dir, before)
    clean(cache_dir)
    assert rows_on_disk(cache_dir) == 8


def test_compaction_does_not_copy_a_damaged_row(dataset, caplog):
    """A copy would get a new checksum. The row stays damaged, and a repair computes it again."""
    cache_dir = preprocess(dataset, training()).cache_dir
    before = rows_by_content(cache_dir)
    remove(dataset, 0, 1, 3, 5)
    (path,) = (cache_dir / "packs").iterdir()
    stamps = path.stat()
    held = shutil.copy(path, dataset.parent / "held")
    content = bytearray(path.read_bytes())
    for row in range(20):
        content[1024 + row * ROW_BYTES + 9] ^= 1
    path.write_bytes(content)
    # As if the disk had corrupted it: the manifest gets the times that the pack has now.
    with compaction.CacheWriter(dataset / ".cache") as writer:
        writer.reopen(cache_dir)
        writer.manifest.set_pack_stamps(path.name, path.stat().st_mtime_ns, path.stat().st_ctime_ns)
        writer.dirty = True
        writer.finish()
    assert stamps.st_size == path.stat().st_size
    assert held
    preprocess(dataset, training())
    assert "does not match its checksum" in caplog.text
    with pytest.raises(CacheError, match="does not match its checksum"):
        CacheReader(cache_dir).read(np.arange(12))
    result = preprocess(dataset, training(), check_packs=True)
    assert (result.decoded, result.rows) == (6, 12)
    assert_same(cache_dir, before)


def test_a_file_can_span_packs_before_and_after_compaction(dataset, small_packs):
    write(dataset / "long.wav", noise(77, 13 * CHUNK))
    cache_dir = preprocess(dataset, training()).cache_dir
    before = rows_by_content(cache_dir)
    remove(dataset, *range(10))
    assert preprocess(dataset, training()).rows == 13
    clean(cache_dir)
    assert rows_on_disk(cache_dir) == 13
    assert_same(cache_dir, before)
    manifest = json.loads((cache_dir / "manifest.json").read_text())
    assert sum(entry["rows"] for entry in manifest["contents"]) == 13
