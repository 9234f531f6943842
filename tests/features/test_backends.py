"""Rows of a cache by each backend: they agree, each pack records its backend, and a cache may hold several."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distill.audio import ComplexSpectrogramConfig, load_cache_manifest
from distill.errors import BackendError, ConfigError
from distill.features import ops
from distill.index import Dataset
from distill.preprocess.pipeline import preprocess
from no_gpu import no_gpu
from sounds import CHUNK, noise, rows_by_path, training, write, write_dataset


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path / "dataset")
    return tmp_path / "dataset"


FUSED = """
import sys
from distill.preprocess.pipeline import preprocess
from interpreted import replace_the_language_once
from sounds import training
if __name__ == "__main__":
    replace_the_language_once()
    print(preprocess(sys.argv[1], training(augmentation_expansion=1), workers=3).decoded)
"""


def backends(cache_dir):
    return [pack["backend"] for pack in load_cache_manifest(cache_dir)["packs"]]


def assert_rows_agree(actual, expected):
    """Compare rows of two backends, by file: equal within the gates of the features, but not bit for bit."""
    assert actual.keys() == expected.keys()
    for name, rows in actual.items():
        np.testing.assert_allclose(rows[:, 0], expected[name][:, 0], atol=1e-4, rtol=0)
        loud = np.expm1(expected[name][:, 0]) > 1e-2
        assert loud.mean() > 0.1
        np.testing.assert_allclose(rows[:, 1][loud], expected[name][:, 1][loud], atol=1e-3, rtol=0)
    assert any((rows != expected[name]).any() for name, rows in actual.items())


@pytest.mark.needs("triton>=3.6")
def test_packs_record_their_backend_and_rows_agree(dataset, tmp_path, monkeypatch):
    """The Triton kernel is interpreted, in another process; then this process adds a file to the same cache."""
    config = training(augmentation_expansion=1)
    monkeypatch.setenv("DISTILL_BACKEND", "reference")
    reference = preprocess(Dataset(dataset, cache_dir=tmp_path / "reference"), config).cache_dir
    monkeypatch.delenv("DISTILL_BACKEND")
    rust = preprocess(Dataset(dataset, cache_dir=tmp_path / "rust"), config).cache_dir
    assert [backends(reference), backends(rust)] == [["reference"], ["rust"]]
    env = os.environ | {
        "TRITON_INTERPRET": "1",
        "DISTILL_BACKEND": "fused",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    command = [sys.executable, "-c", FUSED, str(dataset)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr
    assert backends(dataset / ".cache") == ["fused"]
    for cache_dir in (rust, dataset / ".cache"):
        assert_rows_agree(rows_by_path(cache_dir), rows_by_path(reference))
    write(dataset / "one more.wav", noise(90, CHUNK))
    result = preprocess(dataset, config)
    assert (result.decoded, result.changed_fields) == (1, [])
    assert backends(result.cache_dir) == ["fused", "rust"]


def test_an_unavailable_backend_is_an_error_before_anything_is_computed(dataset, monkeypatch):
    monkeypatch.setenv("DISTILL_BACKEND", "fused")
    with pytest.raises(BackendError, match="'fused' cannot compute this"):
        preprocess(dataset, training())
    monkeypatch.setenv("DISTILL_BACKEND", "fast")
    with pytest.raises(ConfigError, match="DISTILL_BACKEND='fast'"):
        preprocess(dataset, training())
    assert not list(dataset.rglob("*.safetensors"))


@pytest.mark.needs("triton>=3.6")
def test_packs_do_not_record_a_kernel_that_could_not_be_launched(dataset, monkeypatch, caplog):
    def fail():
        raise RuntimeError("Triton Error [CUDA]: device kernel image is invalid")

    monkeypatch.setitem(ops._AUTO, "cpu", "fused")
    # A feature that no other test computes, because the failure is remembered.
    config = training(augmentation_expansion=0, complex_spectrogram=ComplexSpectrogramConfig(n_mels=41))
    with no_gpu() as driver:
        driver.on_compile = fail
        result = preprocess(dataset, config)
    assert result.decoded == 5
    assert backends(result.cache_dir) == ["reference"]
    assert caplog.text.count("device kernel image is invalid") == 1


@pytest.mark.gpu
def test_rows_from_a_gpu_agree_with_those_from_a_cpu(dataset, tmp_path):
    expected = preprocess(Dataset(dataset, cache_dir=tmp_path / "cpu"), training(augmentation_expansion=1)).cache_dir
    result = preprocess(dataset, training(augmentation_expansion=1, device="cuda"))
    assert backends(result.cache_dir) == ["fused"]
    assert_rows_agree(rows_by_path(result.cache_dir), rows_by_path(expected))
