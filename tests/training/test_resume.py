"""Interrupted, killed and damaged runs: resumed, they end with the weights of an uninterrupted run."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distill.config import TrainingConfig, config_to_toml
from distill.errors import RunError
from distill.models import load_model
from distill.train import main
from distill.training import AudioTrainingDataset
from distill.training import train as train_and_analyze

train = functools.partial(train_and_analyze, analyze=False)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def config(small_config) -> TrainingConfig:
    return small_config


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def newest_state(run: Path) -> dict:
    return torch.load(max((run / "checkpoints").glob("step-*.pt")), weights_only=True)


def assert_same_run(first: Path, second: Path) -> None:
    weights = [load_file(run / "model.safetensors") for run in (first, second)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    timings = ("seconds", "examples_per_s")
    lines = [[{k: v for k, v in line.items() if k not in timings} for line in metrics(run)] for run in (first, second)]
    assert lines[0] == lines[1]


def test_a_run_cancelled_in_an_epoch_and_resumed_ends_with_the_same_weights(sounds, cache, config, tmp_path):
    without = train(sounds, tmp_path / "without", config, cache_dir=cache)
    config = dataclasses.replace(config, preview_epochs=1)
    whole = train(sounds, tmp_path / "whole", config, cache_dir=cache, tensorboard=True)
    assert_same_run(without.run_dir, whole.run_dir)
    cancel, steps = threading.Event(), []

    def cancel_at_the_fifth_step(event):
        steps.append(event.kind == "step")
        if sum(steps) == 5:
            cancel.set()

    parted = train(
        sounds, tmp_path / "parted", config, cache_dir=cache, on_event=cancel_at_the_fifth_step, cancel_event=cancel
    )
    assert parted.status == "interrupted"
    assert load_model(parted.run_dir)
    resumed = train(None, tmp_path / "parted", resume=True)
    assert (resumed.status, resumed.epochs) == ("finished", 3)
    assert_same_run(whole.run_dir, resumed.run_dir)
    previews = [
        {path.relative_to(run): path.read_bytes() for path in (run / "previews").rglob("*.*")}
        for run in (whole.run_dir, resumed.run_dir)
    ]
    assert len(previews[0]) == 3 * 13
    assert previews[0] == previews[1]


def test_resuming_skips_a_damaged_checkpoint(sounds, cache, config, tmp_path, caplog):
    whole = train(sounds, tmp_path / "whole", config, cache_dir=cache)
    train(sounds, tmp_path / "run", config, cache_dir=cache)
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*.pt"))
    newest.write_bytes(newest.read_bytes()[:1000])
    resumed = train(None, tmp_path / "run", resume=True)
    assert "cannot be read" in caplog.text
    assert_same_run(whole.run_dir, resumed.run_dir)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
@pytest.mark.parametrize("damage", [Path.unlink, truncate])
def test_lost_weights_are_written_again_on_resume(sounds, cache, config, tmp_path, name, damage):
    stuck = dataclasses.replace(config, epochs=30, patience=1, learning_rate=1.0, gradient_clip=1e6)
    run = train(sounds, tmp_path / "my run", stuck, cache_dir=cache)
    # So that the best weights are not those of the last epoch.
    assert run.best["epoch"] < run.epochs
    before = {path.name: path.read_bytes() for path in run.run_dir.glob("model.*")}
    damage(run.run_dir / name)
    with pytest.raises(RunError, match=name.replace(".", r"\.")) as caught:
        load_model(run.run_dir)
    assert caught.value.tip == f"distill train --resume '{run.run_dir}' writes it again"
    assert train(None, run.run_dir, resume=True).status == "stopped early"
    assert before == {path.name: path.read_bytes() for path in run.run_dir.glob("model.*")}


def test_a_run_that_lost_its_weights_resumes_with_the_same_result(sounds, cache, config, tmp_path):
    whole = train(sounds, tmp_path / "whole", config, cache_dir=cache)
    cancel = threading.Event()

    def cancel_in_the_second_epoch(event):
        if event.kind == "step" and event.values["epoch"] == 2 and event.values["step"] == 1:
            cancel.set()

    parted = train(
        sounds, tmp_path / "parted", config, cache_dir=cache, on_event=cancel_in_the_second_epoch, cancel_event=cancel
    )
    assert (parted.status, parted.epochs) == ("interrupted", 1)
    (tmp_path / "parted" / "model.safetensors").unlink()
    train(None, tmp_path / "parted", resume=True)
    assert_same_run(whole.run_dir, parted.run_dir)


def test_a_planted_pickle_is_not_executed(sounds, cache, config, tmp_path):
    import pickle

    train(sounds, tmp_path / "run", config, cache_dir=cache)
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(trap),))

    for path in (tmp_path / "run" / "checkpoints").glob("*.pt"):
        path.write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(RunError, match="none of its checkpoints can be read"):
        train(None, tmp_path / "run", resume=True)
    assert not trap.exists()


def test_resuming_with_a_changed_dataset_logs_a_warning(sounds, config, tmp_path, caplog):
    dataset = tmp_path / "dataset"
    shutil.copytree(sounds / "drums", dataset)
    train(dataset, tmp_path / "run", dataclasses.replace(config, epochs=1))
    shutil.copytree(sounds / "metal", dataset / "metal")
    result = train(None, tmp_path / "run", dataclasses.replace(config, epochs=2), resume=True)
    assert "the dataset has changed" in caplog.text
    assert (result.status, result.epochs) == ("finished", 2)


@pytest.mark.parametrize("is_complex", [True, False])
def test_a_resumed_run_holds_out_the_chunks_that_it_began_with(sounds, config, tmp_path, caplog, is_complex):
    """Also if the dataset has grown; a run of an earlier version keeps its rule, a fixed limit."""
    features = dataclasses.replace(config.complex_spectrogram, enabled=is_complex)
    config = dataclasses.replace(config, complex_spectrogram=features, epochs=1, batch_size=64, val_fraction=0.15)
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    files = sorted((sounds / "drums").iterdir())
    for path in files[:4]:
        shutil.copy(path, dataset)
    train(dataset, tmp_path / "run", config)
    assert "R² rests on only" in caplog.text
    begun = newest_state(tmp_path / "run")["val_limit"]
    assert metrics(tmp_path / "run")[0]["val_chunks"] < 10
    for path in files[4:]:
        shutil.copy(path, dataset)
    train(None, tmp_path / "run", dataclasses.replace(config, epochs=2), resume=True)
    assert newest_state(tmp_path / "run")["val_limit"] == begun
    waveforms = AudioTrainingDataset(sorted(dataset.glob("*.*")), config.chunk_samples, 16_000)
    sizes = {limit: len(waveforms.split(0.15, val_limit=limit)[1]) for limit in (begun, int(0.15 * 2**64))}
    assert metrics(tmp_path / "run")[1]["val_chunks"] == sizes[begun]
    # As a checkpoint of an earlier version, which has no limit.
    for path in (tmp_path / "run" / "checkpoints").glob("*.pt"):
        state = torch.load(path, weights_only=True)
        del state["val_limit"]
        torch.save(state, path)
    train(None, tmp_path / "run", dataclasses.replace(config, epochs=3), resume=True)
    assert metrics(tmp_path / "run")[2]["val_chunks"] == sizes[int(0.15 * 2**64)]


def test_resuming_with_another_architecture_is_an_error(sounds, cache, config, tmp_path):
    train(sounds, tmp_path / "run", config, cache_dir=cache)
    with pytest.raises(RunError, match="latent_dim was 8, is 4"):
        train(None, tmp_path / "run", dataclasses.replace(config, latent_dim=4), resume=True)
    more = dataclasses.replace(config, epochs=4, learning_rate=1e-4)
    assert train(None, tmp_path / "run", more, resume=True).epochs == 4


class Process:
    """`python -m distill.train` in a child process."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self.output = ""
        command = [sys.executable, "-m", "distill.train", *arguments]
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def until(self, text: str) -> None:
        for line in self.process.stdout:
            self.output += line
            if text in line:
                return
        raise AssertionError(f"{text!r} was never printed:\n{self.output}")

    def end(self) -> int:
        with self.process:
            self.output += self.process.stdout.read()
            return self.process.wait(timeout=120)


