"""A run that is resumed with other options, or after its dataset changed."""

from __future__ import annotations

import functools
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.config import TrainingConfig
from distill.index import Dataset
from distill.models import load_model
from distill.preprocess.pipeline import preprocess
from distill.runs.folder import RunFolder
from distill.training import CachedSpectrogramDataset, TrainEvent, TrainResult
from distill.training import train as train_and_analyze
from sounds import CHUNK, noise, write

train = functools.partial(train_and_analyze, analyze=False)
pytestmark = pytest.mark.usefixtures("one_thread")


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def train_until(is_enough: Callable[[TrainEvent], bool], *arguments, **options) -> TrainResult:
    """Train until an event for which `is_enough`."""
    cancel = threading.Event()
    return train(*arguments, cancel_event=cancel, on_event=lambda event: is_enough(event) and cancel.set(), **options)


@pytest.fixture(scope="module")
def stopped(brief_sounds, brief_cache, brief_config, tmp_path_factory) -> Path:
    """A run that was stopped early: its last epoch was not the best."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    stuck = replace(brief_config, epochs=30, patience=1, learning_rate=1.0, gradient_clip=1e6)
    assert train(brief_sounds, folder, stuck, cache_dir=brief_cache).status == "stopped early"
    return folder


@pytest.fixture
def run(stopped, tmp_path) -> Path:
    return shutil.copytree(stopped, tmp_path / "run")


def config_of_run(run: Path) -> TrainingConfig:
    return RunFolder(run).config()


@pytest.mark.parametrize(
    ("option", "value"),
    [("if_weight", 50.0), ("kl_weight", 50.0), ("free_bits", 50.0), ("loud_share", 0.0), ("batch_size", 2)],
)
def test_another_objective_resets_the_best_loss_and_early_stopping_and_says_so(run, option, value, caplog):
    before = train(None, run, resume=True)
    assert "reset" not in caplog.text
    config = config_of_run(run)
    changed = replace(config, **{option: value}, learning_rate=1e-6, epochs=before.epochs + 1)
    after = train(None, run, changed, resume=True)
    assert f"{option} was {getattr(config, option)}, is {value}" in caplog.text
    assert "early stopping" in caplog.text
    assert (after.epochs, after.best["epoch"]) == (before.epochs + 1, before.epochs + 1)
    if option not in ("batch_size", "loud_share"):
        assert after.best["val_loss"] > 1.05 * before.best["val_loss"]
    assert after.best == metrics(run)[-1]


def test_other_options_leave_the_best_loss_and_early_stopping(run, caplog):
    before = train(None, run, resume=True)
    config = config_of_run(run)
    # Both sizes hold all validation rows in a batch.
    changed = replace(config, batch_size=100, learning_rate=1e-3, kl_warmup_epochs=1, gradient_clip=1.0, dropout=0.0)
    after = train(None, run, replace(changed, epochs=before.epochs + 5), resume=True)
    assert (after.status, after.epochs, after.best) == ("stopped early", before.epochs, before.best)
    assert "reset" not in caplog.text
    assert train(None, run, replace(changed, patience=2), resume=True).epochs > before.epochs


def test_a_checkpoint_of_an_earlier_version_has_the_objective_of_its_configuration(run, caplog):
    before = train(None, run, resume=True)
    for path in (run / "checkpoints").glob("*.pt"):
        state = torch.load(path, weights_only=True)
        for name in ("objective", "best_epoch", "device_rng"):
            del state[name]
        torch.save(state, path)
    assert train(None, run, resume=True) == before
    assert "reset" not in caplog.text
    config = config_of_run(run)
    after = train(None, run, replace(config, kl_weight=50.0, epochs=before.epochs + 1), resume=True)
    assert "kl_weight was 0.002, is 50.0" in caplog.text
    assert after.best["epoch"] == before.epochs + 1


def test_a_new_weight_decay_is_used(run, monkeypatch):
    seen = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self, *a, **k: (seen.extend(group["weight_decay"] for group in self.param_groups), step(self, *a, **k)),
    )
    train(None, run, replace(config_of_run(run), weight_decay=0.75, patience=2), resume=True)
    assert set(seen) == {0.75}


def test_the_learning_rate_stays_on_its_curve_with_another_batch_size(
    brief_sounds, brief_cache, brief_config, tmp_path
):
    config = replace(brief_config, epochs=20, batch_size=2, patience=100)
    run = tmp_path / "run"
    half = train_until(
        lambda event: event.kind == "epoch" and event.values["epoch"] == 10,
        brief_sounds,
        run,
        config,
        cache_dir=brief_cache,
    )
    assert (half.status, half.epochs) == ("interrupted", 10)
    assert train(None, run, replace(config, batch_size=16), resume=True).epochs == 20
    lines = metrics(run)
    steps = np.array([len(CachedSpectrogramDataset(brief_cache, "train", 0.25)) / size for size in (2, 16)])
    steps = np.ceil(steps).repeat(10)
    assert steps[0] * 10 > 100 > 50
    # The rate of an epoch's last step.
    progress = (np.arange(20) + (steps - 1) / steps) / 20
    curve = config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * progress)))
    warm_up = np.minimum(1, steps[0] * (np.arange(20) + 1) / 50)
    np.testing.assert_allclose([line["learning_rate"] for line in lines], curve * warm_up, rtol=1e-6)


def test_another_batch_size_within_an_epoch_continues_at_the_same_rows(
    brief_sounds, brief_cache, brief_config, tmp_path
):
    rows = len(CachedSpectrogramDataset(brief_cache, "train", 0.25))
    run, small = tmp_path / "run", replace(brief_config, epochs=1, batch_size=2)
    half = train_until(
        lambda event: event.kind == "step" and event.values["step"] == rows // 4,
        brief_sounds,
        run,
        small,
        cache_dir=brief_cache,
    )
    assert half.status == "interrupted"
    done = 2 * (rows // 4 + 1)
    steps = []
    larger = replace(small, batch_size=4)
    result = train(
        None,
        run,
        larger,
        resume=True,
        on_event=lambda event: event.kind == "step" and steps.append(event.values["step"]),
    )
    assert result.epochs == 1
    assert 0 < done < rows
    assert steps == list(range(done // 4, -(-rows // 4)))


def test_the_best_epoch_is_that_of_the_kept_weights_after_the_dataset_changed(brief_sounds, brief_config, tmp_path):
    dataset, run = shutil.copytree(brief_sounds, tmp_path / "dataset"), tmp_path / "run"
    brief_config = replace(brief_config, loud_share=0.0)
    first = train(dataset, run, brief_config)
    for number in range(16):
        write(dataset / f"noise-{number}.wav", noise(number, CHUNK), subtype="PCM_24")
    # Resumed, but not trained: the weights are still those of the first dataset.
    assert train(None, run, resume=True).best == first.best
    second = train(None, run, replace(brief_config, epochs=4), resume=True)
    assert second.best["epoch"] == 4
    assert second.best["val_loss"] > 1.5 * first.best["val_loss"]
    model = load_model(run)
    stats = json.loads((run / "model.json").read_text())["statistics"]
    cache = preprocess(Dataset(dataset), brief_config).cache_dir
    limit = RunFolder(run).load_state()["val_limit"]
    held_out = CachedSpectrogramDataset(cache, "val", 0.25, normalization_stats=stats, val_limit=limit)
    rows = held_out.rows(range(len(held_out)))
    with torch.no_grad():
        error = (model(rows)[0] - rows)[:, 0].square().mean().item()
    assert second.best["val_magnitude"] == pytest.approx(error, rel=1e-3)
