"""Caches of features with options: computed, recognised and read; and which of them a model is trained on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from distill.audio import ComplexSpectrogram, ComplexSpectrogramConfig, load_cache_manifest
from distill.preprocess.pipeline import preprocess
from distill.training import CachedSpectrogramDataset
from sounds import FEATURE, SMALL, chunks_by_hand, rows_by_path, training, write_dataset

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = {
    "norm": "slaney",
    "mel_scale": "slaney",
    "win_length": 300,
    "center": False,
    "power": 1,
    "compression": "db",
    "floor": 1e-5,
}
FLAGS = [
    *("--complex-spectrogram.norm", "slaney", "--complex-spectrogram.mel-scale", "slaney"),
    *("--complex-spectrogram.win-length", "300", "--no-complex-spectrogram.center"),
    *("--complex-spectrogram.power", "1", "--complex-spectrogram.compression", "db"),
    *("--complex-spectrogram.floor", "1e-5"),
]


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path / "dataset")
    return tmp_path / "dataset"


def test_the_command_caches_the_features_of_the_module_and_uses_them_again(dataset, run):
    code, out, err = run("preprocess", dataset, *SMALL, *FLAGS, "--json")
    assert (code, json.loads(out)["decoded"]) == (0, 5), err
    config = ComplexSpectrogramConfig(**FEATURE, **OPTIONS)
    cache_dir = preprocess(dataset, training(complex_spectrogram=config)).cache_dir
    manifest = load_cache_manifest(cache_dir)
    assert manifest["complex_spectrogram_config"].items() >= OPTIONS.items()
    assert manifest["row_shape"] == [2, 32, (8_000 - 512) // 256 + 1]
    module = ComplexSpectrogram(config)
    for path, rows in rows_by_path(cache_dir).items():
        expected = module(torch.from_numpy(chunks_by_hand(dataset / path))).numpy()
        assert expected[:, 0].std() > 3
        np.testing.assert_allclose(rows, expected, atol=1e-3, rtol=0)
    code, out, err = run("preprocess", dataset, *SMALL, *FLAGS, "--json")
    assert (code, json.loads(out)["decoded"]) == (0, 0), err
    normalised = CachedSpectrogramDataset(cache_dir).rows(range(10)).double()
    np.testing.assert_allclose(normalised.mean(dim=(0, 2, 3)), 0, atol=1e-4)
    assert run("verify", dataset)[0] == 0
    assert "compression db" in run("status", dataset)[1]


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (FLAGS, "training needs norm=None (not 'slaney'), win_length=None (not 300), center=True (not False), power=2"),
        (["--complex-spectrogram.compression", "log"], "training needs compression=log1p (not 'log')"),
        (
            ["--complex-spectrogram.no-enabled", "--spectrogram.norm", "slaney"],
            "training needs norm=None (not 'slaney')",
        ),
    ],
    ids=["all", "compression", "one channel"],
)
def test_a_feature_that_no_model_is_trained_on_is_refused_before_anything_is_read(dataset, tmp_path, run, flags, fault):
    code, _, err = run("train", dataset, "--out", tmp_path / "run", *SMALL, *flags)
    assert code == 2
    assert fault in err
    assert "distill preprocess" in err
    assert not (tmp_path / "run").exists()
    assert not (dataset / ".cache").exists()


def test_a_model_is_trained_on_frames_of_400_samples_and_slaneys_scale_and_its_sound_is_heard(dataset, tmp_path, run):
    flags = [*SMALL, "--complex-spectrogram.n-fft", "400", "--complex-spectrogram.mel-scale", "slaney"]
    flags += ["--epochs", "1", "--preview-epochs", "0", "--no-analyze"]
    code, _, err = run("train", dataset, "--out", tmp_path / "run", *flags)
    assert code == 0, err
    assert run("generate", tmp_path / "run", "--out", tmp_path / "out", "--count", "1")[0] == 0
    assert list((tmp_path / "out").glob("*.wav"))
