"""Packs, compared with the safetensors library; the reader; damage, which is found and never returned as rows."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from distill.audio import load_cache_manifest
from distill.cache import CacheReader, pack
from distill.cache.compaction import clean
from distill.cache.pack import PackWriter
from distill.cache.pack_reader import PackReader
from distill.errors import CacheError, StorageError
from distill.index import Dataset
from distill.preprocess.pipeline import preprocess
from distill.preprocess.verify import repair, verify
from sounds import CHUNK, noise, rows_by_content, slot_of, training, write, write_dataset

ROW = (2, 3, 5)


def some_rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *ROW)).astype(np.float32)


@pytest.fixture
def dataset(made, tmp_path):
    return shutil.copytree(made, tmp_path / "dataset")


@pytest.fixture
def small_packs(monkeypatch):
    """Packs of three rows, so that a file of four spans two."""
    monkeypatch.setattr(pack, "MAX_PACK_BYTES", 1024 + 3 * (2 * 32 * 32 * 4 + 8))


def packs_of(cache_dir):
    return sorted((slot_of(cache_dir) / "packs").glob("*.safetensors"))


def flip(path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_pack_is_a_safetensors_file(tmp_path, dtype):
    rows = some_rows(7)
    writer = PackWriter(tmp_path, ROW, dtype)
    assert (writer.append(rows[:3]), writer.append(rows[3:])) == (0, 3)
    info = writer.close()
    path = tmp_path / info.name
    assert (info.rows, info.bytes) == (7, path.stat().st_size)
    np.testing.assert_array_equal(load_file(path)["features"], rows.astype(dtype))
    with safe_open(path, "numpy") as opened:
        assert opened.get_slice("features").get_shape() == [7, *ROW]
    some = np.array([6, 0, 3])
    out = PackReader(path, info, ROW, dtype).read(some)
    np.testing.assert_array_equal(out, rows[[6, 0, 3]].astype(dtype))


def test_a_failed_write_leaves_only_whole_rows(tmp_path, monkeypatch):
    rows = some_rows(5)
    writer = PackWriter(tmp_path, ROW)
    writer.append(rows[:2])
    whole = writer._write

    def partial(data):
        whole(bytes(data)[:77])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "_write", partial)
    with pytest.raises(OSError, match="No space"):
        writer.append(rows[2:])
    monkeypatch.setattr(writer, "_write", whole)
    info = writer.close()
    np.testing.assert_array_equal(load_file(tmp_path / info.name)["features"], rows[:2])
    out = PackReader(tmp_path / info.name, info, ROW, "float32").read(np.arange(2))
    np.testing.assert_array_equal(out, rows[:2])


def test_packs_of_a_cache_are_readable_without_distill(dataset):
    reader = CacheReader(dataset / ".cache")
    rows = reader.read(np.arange(len(reader)))
    (path,) = packs_of(dataset / ".cache")
    stored = load_file(path)["features"]
    assert stored.shape == rows.shape == (10, 2, 32, 32)
    np.testing.assert_array_equal(np.unique(stored.reshape(10, -1), axis=0), np.unique(rows.reshape(10, -1), axis=0))


def test_contents_that_span_several_packs_are_read_correctly(made, tmp_path, request):
    config = training(augmentation_expansion=1)
    whole = rows_by_content(preprocess(Dataset(made, cache_dir=tmp_path / "whole"), config, workers=1).cache_dir)
    assert len(packs_of(tmp_path / "whole")) == 1
    request.getfixturevalue("small_packs")
    preprocess(Dataset(made, cache_dir=tmp_path / "small"), config, workers=3)
    manifest = load_cache_manifest(tmp_path / "small")
    rows = [entry["rows"] for entry in manifest["packs"]]
    assert sum(rows) == 20
    # A commit, which is due by time, ends a pack early.
    assert max(rows) == 3
    assert manifest["total_spectrograms"] == 20
    small = rows_by_content(tmp_path / "small")
    assert small.keys() == whole.keys()
    for content, rows in whole.items():
        np.testing.assert_array_equal(small[content], rows)


def test_rows_are_returned_in_the_requested_order(made, tmp_path, small_packs):
    preprocess(Dataset(made, cache_dir=tmp_path), training(augmentation_expansion=1))
    reader = CacheReader(tmp_path)
    everything = reader.read(np.arange(len(reader)))
    assert len(np.unique(everything.reshape(20, -1), axis=0)) == 20
    for seed in range(5):
        order = np.random.default_rng(seed).integers(0, 20, 13)
        np.testing.assert_array_equal(reader.read(order), everything[order])
    np.testing.assert_array_equal(np.unique(reader.chunk), [0, 1])
    np.testing.assert_array_equal(reader.variant, [0, 1] * 10)
    assert reader.content_hashes == sorted(reader.content_hashes)


def test_a_reader_keeps_its_rows_when_the_cache_grows(dataset):
    reader = CacheReader(dataset / ".cache")
    before = reader.read(np.arange(len(reader)))
    write(dataset / "new.wav", noise(9, 3 * CHUNK))
    preprocess(dataset, training())
    np.testing.assert_array_equal(reader.read(np.arange(len(reader))), before)
    assert len(CacheReader(dataset / ".cache")) == len(reader) + 3


@pytest.mark.parametrize("share", [0.02, 0.2, 0.4, 0.6, 0.8, 0.98])
def test_after_a_flipped_bit_in_the_manifest_everything_is_computed_again(dataset, share):
    before = rows_by_content(dataset / ".cache")
    path = slot_of(dataset) / "manifest.json"
    flip(path, int(share * path.stat().st_size))
    assert load_cache_manifest(dataset / ".cache") is None
    with pytest.raises(CacheError, match="no valid cache"):
        CacheReader(dataset / ".cache")
    assert preprocess(dataset, training()).decoded == 5
    after = rows_by_content(dataset / ".cache")
    assert all(np.array_equal(after[content], rows) for content, rows in before.items())
    assert len(packs_of(dataset / ".cache")) == 1


def test_a_truncated_empty_foreign_or_newer_manifest_counts_as_missing(dataset):
    path = slot_of(dataset) / "manifest.json"
    content = path.read_bytes()
    assert json.loads(content)
    for damaged in (content[:-1], content[: len(content) // 2], b"", b"{}", b"[]", b"\x00" * 100, content + content):
        path.write_bytes(damaged)
        assert load_cache_manifest(dataset / ".cache") is None
    version = json.loads(content)["version"]
    path.write_bytes(content.replace(f'"version":{version}'.encode(), b'"version":99', 1))
    assert path.read_bytes() != content
    assert load_cache_manifest(dataset / ".cache") is None
    assert preprocess(dataset, training()).decoded == 5
    assert load_cache_manifest(dataset / "nowhere") is None


@pytest.mark.parametrize("damage", ["deleted", "cut", "grown"])
def test_a_pack_that_is_missing_or_of_another_size_is_computed_again(dataset, damage):
    before = rows_by_content(dataset / ".cache")
    (path,) = packs_of(dataset / ".cache")
    content = path.read_bytes()
    path.unlink() if damage == "deleted" else path.write_bytes(content[:-1] if damage == "cut" else content + b"\0")
    with pytest.raises(CacheError, match=path.name):
        rows_by_content(dataset / ".cache")
    result = preprocess(dataset, training())
    assert (result.decoded, result.rows) == (5, 10)
    after = rows_by_content(dataset / ".cache")
    assert all(np.array_equal(after[content], rows) for content, rows in before.items())
    assert path not in packs_of(dataset / ".cache")


def test_only_the_rows_of_a_lost_pack_are_computed_again(dataset):
    write(dataset / "new.wav", noise(9, 3 * CHUNK))
    (first,) = packs_of(dataset / ".cache")
    preprocess(dataset, training())
    (second,) = set(packs_of(dataset / ".cache")) - {first}
    second.unlink()
    assert preprocess(dataset, training()).decoded == 1
    first.unlink()
    assert preprocess(dataset, training()).decoded == 5


@pytest.mark.parametrize("where", ["header", "row", "checksum"])
def test_a_flipped_bit_in_a_pack_is_an_error_that_names_the_pack(dataset, where):
    (path,) = packs_of(dataset / ".cache")
    flip(path, {"header": 30, "row": 1024 + 3 * 2 * 32 * 32 * 4 + 1_000, "checksum": -1}[where])
    with pytest.raises(CacheError, match=path.name) as caught:  # noqa: PT012 - either line may raise
        reader = CacheReader(dataset / ".cache")
        reader.read(np.arange(len(reader)))
    assert "verify DATASET --repair" in caught.value.tip
    if where == "row":
        assert "row 3" in str(caught.value)
        undamaged = [row for row in range(10) if reader._row[row] != 3]
        assert np.isfinite(reader.read(np.array(undamaged))).all()
    # What the tip says works.
    assert repair(dataset).decoded == (1 if where == "row" else 5)
    assert len(rows_by_content(dataset / ".cache")) == 5


def test_every_row_is_checked_when_it_is_first_read(dataset):
    (path,) = packs_of(dataset / ".cache")
    row_bytes = 2 * 32 * 32 * 4
    for row in range(10):
        flip(path, 1024 + row * row_bytes + 77)
        reader = CacheReader(dataset / ".cache")
        bad = np.flatnonzero(reader._row == row)
        with pytest.raises(CacheError, match=f"row {row} "):
            reader.read(bad)
        flip(path, 1024 + row * row_bytes + 77)
    assert len(CacheReader(dataset / ".cache").read(np.arange(10))) == 10


class Planted:
    def __reduce__(self):
        return (pytest.fail, ("a planted pickle was loaded",))


def test_a_planted_pickle_is_never_loaded(dataset):
    cache_dir = dataset / ".cache"
    planted = pickle.dumps(Planted())
    for name in ("manifest.pkl", "stats.pt", "packs/features.pt", f"packs/{7:016x}.safetensors"):
        (slot_of(cache_dir) / name).write_bytes(planted)
    assert preprocess(dataset, training()).decoded == 0
    assert len(rows_by_content(cache_dir)) == 5
    (path,) = (path for path in packs_of(cache_dir) if path.stat().st_size > 10_000)
    path.write_bytes(planted)
    with pytest.raises(CacheError, match=path.name):
        rows_by_content(cache_dir)
    (slot_of(cache_dir) / "manifest.json").write_bytes(planted)
    assert load_cache_manifest(cache_dir) is None
    assert preprocess(dataset, training()).decoded == 5
    assert len(packs_of(cache_dir)) == 1


def test_a_reader_keeps_its_rows_when_the_cache_is_computed_again(tmp_path):
    write_dataset(tmp_path / "dataset")
    cache_dir = preprocess(tmp_path / "dataset", training()).cache_dir
    reader = CacheReader(cache_dir)
    rows = np.arange(len(reader))
    before = CacheReader(cache_dir).read(rows)
    manifest = cache_dir / "manifest.json"
    manifest.write_text("{}")
    (pack,) = (cache_dir / "packs").iterdir()
    assert preprocess(tmp_path / "dataset", training()).decoded == 5
    assert not pack.exists()
    assert np.array_equal(reader.read(rows), before)


def test_only_files_that_the_cache_made_are_removed(dataset, caplog):
    cache_dir = slot_of(dataset)
    packs, theirs = cache_dir / "packs", dataset.parent / "theirs"
    theirs.write_text("precious")
    names = [
        "mymodel.safetensors",
        "0123.safetensors",
        f"{1:016x}.pt",
        f"{2:016X}A.safetensors",
        "../.manifest.json.tmp",
        "../.distill-7.tmp",
    ]
    for name in names:
        (packs / name).write_text("precious")
    for name in ("x.safetensors", f"{3:016x}.safetensors", "../.manifest.json.1-2.tmp"):
        (packs / name).mkdir()
    ours = [packs / f"{4:016x}.safetensors", cache_dir / ".manifest.json.1234-0.tmp"]
    ours.append(cache_dir / f".distill-{7:016x}.tmp")
    for path in ours:
        path.write_text("left behind")
    (packs / f"{5:016x}.safetensors").symlink_to(theirs)
    before = {path for path in cache_dir.rglob("*") if path not in ours and not path.is_symlink()}
    write(dataset / "new.wav", noise(9))
    assert preprocess(dataset, training()).decoded == 1
    assert clean(cache_dir) == (0, 0)
    assert {path for path in cache_dir.rglob("*") if not path.is_symlink()} >= before
    assert not any(os.path.lexists(path) for path in (*ours, packs / f"{5:016x}.safetensors"))
    assert all((packs / name).read_text() == "precious" for name in names)
    assert theirs.read_text() == "precious"
    assert caplog.text == ""


@pytest.mark.parametrize("level", ["packs", "slot"])
@pytest.mark.parametrize("where", ["own", ".cache"])
def test_a_packs_folder_that_is_a_link_is_refused(dataset, tmp_path, where, level):
    victim = tmp_path / "victim"
    victim.mkdir()
    for name in ("model.safetensors", f"{6:016x}.safetensors"):
        (victim / name).write_text("precious")
    cache_dir = tmp_path / where
    slot = preprocess(Dataset(dataset, cache_dir=cache_dir), training()).cache_dir
    shutil.rmtree(slot if level == "slot" else slot / "packs")
    link = slot if level == "slot" else slot / "packs"
    link.symlink_to(victim)
    with pytest.raises(StorageError, match=f"{link.name}: a symbolic link") as caught:
        preprocess(Dataset(dataset, cache_dir=cache_dir), training())
    assert str(link) in str(caught.value)
    assert "remove the link" in caught.value.tip
    assert {path.name: path.read_text() for path in victim.iterdir()} == {
        "model.safetensors": "precious",
        f"{6:016x}.safetensors": "precious",
    }
    link.unlink()
    (slot / "manifest.json").unlink(missing_ok=True)
    assert preprocess(Dataset(dataset, cache_dir=cache_dir), training()).decoded == 5


def in_place_of(path, kind: str, target) -> None:
    """Replace a file by something that is not a regular file."""
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["fifo", "folder", "link"])
def test_a_pack_that_is_not_a_regular_file_is_damage(dataset, tmp_path, kind):
    before = rows_by_content(dataset / ".cache")
    (path,) = packs_of(dataset / ".cache")
    shutil.copy2(path, tmp_path / "moved")
    in_place_of(path, kind, tmp_path / "moved")
    ((name, reason),) = verify(dataset).damaged
    assert name == f"slots/{slot_of(dataset).name}/packs/{path.name}"
    assert reason.startswith("a symbolic link" if kind == "link" else "not a regular file")
    with pytest.raises(CacheError, match=path.name):
        rows_by_content(dataset / ".cache")
    assert preprocess(dataset, training()).decoded == 5
    after = rows_by_content(dataset / ".cache")
    assert all(np.array_equal(after[content], rows) for content, rows in before.items())
    assert verify(dataset).damaged == []


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["fifo", "folder", "link"])
def test_a_lock_that_is_not_a_regular_file_is_an_error(dataset, tmp_path, kind):
    in_place_of(dataset / ".cache" / "lock", kind, tmp_path / "made")
    write(dataset / "new.wav", noise(9))
    with pytest.raises(CacheError, match="lock: the lock cannot be opened"):
        verify(dataset)
    with pytest.raises(StorageError, match="lock: cannot be written"):
        preprocess(dataset, training())
    assert not (tmp_path / "made").exists()


def test_a_lock_without_read_permission_is_an_error(unprivileged):
    write_dataset(unprivileged, 2)
    preprocess(unprivileged, training())
    (unprivileged / ".cache" / "lock").chmod(0)
    with pytest.raises(CacheError, match="lock: the lock cannot be opened: Permission denied") as caught:
        verify(unprivileged)
    assert "make it readable" in caught.value.tip
    (unprivileged / ".cache").chmod(0)
    with pytest.raises(CacheError, match="cannot be read: Permission denied"):
        preprocess(unprivileged, training())
