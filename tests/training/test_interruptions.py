"""Signals, saves within an epoch, power cuts and weights that are not finite."""

from __future__ import annotations

import functools
import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distill import train as command
from distill.cli.progress import ProgressView
from distill.config import config_to_toml
from distill.errors import TrainingDivergedError
from distill.models import load_model
from distill.training import epochs, trainer
from distill.training import train as train_and_analyze

train = functools.partial(train_and_analyze, analyze=False)
pytestmark = pytest.mark.usefixtures("one_thread")


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def outcome(run: Path) -> tuple[dict, list[dict]]:
    """The weights of a run as lists, and its metrics without times."""
    timings = ("seconds", "examples_per_s")
    weights = {name: value.tolist() for name, value in load_file(run / "model.safetensors").items()}
    return weights, [{k: v for k, v in line.items() if k not in timings} for line in metrics(run)]


@pytest.fixture(scope="module")
def whole(brief_sounds, brief_cache, brief_config, tmp_path_factory) -> tuple[dict, list[dict]]:
    """The outcome of an uninterrupted run."""
    return outcome(
        train(brief_sounds, tmp_path_factory.mktemp("whole") / "run", brief_config, cache_dir=brief_cache).run_dir
    )


@pytest.fixture
def start(brief_sounds, brief_cache, brief_config, tmp_path):
    """A function that trains tmp_path/run."""
    return functools.partial(train, brief_sounds, tmp_path / "run", brief_config, cache_dir=brief_cache)


class Killed(Exception):  # noqa: N818 - what happened
    """The end of a training at an event, without a chance to save."""


def kill_at(epoch: int, step: int):
    def on_event(event):
        if event.kind == "step" and (event.values["epoch"], event.values["step"]) == (epoch, step):
            raise Killed

    return on_event


def test_sigterm_saves_and_ends_with_143_and_the_handlers_are_those_of_before(
    brief_sounds, brief_cache, brief_config, whole, tmp_path, run, monkeypatch
):
    shown = []

    def press(view, event):
        shown.append(event.kind)
        signal.raise_signal(signal.SIGHUP)
        if shown.count("step") == 4 and event.kind == "step":
            # Again and again, as some systems do: the run is saved all the same.
            for _ in range(3):
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ProgressView, "event", press)
    (tmp_path / "config.toml").write_text(config_to_toml(brief_config))
    # As under nohup: a signal that is ignored stays so.
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    options = ("--config", tmp_path / "config.toml", "--cache-dir", brief_cache, "--no-analyze")
    code, out, _ = run(brief_sounds, "--out", tmp_path / "run", *options, command=command.main)
    assert code == 143
    assert "interrupted and saved" in out
    assert "--resume" in out
    assert shown.count("step") == 4
    assert [signal.getsignal(number) for number in numbers] == before
    signal.signal(signal.SIGHUP, hangup)
    assert train(None, tmp_path / "run", resume=True).status == "finished"
    assert outcome(tmp_path / "run") == whole


def test_train_in_a_thread_leaves_the_handlers_of_its_caller(start):
    def handler(number, frame):
        raise AssertionError

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, handler) for number in numbers]
    seen = []
    try:
        thread = threading.Thread(
            target=start,
            kwargs={"on_event": lambda event: seen.extend(signal.getsignal(number) for number in numbers)},
        )
        thread.start()
        thread.join()
        assert len(seen) > 10
        assert set(seen) == {handler}
        assert [signal.getsignal(number) for number in numbers] == [handler, handler]
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)


