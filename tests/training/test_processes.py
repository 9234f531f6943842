"""Several processes train the model that one process trains, and end together."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.config import TrainingConfig, config_to_toml
from distill.errors import ProcessLostError
from distill.training import create_complex_data_loaders, train, world
from distill.training.trainer import new_model
from distill.training.world import World
from processes import together, train_with_a_signal, train_with_other_places
from processes import train as run_train

pytestmark = pytest.mark.usefixtures("one_thread")


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def state(run: Path) -> dict:
    return torch.load(max((run / "checkpoints").glob("step-*.pt")), weights_only=True)


def equal(first: object, second: object) -> bool:
    """Whether two states are equal to the last bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    return first == second


def difference(run: Path, other: Path, config: TrainingConfig) -> float:
    """How far the weights of two runs are apart, as a share of what training has changed."""
    found, expected = state(run), state(other)
    assert found["step"] == expected["step"] >= 20
    shape = (2, *found["band_means"].shape[1:], 63)
    torch.manual_seed(config.seed)
    start = dict(new_model(config, shape).named_parameters())

    def vector(values) -> torch.Tensor:
        return torch.cat([values[name].detach().double().flatten() for name in start])

    update = vector(expected["model"]) - vector(start)
    assert update.norm() > 0.1
    return ((vector(found["model"]) - vector(expected["model"])).norm() / update.norm()).item()


def options(config: TrainingConfig, cache: Path, folder: Path) -> list[object]:
    (folder / "config.toml").write_text(config_to_toml(config))
    # The slot is in the folder of the cache.
    return ["--config", folder / "config.toml", "--cache-dir", cache.parents[1], "--no-analyze"]


@pytest.fixture(scope="module")
def config(brief_config) -> TrainingConfig:
    # 24 training rows in batches of 23: the last one has a row for one of the processes. 20 steps.
    return replace(brief_config, batch_size=23, epochs=10, patience=100)


@pytest.fixture(scope="module")
def arguments(config, brief_cache, tmp_path_factory) -> list[object]:
    return options(config, brief_cache, tmp_path_factory.mktemp("options"))


