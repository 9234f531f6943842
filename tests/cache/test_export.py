"""What other tools get: every row, normalised, in the dataset's order, readable without distill."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from distill.audio import load_cache_manifest
from distill.audio.preprocessing import preprocess
from distill.cache import export as export_module
from distill.cache.export import export
from distill.errors import CacheError, StorageError
from distill.training import CachedSpectrogramDataset
from sounds import training, write_dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    paths = write_dataset(root)
    return root, preprocess(root, training(augmentation_expansion=1)).cache_dir, paths


def test_pt_is_one_normalised_tensor_a_file(made, tmp_path):
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


def test_the_manifest_says_what_the_rows_are(made, tmp_path):
    root, cache_dir, paths = made
    export(cache_dir, tmp_path / "out")
    told = json.loads((tmp_path / "out" / "manifest.json").read_text())
    cached = load_cache_manifest(cache_dir)
    for key in ("normalization_stats", "complex_spectrogram_config", "augmentation_config", "chunk_samples"):
        assert told[key] == cached[key]
    assert {entry["path"]: entry["mtime_ns"] for entry in told["files"]} == {
        str(path.relative_to(root)): path.stat().st_mtime_ns for path in paths
    }
    assert len(told["rows"]) == 20
    assert {row["path"] for row in told["rows"]} == {entry["path"] for entry in told["files"]}
    assert [row["variant"] for row in told["rows"]] == [0, 1] * 10
    assert told["format"] == "pt"


def test_the_other_formats_hold_the_same(made, tmp_path, monkeypatch):
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


def test_nothing_is_overwritten_and_nothing_is_made_up(made, tmp_path):
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