# Makes standard input the controlling terminal, whose end sends SIGHUP.
ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "distill.train", *sys.argv[1:]])
"""


def test_a_terminal_that_is_closed_ends_a_run_with_129_and_everything_saved(
    brief_sounds, brief_cache, brief_config, tmp_path
):
    (tmp_path / "config.toml").write_text(config_to_toml(replace(brief_config, epochs=1000, patience=1000)))
    options = ("--config", tmp_path / "config.toml", "--cache-dir", brief_cache, "--no-analyze")
    ours, theirs = pty.openpty()
    arguments = [sys.executable, "-c", ON_TERMINAL, brief_sounds, "--out", tmp_path / "run", *options]
    process = subprocess.Popen(
        [str(argument) for argument in arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    os.close(theirs)
    shown = b""
    while not re.search(rb"epoch 2/1000 ", shown):
        shown += os.read(ours, 10_000)
    os.close(ours)
    assert process.wait(timeout=120) == 129
    checkpoint = max((tmp_path / "run" / "checkpoints").glob("step-*.pt"))
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["epoch"] >= 1
    assert [line["epoch"] for line in metrics(tmp_path / "run")] == list(range(1, saved["epoch"] + 1))
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize("step", [1, 2])
def test_the_state_is_saved_within_an_epoch_and_continued_to_the_same_weights(
    start, whole, tmp_path, monkeypatch, caplog, step
):
    caplog.set_level("INFO", "distill")
    monkeypatch.setattr(trainer, "_SAVE_EVERY_S", 0.0)
    with pytest.raises(Killed):
        start(on_event=kill_at(2, step))
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "val_lo')
    monkeypatch.undo()
    result = train(None, tmp_path / "run", resume=True)
    assert f"resumed after 1 epoch and {step} step" in caplog.text
    assert (result.status, result.epochs) == ("finished", 3)
    assert outcome(tmp_path / "run") == whole


def test_the_state_is_not_saved_at_every_step(start, tmp_path, caplog):
    caplog.set_level("INFO", "distill")
    with pytest.raises(Killed):
        start(on_event=kill_at(2, 2))
    train(None, tmp_path / "run", resume=True)
    assert "resumed after 1 epoch and 0 steps" in caplog.text


def test_a_run_cancelled_while_it_is_validated_is_continued_with_its_validation(start, whole, tmp_path, monkeypatch):
    cancel, validate = threading.Event(), trainer.validate_epoch

    def cancelled(model, loader, *arguments, **options):
        cancel.set()
        return validate(model, loader, *arguments, **options)

    monkeypatch.setattr(trainer, "validate_epoch", cancelled)
    result = start(cancel_event=cancel)
    assert (result.status, result.epochs, result.best) == ("interrupted", 0, {})
    monkeypatch.undo()
    assert train(None, tmp_path / "run", resume=True).status == "finished"
    assert outcome(tmp_path / "run") == whole


def test_a_run_interrupted_before_its_first_step_reports_what_it_has(start, tmp_path):
    first = start()
    cancel = threading.Event()
    cancel.set()
    again = train(None, tmp_path / "run", resume=True, cancel_event=cancel)
    assert (again.status, again.epochs, again.best) == ("interrupted", first.epochs, first.best)


def test_weights_of_an_epoch_without_a_checkpoint_are_not_kept(start, whole, tmp_path, monkeypatch):
    """A kill between saving the best model and its checkpoint, and a training that does not reach that epoch again."""
    append = trainer.RunFolder.append_metrics

    def killed(self, line):
        if line["epoch"] == 2:
            raise Killed
        append(self, line)

    monkeypatch.setattr(trainer.RunFolder, "append_metrics", killed)
    with pytest.raises(Killed):
        start()
    monkeypatch.undo()
    cancel = threading.Event()
    result = train(
        None,
        tmp_path / "run",
        resume=True,
        cancel_event=cancel,
        on_event=lambda event: event.kind == "start" and cancel.set(),
    )
    assert (result.status, result.best["epoch"]) == ("interrupted", 1)
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.pt", weights_only=True)
    assert best["epoch"] == 1
    kept = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in best["model"].items())
    assert train(None, tmp_path / "run", resume=True).status == "finished"
    assert outcome(tmp_path / "run") == whole


def test_lines_of_metrics_are_on_disk_before_the_checkpoint_that_counts_on_them(start, tmp_path, monkeypatch):
    """What a power cut leaves: of each file, what was there when it was last synced."""
    path, on_disk, checked, sync = tmp_path / "run" / "metrics.jsonl", {}, [], os.fsync

    def synced(descriptor):
        sync(descriptor)
        stat = os.fstat(descriptor)
        on_disk[stat.st_ino] = stat.st_size
        if path.exists() and stat.st_ino != (now := path.stat()).st_ino:
            assert on_disk[now.st_ino] == now.st_size
            checked.append(now.st_size)

    monkeypatch.setattr(os, "fsync", synced)
    start()
    assert len(set(checked)) == 4  # without a line, and after each epoch
    assert checked[-1] == path.stat().st_size


def test_weights_that_are_not_finite_are_never_saved(start, whole, tmp_path, monkeypatch):
    calls, loss = [], epochs.vae_loss

    def spoiled(reconstruction, target, mu, *arguments, **options):
        """A loss that is finite at the ninth step, with a gradient that is NaN."""
        losses = loss(reconstruction, target, mu, *arguments, **options)
        calls.append(torch.is_grad_enabled())
        if sum(calls) == 9 and calls[-1]:
            losses["loss"] = losses["loss"] + (0 * mu).sum().sqrt()
        return losses

    cancel = threading.Event()

    def cancel_at_the_ninth_step(event):
        if sum(calls) == 8 and event.kind == "step":
            cancel.set()

    monkeypatch.setattr(epochs, "vae_loss", spoiled)
    with pytest.raises(TrainingDivergedError, match="epoch 3") as caught:
        start(cancel_event=cancel, on_event=cancel_at_the_ninth_step)
    assert caught.value.tip == f"continue with --resume {tmp_path / 'run'} and a --learning-rate below 0.002"
    assert [line["epoch"] for line in metrics(tmp_path / "run")] == [1, 2]
    checkpoints = list((tmp_path / "run" / "checkpoints").glob("*.pt"))
    assert len(checkpoints) == 3
    for path in checkpoints:
        state = torch.load(path, weights_only=True)
        moments = [value for values in state["optimizer"]["state"].values() for value in values.values()]
        assert all(value.isfinite().all() for value in (*state["model"].values(), *moments))
    assert all(value.isfinite().all() for value in load_model(tmp_path / "run").state_dict().values())
    monkeypatch.undo()
    assert train(None, tmp_path / "run", resume=True).status == "finished"
    assert outcome(tmp_path / "run") == whole


def test_a_loss_that_is_not_finite_ends_the_training_at_its_step(start, tmp_path, monkeypatch):
    steps, real = [], epochs.vae_loss
    monkeypatch.setattr(epochs, "vae_loss", lambda *a, **k: {n: v * math.inf for n, v in real(*a, **k).items()})
    with pytest.raises(TrainingDivergedError, match="epoch 1"):
        start(on_event=lambda event: steps.append(event.kind == "step"))
    assert sum(steps) == 1


def test_a_checkpoint_of_weights_that_are_not_finite_is_not_used(start, whole, tmp_path, caplog):
    start()
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*.pt"))
    state = torch.load(newest, weights_only=True)
    next(iter(state["model"].values())).view(-1)[0] = math.nan
    torch.save(state, newest)
    assert train(None, tmp_path / "run", resume=True).epochs == 3
    assert f"{newest}: not used, because its weights are not finite" in caplog.text
    assert outcome(tmp_path / "run") == whole


@pytest.mark.gpu
def test_a_run_continued_within_an_epoch_draws_the_same_numbers_on_cuda(
    brief_sounds, brief_cache, brief_config, tmp_path, monkeypatch
):
    config = replace(brief_config, device="cuda")
    train(brief_sounds, tmp_path / "whole", config, cache_dir=brief_cache)
    monkeypatch.setattr(trainer, "_SAVE_EVERY_S", 0.0)
    with pytest.raises(Killed):
        train(brief_sounds, tmp_path / "run", config, cache_dir=brief_cache, on_event=kill_at(2, 2))
    train(None, tmp_path / "run", resume=True)
    found, expected = ([line["train_loss"] for line in metrics(tmp_path / name)] for name in ("run", "whole"))
    # Other numbers change it by some percent; the order of additions does not.
    assert found == pytest.approx(expected, rel=1e-4)
