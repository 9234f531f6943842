"""Exports: every row, normalised, in the dataset's order, readable without distill."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import warnings

import datasets
import numpy as np
import pyarrow
import pytest
import torch
import webdataset
from pyarrow import parquet
from safetensors import safe_open
from safetensors.numpy import load_file

from distill.audio import load_cache_manifest
from distill.cache import export as export_module
from distill.cache.export import export
from distill.errors import CacheError, ConfigError, StorageError
from distill.preprocess.pipeline import preprocess
from distill.training import CachedSpectrogramDataset
from sounds import noise, training, write, write_dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    paths = write_dataset(root)
    return root, preprocess(root, training(augmentation_expansion=1)).cache_dir, paths


def test_pt_is_one_normalised_tensor_per_file(made, tmp_path):
    _, cache_dir, _ = made
    assert export(cache_dir, tmp_path / "out") == 20
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"{number:06d}.pt" for number in range(20)] + ["manifest.json"]
    rows = torch.stack([torch.load(tmp_path / "out" / name, weights_only=True) for name in names[:-1]])
    assert rows.shape == (20, 2, 32, 32)
    assert (tmp_path / "out" / names[0]).stat().st_size < 2 * 2 * 32 * 32 * 4
    torch.testing.assert_close(rows, CachedSpectrogramDataset(cache_dir).rows(range(20)))
    np.testing.assert_allclose(rows.mean((0, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(rows.std((0, 2, 3)), 1, atol=1e-2)


def test_the_manifest_describes_the_rows(made, tmp_path):
    root, cache_dir, paths = made
    export(cache_dir, tmp_path / "out")
    exported = json.loads((tmp_path / "out" / "manifest.json").read_text())
    cached = load_cache_manifest(cache_dir)
    for key in ("normalization_stats", "complex_spectrogram_config", "augmentation_config", "chunk_samples"):
        assert exported[key] == cached[key]
    assert {entry["path"]: entry["mtime_ns"] for entry in exported["files"]} == {
        str(path.relative_to(root)): path.stat().st_mtime_ns for path in paths
    }
    assert len(exported["rows"]) == 20
    assert {row["path"] for row in exported["rows"]} == {entry["path"] for entry in exported["files"]}
    assert [row["variant"] for row in exported["rows"]] == [0, 1] * 10
    assert exported["format"] == "pt"
    dataset = CachedSpectrogramDataset(cache_dir)
    for index, row in enumerate(exported["rows"]):
        place = dataset.provenance(index)
        assert row == {"path": place.paths[0], **place._asdict(), "paths": list(place.paths)}


def test_all_formats_hold_the_same_rows(made, tmp_path, monkeypatch):
    _, cache_dir, _ = made
    expected = CachedSpectrogramDataset(cache_dir).rows(range(20)).numpy()
    export(cache_dir, tmp_path / "npy", "npy")
    np.testing.assert_allclose(np.load(tmp_path / "npy" / "features.npy", mmap_mode="r"), expected, atol=1e-6)
    monkeypatch.setattr(export_module, "_PIECE_ROWS", 3)
    monkeypatch.setattr(export_module, "MAX_PACK_BYTES", 8 * expected[0].nbytes)
    export(cache_dir, tmp_path / "st", "safetensors")
    files = sorted((tmp_path / "st").glob("*.safetensors"))
    parts = [load_file(path)["features"] for path in files]
    assert [len(part) for part in parts] == [6, 6, 8]
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-6)


def small_files(monkeypatch, row):
    monkeypatch.setattr(export_module, "_PIECE_ROWS", 3)
    monkeypatch.setattr(export_module, "MAX_PACK_BYTES", 8 * row.nbytes)


def test_safetensors_carry_the_statistics(made, tmp_path):
    _, cache_dir, _ = made
    export(cache_dir, tmp_path / "out", "safetensors")
    with safe_open(tmp_path / "out" / "000000.safetensors", "np") as file:
        stats = json.loads(file.metadata()["normalization_stats"])
    assert stats == load_cache_manifest(cache_dir)["normalization_stats"]


def test_webdataset_reads_rows_and_where_they_come_from(made, tmp_path, monkeypatch):
    _, cache_dir, _ = made
    dataset = CachedSpectrogramDataset(cache_dir)
    small_files(monkeypatch, dataset[0].numpy())
    assert export(cache_dir, tmp_path / "out", "webdataset") == 20
    shards = sorted(map(str, (tmp_path / "out").glob("*.tar")))
    assert len(shards) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset does not close files
        samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
        gc.collect()
    np.testing.assert_array_equal(np.stack([sample["npy"] for sample in samples]), dataset[:].numpy())
    rows = json.loads((tmp_path / "out" / "manifest.json").read_text())["rows"]
    assert [sample["json"] for sample in samples] == rows
    assert len({sample["__key__"] for sample in samples}) == 20


@pytest.fixture
def parquet_files(made, tmp_path, monkeypatch):
    _, cache_dir, _ = made
    small_files(monkeypatch, CachedSpectrogramDataset(cache_dir)[0].numpy())
    assert export(cache_dir, tmp_path / "out", "parquet") == 20
    files = sorted(map(str, (tmp_path / "out").glob("*.parquet")))
    assert len(files) == 3
    rows = json.loads((tmp_path / "out" / "manifest.json").read_text())["rows"]
    return files, CachedSpectrogramDataset(cache_dir)[:].numpy(), rows


def test_pyarrow_reads_rows_and_where_they_come_from(made, parquet_files):
    files, expected, origins = parquet_files
    table = pyarrow.concat_tables(map(parquet.read_table, files))
    assert table["features"].type == pyarrow.list_(pyarrow.list_(pyarrow.list_(pyarrow.float32())))
    np.testing.assert_array_equal(np.array(table["features"].to_pylist(), np.float32), expected)
    assert table.drop_columns("features").to_pylist() == origins
    stats = json.loads(parquet.read_schema(files[0]).metadata[b"normalization_stats"])
    assert stats == load_cache_manifest(made[1])["normalization_stats"]


def test_hf_datasets_reads_rows_as_tensors(parquet_files, tmp_path):
    files, expected, origins = parquet_files
    found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    torch.testing.assert_close(found.with_format("torch")[:]["features"], torch.from_numpy(expected), rtol=0, atol=0)
    assert [found[index] for index in range(20)] == [
        {**origin, "features": row.tolist()} for origin, row in zip(origins, expected, strict=True)
    ]


def test_names_that_are_not_utf8_are_replaced_in_parquet_files(tmp_path):
    write_dataset(tmp_path / "dataset", 1)
    name = os.fsencode(tmp_path) + b"/dataset/caf\xe9.wav"
    next((tmp_path / "dataset").rglob("*.wav")).rename(os.fsdecode(name))
    cache_dir = preprocess(tmp_path / "dataset", training()).cache_dir
    for kind in ("parquet", "webdataset"):
        export(cache_dir, tmp_path / kind, kind)
    table = parquet.read_table(tmp_path / "parquet" / "000000.parquet")
    assert set(table["path"].to_pylist()) == {"caf\N{REPLACEMENT CHARACTER}.wav"}


def test_an_unknown_format_is_named(made, tmp_path):
    with pytest.raises(ConfigError, match=r"format='parqet' must be one of .*did you mean 'parquet'"):
        export(made[1], tmp_path / "out", "parqet")


def test_without_pyarrow_parquet_is_refused_before_anything_is_written(made, tmp_path, monkeypatch):
    _, cache_dir, _ = made
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="pyarrow") as raised:
        export(cache_dir, tmp_path / "out", "parquet")
    assert "distill[parquet]" in raised.value.tip
    assert not (tmp_path / "out").exists()


def test_files_are_not_overwritten_and_a_missing_cache_is_an_error(made, tmp_path):
    _, cache_dir, _ = made
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "000000.pt").write_text("mine")
    with pytest.raises(StorageError, match="not empty"):
        export(cache_dir, tmp_path / "mine")
    assert (tmp_path / "mine" / "000000.pt").read_text() == "mine"
    with pytest.raises(CacheError, match="no valid cache"):
        export(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(StorageError, match="cannot be written"):
        export(cache_dir, tmp_path / "mine" / "000000.pt" / "deeper")


LIMITED = """
import resource, sys
from distill.cache import export
from distill.cli.main import main
sys.dont_write_bytecode = True  # or the bytecode of a module may be cut
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(["export", *sys.argv[2:]]))
"""


@pytest.mark.parametrize(
    ("kind", "limit", "name"),
    [
        ("pt", 5_000, "000000.pt"),
        ("npy", 99_999, "features.npy"),
        ("safetensors", 99_999, "000000.safetensors"),
        ("webdataset", 99_999, "000000.tar"),
        ("parquet", 99_999, "000000.parquet"),
    ],
)
def test_a_full_disk_is_an_error_and_leaves_no_files(made, tmp_path, kind, limit, name):
    root, cache_dir, _ = made
    out = tmp_path / "new" / "out"
    # Beyond the limit a write fails half-way, as on a full disk, and touching a mapped page kills the process.
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), root, out, "--format", kind, "--cache-dir", cache_dir],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert f"error: {out / name}: the disk is full" in done.stderr
    assert "tip: make room" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert export(cache_dir, out, kind) == 20


@pytest.mark.parametrize("kind", ["pt", "npy", "safetensors", "webdataset", "parquet"])
def test_an_interrupted_export_leaves_no_files(made, tmp_path, kind):
    _, cache_dir, _ = made

    def interrupt(stage, current, total):
        assert (current, total) == (20, 20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(cache_dir, tmp_path, kind, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_describes_the_rows_even_if_the_cache_is_updated_during_the_export(tmp_path):
    root = tmp_path / "dataset"
    write_dataset(root)
    cache_dir = preprocess(root, training()).cache_dir
    before = load_cache_manifest(cache_dir)

    def preprocess_meanwhile(stage, current, total):
        write(root / "a.wav", noise(7, 30_000, 0.01))
        assert preprocess(root, training()).decoded == 1

    assert export(cache_dir, tmp_path / "out", "npy", preprocess_meanwhile) == 10
    exported = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert load_cache_manifest(cache_dir)["normalization_stats"] != before["normalization_stats"]
    for key in ("normalization_stats", "total_spectrograms", "files"):
        assert exported[key] == before[key]
    assert len(exported["rows"]) == 10