@pytest.fixture(scope="module")
def alone(brief_sounds, brief_cache, config, tmp_path_factory) -> Path:
    """A run of one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    return train(brief_sounds, run, config, cache_dir=brief_cache.parents[1], analyze=False).run_dir


@pytest.fixture(scope="module")
def of_three(brief_sounds, arguments, tmp_path_factory) -> tuple[Path, str]:
    """A run of three processes, and what they showed."""
    folder = tmp_path_factory.mktemp("three")
    statuses, shown = together(3, folder / "output", run_train, brief_sounds, "--out", folder / "run", *arguments)
    assert statuses == [0, 0, 0], shown
    return folder / "run", shown


def test_three_processes_train_the_model_of_one(of_three, alone, config):
    run, shown = of_three
    assert difference(run, alone, config) <= 1e-5
    timings = ("seconds", "examples_per_s")
    for found, expected in zip(metrics(run), metrics(alone), strict=True):
        for name in expected.keys() - set(timings):
            # Pitches of steady tones alone: there may be none.
            wanted = expected[name] and pytest.approx(expected[name], rel=1e-4, abs=1e-6)
            assert found[name] == wanted, name
    # One of them speaks for all.
    assert len(re.findall(r"^epoch 10/10 ", shown, re.MULTILINE)) == 1
    assert shown.count("finished and saved") == 1
    assert not (run / ".lock").exists()


def test_all_stop_after_the_step_in_which_one_is_told_to_and_resume_to_the_same_bits_or_alone(
    brief_sounds, arguments, of_three, alone, config, tmp_path
):
    run = tmp_path / "run"
    call = (2, signal.SIGTERM, 6, brief_sounds, "--out", run, *arguments)
    statuses, shown = together(3, tmp_path / "output", train_with_a_signal, *call)
    assert statuses == [143, 0, 0], shown
    assert "interrupted and saved" in shown
    assert state(run)["step"] == 7
    shutil.copytree(run, tmp_path / "single")

    statuses, shown = together(3, tmp_path / "output", run_train, "--resume", run, "--no-analyze")
    assert statuses == [0, 0, 0], shown
    found, expected = state(run), state(of_three[0])
    assert all(equal(found[name], expected[name]) for name in expected if name != "epoch_seconds")

    assert train(None, tmp_path / "single", resume=True, analyze=False).status == "finished"
    assert difference(tmp_path / "single", alone, config) <= 1e-5


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_is_killed_ends_the_other_with_a_message_and_the_run_resumes(
    killed, brief_sounds, arguments, alone, config, tmp_path
):
    run = tmp_path / "run"
    call = (killed, signal.SIGKILL, 7, brief_sounds, "--out", run, *arguments)
    statuses, shown = together(2, tmp_path / "output", train_with_a_signal, *call)
    assert statuses[killed] == -signal.SIGKILL
    assert statuses[1 - killed] == 1, shown
    assert "error: another process of this training has ended" in shown
    assert "--resume" in shown
    assert state(run)["epoch"] == 3
    assert not (run / ".lock").exists() or killed == 0
    if killed == 1:
        assert train(None, run, resume=True, analyze=False).status == "finished"
        assert difference(run, alone, config) <= 1e-5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"RANK": "2"}, "RANK=2 and WORLD_SIZE=2"),
        ({"RANK": ""}, "WORLD_SIZE=2 is set without RANK\n"),
        ({"MASTER_ADDR": "", "MASTER_PORT": ""}, "WORLD_SIZE=2 is set without MASTER_ADDR, MASTER_PORT\n"),
        ({"MASTER_PORT": "abc"}, "MASTER_PORT=abc"),
        ({"MASTER_PORT": "22222222"}, "MASTER_PORT=22222222"),
    ],
)
def test_variables_that_name_no_process_are_an_error(changed, message, run, brief_sounds, monkeypatch):
    variables = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in (variables | changed).items():
        monkeypatch.setenv(name, value)
    code, _, err = run("train", brief_sounds)
    assert code == 2
    assert message in err


def test_an_error_of_the_first_process_before_training_ends_the_others_without_one(brief_sounds, arguments, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").touch()
    call = (brief_sounds, "--out", tmp_path / "run", *arguments)
    statuses, shown = together(2, tmp_path / "output", run_train, *call)
    # On a busy machine, the other one may see only that the connection has ended.
    assert statuses in ([2, 0], [2, 1])
    assert "already holds a run" in shown


def test_blocks_that_are_stored_elsewhere_for_another_process_are_an_error(brief_sounds, brief_cache, config, tmp_path):
    arguments = options(replace(config, shuffle="blocks"), brief_cache, tmp_path)
    call = (brief_sounds, "--out", tmp_path / "run", *arguments)
    statuses, shown = together(2, tmp_path / "output", train_with_other_places, *call)
    assert statuses == [1, 2], shown
    assert "this process finds other features there than the first one" in shown


def test_the_others_are_not_called_to_receive_what_the_first_process_cannot_compute():
    store = torch.distributed.HashStore()
    with pytest.raises(ZeroDivisionError):
        World(threading.Event(), 0, 2, store).tell(lambda: 1 // 0)
    assert store.num_keys() == 0


def test_a_process_that_is_told_to_stop_says_how_long_the_first_one_has_not_answered(monkeypatch):
    monkeypatch.setattr(world, "_PATIENCE_S", 0.0)
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(ProcessLostError, match="has not answered for 0 s"):
        World(cancel, 1, 2, torch.distributed.HashStore()).hear()


def test_two_processes_train_on_magnitude_alone_and_stop_early_together(brief_sounds, config, tmp_path):
    feature = replace(config.complex_spectrogram, enabled=False)
    stuck = replace(
        config, complex_spectrogram=feature, epochs=30, patience=2, learning_rate=1.0, gradient_clip=1e6, batch_size=9
    )
    (tmp_path / "config.toml").write_text(config_to_toml(stuck))
    call = (brief_sounds, "--out", tmp_path / "run", "--config", tmp_path / "config.toml", "--no-analyze")
    statuses, shown = together(2, tmp_path / "output", run_train, *call)
    assert statuses == [0, 0], shown
    alone = train(brief_sounds, tmp_path / "alone", stuck, analyze=False)
    assert alone.status == "stopped early"
    assert "validation loss no longer improves" in shown
    found, expected = (metrics(tmp_path / name) for name in ("run", "alone"))
    assert found[0]["val_loss"] == pytest.approx(expected[0]["val_loss"], rel=1e-3)


def test_torchrun_and_ctrl_c(brief_sounds, brief_cache, brief_config, tmp_path):
    long = replace(brief_config, epochs=1000, patience=1000)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", 2)
    command = [sys.executable, *launcher, "-m", "distill.train", brief_sounds, "--out", tmp_path / "run"]
    command += options(long, brief_cache, tmp_path)
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    shown = ""
    while line := process.stdout.readline():
        shown += line
        if line.startswith("epoch 2/1000"):
            # As a terminal does: to torchrun and to all that it started.
            os.killpg(process.pid, signal.SIGINT)
    process.stdout.close()
    assert process.wait() != 0
    assert "interrupted and saved; continue with:\n  torchrun --nproc-per-node 2 -m distill.train --resume" in shown
    assert [line["epoch"] for line in metrics(tmp_path / "run")] == list(range(1, state(tmp_path / "run")["epoch"] + 1))
    assert not (tmp_path / "run" / ".lock").exists()


def test_parts_of_every_batch_are_the_batch(brief_cache, brief_config):
    def batches(rank: int, size: int) -> list[list[int]]:
        sampler = create_complex_data_loaders(brief_cache, brief_config)[0].batch_sampler
        sampler.set_epoch(3)
        sampler.share = (rank, size)
        return list(sampler)

    whole = batches(0, 1)
    parts = [batches(rank, 3) for rank in range(3)]
    assert [[row for part in step for row in part] for step in zip(*parts, strict=True)] == whole
    assert all(max(map(len, step)) - min(map(len, step)) <= 1 for step in zip(*parts, strict=True))
    # A part that would be empty has a row, which is not used.
    sampler = type(create_complex_data_loaders(brief_cache, brief_config)[0].batch_sampler)(np.arange(9), 4)
    sampler.share = (0, 3)
    assert [len(batch) for batch in sampler] == [1, 1, 1]
