"""Training end to end: what a run writes, and its errors. tests/training/test_resume.py tests how it continues."""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distill.config import TrainingConfig, config_from_dict
from distill.demo import pca_baseline
from distill.errors import (
    ConfigError,
    DatasetError,
    DeviceError,
    NothingUsableError,
    RunError,
    StorageError,
    TrainingDivergedError,
)
from distill.index import Dataset
from distill.models import ConvVAE, load_model
from distill.runs.folder import RunFolder
from distill.training import CachedSpectrogramDataset, report
from distill.training import train as train_and_analyze
from distill.training.state import TrainingState

# tests/training/test_report.py tests the analysis and the previews.
train = functools.partial(train_and_analyze, analyze=False)
pytestmark = pytest.mark.usefixtures("one_thread")

METRICS = (
    "train_loss",
    "val_loss",
    "val_magnitude_r2",
    "val_if_r2",
    "kl",
    "learning_rate",
    "seconds",
    "examples_per_s",
)

QUALITY = (
    "spectral_convergence",
    "log_spectral_db",
    "multi_resolution",
    "prior_mean",
    "prior_spread",
    "prior_frechet",
    "held_out_frechet",
    "prior_nearest",
)


@pytest.fixture
def config(small_config) -> TrainingConfig:
    return small_config


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_writes_its_metrics_pictures_and_checkpoints(sounds, cache, config, tmp_path):
    run = tmp_path / "run"
    events = []
    result = train(sounds, run, config, cache_dir=cache, on_event=events.append)
    assert (result.status, result.epochs) == ("finished", 3)
    lines = metrics(run)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert all(math.isfinite(line[name]) for line in lines for name in METRICS)
    assert result.best in lines
    assert {event.kind for event in events} >= {"start", "step", "epoch"}
    for picture in ("loss.png", "quality.png", "reconstruction.png"):
        assert (run / picture).read_bytes().startswith(b"\x89PNG")
    assert (run / "checkpoints" / "best.pt").exists()
    assert len(list((run / "checkpoints").glob("step-*.pt"))) == config.keep_checkpoints


@pytest.mark.parametrize("split_by", ["chunk", "file"])
def test_a_trained_model_is_not_worse_than_a_pca_of_its_size(split_by, sounds, cache, config, tmp_path):
    longer = dataclasses.replace(config, epochs=12, split_by=split_by)
    result = train(sounds, tmp_path / "run", longer, cache_dir=cache)
    stats = CachedSpectrogramDataset(cache).normalization_stats
    floor = pca_baseline(cache, config.val_fraction, split_by, (config.latent_dim, config.latent_frames), stats)
    assert floor["magnitude_r2"] > 0.5
    assert result.best["val_magnitude_r2"] > floor["magnitude_r2"] - 0.02
    assert result.best["val_if_r2"] > floor["if_r2"] - 0.02


def test_quality_is_measured_at_intervals_and_after_the_last_epoch(
    sounds, cache, config, tmp_path, monkeypatch, caplog
):
    steps = []
    monkeypatch.setattr(report, "_STEPS_BETWEEN", 30)
    caplog.set_level("INFO", "distill")
    five = dataclasses.replace(config, epochs=5)
    train(sounds, tmp_path / "run", five, cache_dir=cache, on_event=lambda event: steps.append(event.kind == "step"))
    assert 15 <= sum(steps) / 5 < 30
    lines = metrics(tmp_path / "run")
    measured = [line["epoch"] for line in lines if "prior_frechet" in line]
    assert measured == [2, 4, 5]
    last = lines[-1]
    assert all(math.isfinite(last[name]) for name in QUALITY)
    # Silence has a spectral convergence of 1, a constant a Fréchet distance of 1, and copies a nearest distance of 0.
    assert 0 < last["spectral_convergence"] < 0.95
    assert last["prior_frechet"] < 0.5
    assert last["prior_nearest"] > 0.3
    assert f"Fréchet distance {last['prior_frechet']:.3g}" in caplog.text


