"""The lock of a run folder, and folders that a new run refuses."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import shared_storage
from distill.cache import mounts
from distill.errors import RunError, StorageError
from distill.index import Dataset
from distill.latent.analysis import analyze
from distill.runs.folder import RunFolder
from distill.training import train
from instruments import config_of, tones, write_run
from sounds import sine, write

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    for pitch in (220, 330, 440, 550, 660, 770):
        write(folder / f"{pitch}.wav", sine(pitch), subtype="PCM_24")
    return folder


OPTIONS = {"latent_dim": 2, "epochs": 1, "batch_size": 4, "val_fraction": 0.25, "preview_epochs": 0}


@pytest.fixture
def config():
    return config_of(2, **OPTIONS)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_is_trained_cannot_be_resumed_or_analysed_meanwhile(dataset, config, tmp_path):
    run = tmp_path / "run"
    errors = []

    def try_others(event):
        if event.kind != "epoch":
            return
        for other in (lambda: train(None, run, resume=True), lambda: analyze(run), lambda: train(dataset, run)):
            before = contents(run)
            with pytest.raises(RunError) as caught:
                other()
            errors.append(caught.value)
            assert contents(run) == before

    assert train(dataset, run, config, on_event=try_others).latent_dir
    assert len(errors) == 3
    for error in errors:
        assert str(run / ".lock") in str(error)
        assert f"process {os.getpid()}" in str(error)
        assert "wait" in error.tip
        assert error.exit_code == 2
    assert not (run / ".lock").exists()
    assert train(None, run, resume=True, analyze=False).status == "finished"


def test_an_analysis_holds_the_lock(dataset, config, tmp_path):
    run = tmp_path / "run"
    train(dataset, run, config, analyze=False)
    errors = []

    def resume(stage, current, total):
        if stage == "effect" and not errors:
            with pytest.raises(RunError, match=r"\.lock: locked") as caught:
                train(None, run, resume=True)
            errors.append(caught.value)

    analyze(run, progress=resume)
    assert errors
    assert not (run / ".lock").exists()


HOLDER = """
import os, sys
from distill.runs.folder import RunFolder
with RunFolder(sys.argv[1]).lock():
    if os.fork() == 0:
        # As a worker of a DataLoader: it outlives the process that holds the lock.
        sys.stdin.read()
        os._exit(0)
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


def test_the_lock_ends_with_the_process_that_holds_it_even_if_its_workers_live_on(dataset, config, tmp_path):
    run = tmp_path / "run"
    train(dataset, run, config, analyze=False)
    command = [sys.executable, "-c", HOLDER, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        pid = int(holder.stdout.readline())
        with pytest.raises(RunError, match=f"process {pid} is training or analysing"):
            train(None, run, resume=True)
        os.kill(pid, signal.SIGKILL)
        holder.wait(timeout=60)
        # The file is left behind, and the forked process waits for the end of its input.
        assert (run / ".lock").exists()
        assert train(None, run, resume=True, analyze=False).status == "finished"
    assert not (run / ".lock").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, None], ids=["no-locks", "locks-of-one-machine"])
def test_without_locks_that_reach_all_machines_a_run_has_one_writer_too(dataset, config, tmp_path, monkeypatch, number):
    """Another machine is told once it has seen that the process is running."""
    run, errors = tmp_path / "run", []
    shared_storage.share(monkeypatch.setattr, lease_s=6)
    if number is not None:
        monkeypatch.setattr(mounts, "mount_of", lambda descriptor: ("ext4", frozenset()))
        monkeypatch.setattr(fcntl, "flock", no_locks(number))

    def try_another(event):
        if event.kind == "epoch":
            with pytest.raises(RunError, match=f"locked: process {os.getpid()} on .* is training") as caught:
                train(None, run, resume=True)
            errors.append(caught.value)

    assert train(dataset, run, config, on_event=try_another).latent_dir
    assert len(errors) == 1
    assert train(None, run, resume=True, analyze=False).status == "finished"


def no_locks(number):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    return flock


def test_who_has_lost_a_run_to_another_machine_writes_nothing_more(dataset, config, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shared_storage.share(monkeypatch.setattr)
    kept = {}

    def take_over(event):
        if event.kind == "epoch":
            (owner,) = run.glob("owner-*.json")
            record = json.loads(owner.read_text()) | {"number": 2, "host": "node7", "pid": 99, "token": "another"}
            owner.write_text(json.dumps(record))
            owner.rename(run / "owner-2.json")
            kept.update({name: content for name, content in contents(run).items() if name.startswith("checkpoints")})

    with pytest.raises(StorageError, match="process 99 on node7 has taken over") as caught:
        train(dataset, run, config_of(2, **{**OPTIONS, "epochs": 2}), on_event=take_over)
    assert "wait until the other process has ended" in caught.value.tip
    assert kept
    assert {name: content for name, content in contents(run).items() if name.startswith("checkpoints")} == kept
    assert [path.name for path in run.glob("owner-*")] == ["owner-2.json"]


def test_a_folder_that_cannot_be_written_is_an_error_before_anything_is_computed(unprivileged):
    run = write_run(unprivileged / "run", tones())
    run.chmod(0o500)
    with pytest.raises(StorageError, match=r"run/\.lock: cannot be written") as caught:
        analyze(run)
    assert "make it writable" in caught.value.tip


@pytest.mark.parametrize("kept", ["run.json", "checkpoints/best.pt", "checkpoints/step-000000000.pt", "metrics.jsonl"])
def test_a_new_run_refuses_a_folder_that_holds_a_part_of_a_run(dataset, config, tmp_path, kept):
    run = tmp_path / "my run"
    RunFolder(run).create(config, Dataset(dataset))
    RunFolder(run).save_state({"step": 0}, keep=2, is_best=True)
    RunFolder(run).append_metrics({"epoch": 1, "val_loss": 1.0})
    for path in [path for path in run.rglob("*") if path.is_file() and str(path.relative_to(run)) != kept]:
        path.unlink()
    before = contents(run)
    assert list(before) == [kept]
    with pytest.raises(RunError, match="my run: already holds a run") as caught:
        train(dataset, run, config)
    assert "choose another --out" in caught.value.tip
    assert ("--resume" in caught.value.tip) == (kept == "run.json")
    assert contents(run) == before


def test_a_run_without_checkpoints_is_not_started_again(dataset, config, tmp_path):
    run = tmp_path / "run"
    train(dataset, run, config, analyze=False)
    states = run / "checkpoints"
    for path in states.glob("step-*.pt"):
        path.unlink()
    assert train(None, run, resume=True, analyze=False).epochs == 1
    shutil.rmtree(states)
    before = contents(run)
    with pytest.raises(RunError, match="its checkpoints are missing") as caught:
        train(None, run, resume=True)
    assert "still in model.safetensors" in caught.value.tip
    assert contents(run) == before