@pytest.fixture
def place(sounds, config, tmp_path) -> Path:
    """A folder with a small dataset, its cache, and a configuration file."""
    for family in ("drums", "metal"):
        shutil.copytree(sounds / family, tmp_path / "dataset" / family)
    (tmp_path / "config.toml").write_text(config_to_toml(dataclasses.replace(config, epochs=4, batch_size=8)))
    return tmp_path


def test_runs_resumed_after_ctrl_c_and_sigkill_end_with_the_weights_of_an_uninterrupted_run(place, run, monkeypatch):
    monkeypatch.chdir(place)
    options = ("--config", "config.toml", "--no-analyze")
    code, out, err = run("dataset", "--out", "whole", *options, command=main)
    assert code == 0, err
    assert "30 files decoded" in out

    killed = Process("dataset", "--out", "killed", *options, cwd=place)
    killed.until("epoch 2/")
    killed.process.send_signal(signal.SIGKILL)
    assert killed.end() == -signal.SIGKILL
    assert "nothing had to be decoded" in killed.output
    code, _, err = run("--resume", "killed", "--no-analyze", command=main)
    assert code == 0, err
    assert_same_run(place / "whole", place / "killed")

    interrupted = Process("dataset", "--out", "interrupted run", *options, cwd=place)
    interrupted.until("epoch 2/")
    sent = time.monotonic()
    interrupted.process.send_signal(signal.SIGINT)
    assert interrupted.end() == 130, interrupted.output
    assert time.monotonic() - sent < 30
    assert "Traceback" not in interrupted.output
    command = re.search(r"python -m distill\.train (.*)", interrupted.output)[1]
    assert command == "--resume 'interrupted run' --no-analyze"
    code, _, err = run(*shlex.split(command), command=main)
    assert code == 0, err
    assert_same_run(place / "whole", place / "interrupted run")