def test_the_written_configuration_has_every_field_set_and_reads_back(sounds, cache, config, tmp_path):
    chosen = ("batch_size", "weight_decay", "dropout")
    open_config = dataclasses.replace(config, epochs=1, **dict.fromkeys(chosen))
    train(sounds, tmp_path / "run", open_config, cache_dir=cache)
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    found = config_from_dict(tomllib.loads((tmp_path / "run" / "config.toml").read_text()))
    assert all(getattr(found, name) is not None for name in chosen)
    assert found.shuffle == "rows"
    assert dataclasses.replace(found, shuffle="auto", **dict.fromkeys(chosen)) == open_config


def test_a_loaded_model_reconstructs_validation_chunks(sounds, cache, config, tmp_path):
    result = train(sounds, tmp_path / "run", dataclasses.replace(config, loud_share=0.0), cache_dir=cache)
    model = load_model(result.run_dir)
    assert not model.training
    dataset = CachedSpectrogramDataset(cache, "val", config.val_fraction)
    rows = dataset.rows(range(len(dataset)))
    with torch.no_grad():
        mu, logvar = model.encode(rows)
        output = model.decode(mu)
    assert mu.shape == logvar.shape == (len(rows), model.n_latents, 8)
    assert model.n_latents == -(-rows.shape[3] // config.latent_frames) > 1
    baseline = dataset.rows(range(len(dataset)))[:, 0].var()
    assert (output - rows)[:, 0].square().mean() < 0.5 * baseline
    # The metrics of the best epoch are those of the saved weights.
    assert result.best["val_magnitude"] == pytest.approx((output - rows)[:, 0].square().mean().item(), rel=1e-3)


def test_the_v1_path_runs_end_to_end(sounds, config, tmp_path):
    feature = dataclasses.replace(config.complex_spectrogram, enabled=False)
    result = train(sounds, tmp_path / "run", dataclasses.replace(config, complex_spectrogram=feature))
    assert result.best["val_magnitude_r2"] > 0.5
    assert result.best["val_if_r2"] is None
    assert all(math.isfinite(metrics(tmp_path / "run")[-1][name]) for name in QUALITY)
    assert load_model(result.run_dir).config["in_channels"] == 1
    assert not (sounds / ".cache").exists()


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(sounds, cache, config, tmp_path):
    runs = [("a", config), ("b", config), ("c", dataclasses.replace(config, seed=1))]
    weights = [
        load_file(train(sounds, tmp_path / name, cfg, cache_dir=cache).run_dir / "model.safetensors")
        for name, cfg in runs
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_early_stopping_ends_a_run_that_does_not_improve(sounds, cache, config, tmp_path):
    stuck = dataclasses.replace(config, epochs=30, patience=2, learning_rate=1.0, gradient_clip=1e6)
    result = train(sounds, tmp_path / "run", stuck, cache_dir=cache)
    assert result.status == "stopped early"
    assert result.epochs < 30
    assert result.best["epoch"] == result.epochs - 2


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_weights(sounds, cache, config, tmp_path, monkeypatch):
    from distill.training import epochs

    real = epochs.vae_loss
    monkeypatch.setattr(epochs, "vae_loss", lambda *a, **k: {n: v * math.nan for n, v in real(*a, **k).items()})
    with pytest.raises(TrainingDivergedError, match="epoch 1") as caught:
        train(sounds, tmp_path / "run", config, cache_dir=cache)
    assert "--learning-rate below 0.002" in caught.value.tip
    assert all(value.isfinite().all() for value in load_model(tmp_path / "run").state_dict().values())


def test_one_chunk_trains_with_a_warning(config, tmp_path, caplog):
    import numpy as np
    import soundfile

    dataset = tmp_path / "dataset"
    dataset.mkdir()
    soundfile.write(dataset / "one.wav", np.sin(np.arange(8000) / 10), 16_000)
    result = train(dataset, tmp_path / "run", config)
    assert result.status == "finished"
    assert "only one chunk" in caplog.text


def test_unusable_arguments_are_errors_before_anything_is_written(sounds, config, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(DatasetError, match="no such folder"):
        train(tmp_path / "nowhere", run, config)
    with pytest.raises(DatasetError, match="not a folder"):
        train(next(path for path in sounds.rglob("*.wav")), run, config)
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="no CUDA device"):
            train(sounds, run, dataclasses.replace(config, device="cuda"))
    with pytest.raises(RunError, match="no such run"):
        train(None, run, resume=True)
    with pytest.raises(RunError, match="not a run"):
        train(None, sounds, resume=True)
    assert not run.exists()


def test_a_run_that_could_not_start_leaves_no_folder(sounds, config, tmp_path):
    under_a_file = next(sounds.rglob("*.wav")) / "cache"
    with pytest.raises(StorageError, match="cannot be written"):
        train(sounds, tmp_path / "run", config, cache_dir=under_a_file)
    assert not (tmp_path / "run").exists()


def test_a_run_is_never_overwritten(sounds, cache, config, tmp_path):
    train(sounds, tmp_path / "run", config, cache_dir=cache)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match="already holds a run") as caught:
        train(sounds, tmp_path / "run", config, cache_dir=cache)
    assert "--resume" in caught.value.tip
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_the_error_for_a_dataset_without_usable_files_names_them(config, tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    for enabled in (True, False):
        feature = dataclasses.replace(config.complex_spectrogram, enabled=enabled)
        with pytest.raises(NothingUsableError, match=r"text\.wav"):
            train(tmp_path, tmp_path / f"run-{enabled}", dataclasses.replace(config, complex_spectrogram=feature))


def test_a_full_disk_is_an_error_with_a_remedy(sounds, cache, config, tmp_path, monkeypatch):
    def full(self, line):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFolder, "append_metrics", full)
    with pytest.raises(StorageError, match="run: the disk is full") as caught:
        train(sounds, tmp_path / "run", config, cache_dir=cache)
    assert f"--resume {tmp_path / 'run'}" in caught.value.tip
    monkeypatch.undo()
    assert train(None, tmp_path / "run", resume=True).status == "finished"


def checkpoint(step: int) -> dict[str, Any]:
    """Return the state of a small model after some steps."""
    model = ConvVAE(2, 3, n_mels=8, n_frames=8, base_channels=8)
    optimizer = torch.optim.AdamW(model.parameters())
    stats = {"mag_mean": 0.5, "mag_std": 1.0, "if_mean": 0.0, "if_std": 1.0}
    return TrainingState(model, optimizer, torch.zeros(2, 8), stats, "key", step=step).checkpoint()


@pytest.mark.parametrize(
    ("number", "reason", "first"),
    [
        (errno.ENOSPC, "the disk is full", "make room"),
        (errno.EACCES, f"cannot be written: {os.strerror(errno.EACCES)}", "fix this"),
    ],
)
def test_a_checkpoint_that_cannot_be_written_is_an_error_with_a_remedy(
    tmp_path, monkeypatch, config, number, reason, first
):
    run = RunFolder(tmp_path / "my run")
    run.create(config, Dataset(tmp_path))
    run.save_state(checkpoint(1), keep=2, is_best=True)

    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError) as caught:
        run.save_state(checkpoint(2), keep=2, is_best=False)
    path = run.path / "checkpoints" / "step-000000002.pt"
    assert str(caught.value) == f"{path}: {reason}"
    assert caught.value.tip == f"{first}, then --resume '{run.path}'"
    assert sorted(file.name for file in path.parent.iterdir()) == ["best.pt", "step-000000001.pt"]
    assert run.load_state()["step"] == 1


def test_a_checkpoint_that_was_passed_over_does_not_push_out_the_next_one(tmp_path, config):
    run = RunFolder(tmp_path / "run")
    run.create(config, Dataset(tmp_path))
    for step in (5, 9):
        run.save_state(checkpoint(step), keep=2, is_best=False)
    (run.path / "checkpoints" / "step-000000009.pt").write_bytes(b"damaged")
    run.save_state(checkpoint(6), keep=1, is_best=False)
    assert run.load_state()["step"] == 6


def test_a_chunk_shorter_than_half_a_frame_is_a_config_error():
    with pytest.raises(ConfigError, match="chunk_samples=256 must be above n_fft/2"):
        config_from_dict({"chunk_samples": 256, "complex_spectrogram": {"n_fft": 512}})
