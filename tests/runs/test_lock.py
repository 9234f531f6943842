"""The lock of a run folder, and folders that a new run refuses."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.fixture
def config():
    return config_of(2, latent_dim=2, epochs=1, batch_size=4, val_fraction=0.25, preview_epochs=0)


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


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_said_once(dataset, config, tmp_path, monkeypatch, caplog, number):
    run, flock = tmp_path / "run", fcntl.flock

    def fail_in_the_run(descriptor, operation):
        # The cache has a lock, too, and is elsewhere.
        lock = run / ".lock"
        if lock.exists() and os.path.samestat(lock.stat(), os.fstat(descriptor)):
            raise OSError(number, os.strerror(number))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", fail_in_the_run)
    assert train(dataset, run, config).latent_dir
    warnings = [record.getMessage() for record in caplog.records if "no locks" in record.getMessage()]
    assert len(warnings) == 1
    assert str(run) in warnings[0]
    assert os.strerror(number) in warnings[0]
    assert not (run / ".lock").exists()


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
