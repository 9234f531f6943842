"""Verify finds and names all damage; repair computes only what is damaged."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from distill.cache import CacheReader
from distill.cache.lock import CacheLock
from distill.errors import CacheError
from distill.index import Dataset
from distill.preprocess.pipeline import preprocess
from distill.preprocess.verify import repair, verify
from sounds import noise, rows_by_content, slot_of, training, write, write_dataset

ROW_BYTES = 2 * 32 * 32 * 4


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "dataset"
    write_dataset(root)
    preprocess(root, training())
    return root, rows_by_content(root / ".cache")


@pytest.fixture
def dataset(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "dataset")
    preprocess(tmp_path / "dataset", training())
    return tmp_path / "dataset"


def only_pack(dataset: Path) -> Path:
    (path,) = (slot_of(dataset) / "packs").iterdir()
    return path


def flip_bit(path: Path, offset: int) -> None:
    """Flip a bit."""
    with path.open("r+b") as file:
        file.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def assert_repaired(dataset: Path, rows: dict[str, np.ndarray], decoded: int) -> None:
    assert repair(dataset).decoded == decoded
    assert verify(dataset).damaged == []
    found = rows_by_content(dataset / ".cache")
    assert found.keys() == rows.keys()
    assert all(np.array_equal(found[content], expected) for content, expected in rows.items())


def test_an_undamaged_cache_has_no_damage(dataset):
    assert (verify(dataset).rows, verify(dataset).packs, verify(dataset).files) == (10, 1, 5)
    assert verify(dataset).damaged == []
    assert repair(dataset).decoded == 0


@pytest.mark.parametrize("row", range(10))
def test_a_damaged_row_is_named_and_only_its_file_is_computed_again(made, dataset, row):
    path = only_pack(dataset)
    flip_bit(path, 1024 + row * ROW_BYTES + 4_000)
    ((where, reason),) = verify(dataset).damaged
    assert where == f"slots/{slot_of(dataset).name}/packs/{path.name}"
    hit = [source for source in range(5) if row in CacheReader(dataset / ".cache")._row[2 * source : 2 * source + 2]]
    assert len(hit) == 1
    assert reason.startswith("1 row damaged: ")
    assert reason.count("sound-") == 1
    assert_repaired(dataset, made[1], decoded=1)


@pytest.mark.parametrize("offset", [0, 9, 300, -1, -80])
def test_damage_to_header_or_checksums_invalidates_the_pack(made, dataset, offset):
    flip_bit(only_pack(dataset), offset)
    ((_, reason),) = verify(dataset).damaged
    assert "header or checksums" in reason
    assert "sound-" in reason
    assert_repaired(dataset, made[1], decoded=5)


def test_a_missing_pack_is_damage(made, dataset):
    only_pack(dataset).unlink()
    ((_, reason),) = verify(dataset).damaged
    assert "No such file" in reason
    assert_repaired(dataset, made[1], decoded=5)


@pytest.mark.parametrize("row", [0, 9])
def test_preprocessing_repairs_a_modified_pack(made, dataset, row):
    flip_bit(only_pack(dataset), 1024 + row * ROW_BYTES)
    result = preprocess(dataset, training())
    assert (result.decoded, result.rows) == (1, 10)
    assert verify(dataset).damaged == []
    found = rows_by_content(dataset / ".cache")
    assert all(np.array_equal(found[content], expected) for content, expected in made[1].items())


def test_a_pack_with_a_new_mtime_is_checked_once(dataset, monkeypatch):
    os.utime(only_pack(dataset))
    checked = []
    record = lambda stage, current, total: checked.append(current) if stage == "check" else None  # noqa: E731
    assert preprocess(dataset, training(), progress=record).decoded == 0
    assert checked[-1] == 10 * ROW_BYTES
    checked.clear()
    preprocess(dataset, training(), progress=record)
    assert checked == []


def test_a_source_file_with_a_flipped_bit_is_named(dataset):
    path = next(dataset.glob("sound-1.wav"))
    flip_bit(path, 5_000)
    ((where, reason),) = verify(dataset).damaged
    assert where == "sound-1.wav"
    assert "its bytes changed since" in reason
    assert repair(dataset).decoded == 1
    assert verify(dataset).damaged == []


def test_added_moved_and_removed_files_are_not_damage(dataset):
    write(dataset / "new.wav", noise(9))
    (dataset / "sound-1.wav").rename(dataset / "moved.wav")
    (dataset / "sound-3.wav").unlink()
    assert verify(dataset).damaged == []


def test_files_that_cannot_be_read_are_reported(unprivileged):
    write_dataset(unprivileged)
    preprocess(unprivileged, training())
    assert verify(unprivileged).damaged == []
    (unprivileged / "sound-1.wav").chmod(0)
    (unprivileged / "sound-3.wav").unlink()
    (unprivileged / "deep").chmod(0)
    hidden = ["sound-1.wav", *(f"deep/er/sound-{number}.wav" for number in (0, 2, 4))]
    reason = "could not be checked: unreadable: permission denied"
    assert dict(verify(unprivileged).damaged) == dict.fromkeys(hidden, reason)


def test_repair_computes_only_the_damage(dataset):
    write(dataset / "new.wav", noise(9))
    flip_bit(only_pack(dataset), 1024)
    assert repair(dataset).decoded == 1
    assert preprocess(dataset, training()).decoded == 1


def test_repair_keeps_the_configuration(tmp_path):
    write_dataset(tmp_path / "dataset", 3)
    config = training(augmentation_expansion=2, normalize="chunk", chunk_samples=6_000, cache_dtype="float16")
    preprocess(tmp_path / "dataset", config)
    before = rows_by_content(tmp_path / "dataset" / ".cache")
    flip_bit(only_pack(tmp_path / "dataset"), 2_000)
    assert_repaired(tmp_path / "dataset", before, decoded=1)
    assert preprocess(tmp_path / "dataset", config).decoded == 0


def test_damage_to_dead_rows_is_ignored(dataset):
    (dataset / "sound-1.wav").unlink()
    preprocess(dataset, training())
    reader = CacheReader(dataset / ".cache")
    (dead, *_) = sorted(set(range(10)) - set(reader._row.tolist()))
    flip_bit(only_pack(dataset), 1024 + dead * ROW_BYTES)
    assert verify(dataset).damaged == []


def test_a_cache_without_a_readable_manifest_is_an_error(dataset, tmp_path):
    (slot_of(dataset) / "manifest.json").write_text("{}")
    for call in (verify, repair):
        with pytest.raises(CacheError, match="no valid cache") as caught:
            call(dataset)
        assert "distill preprocess" in caught.value.tip
    assert len(list((slot_of(dataset) / "packs").iterdir())) == 1


def test_float16_halves_the_size(tmp_path):
    write_dataset(tmp_path / "dataset")
    single = preprocess(Dataset(tmp_path / "dataset", cache_dir=tmp_path / "single"), training())
    half = preprocess(Dataset(tmp_path / "dataset", cache_dir=tmp_path / "half"), training(cache_dtype="float16"))
    sizes = [json.loads((each.cache_dir / "manifest.json").read_text())["header"] for each in (single, half)]
    assert sizes[1]["cache_size_bytes"] < 0.6 * sizes[0]["cache_size_bytes"]
    assert half.normalization_stats == single.normalization_stats
    one, other = rows_by_content(single.cache_dir), rows_by_content(half.cache_dir)
    for content, rows in one.items():
        assert other[content].dtype == np.float32
        np.testing.assert_array_equal(other[content], rows.astype(np.float16))
    changed = preprocess(Dataset(tmp_path / "dataset", cache_dir=tmp_path / "half"), training())
    assert (changed.decoded, changed.changed_fields) == (5, ["dtype was float16, is float32"])


def test_verifying_waits_for_a_writer(dataset, caplog):
    found = []
    with caplog.at_level("INFO", "distill"), CacheLock(dataset / ".cache"):
        verifying = threading.Thread(target=lambda: found.append(verify(dataset)))
        verifying.start()
        verifying.join(0.5)
        assert verifying.is_alive()
        assert "waiting" in caplog.text
    verifying.join(60)
    assert found[0].damaged == []
