"""An analysis in the background: its progress and its end, and what it leaves if it fails or is cancelled."""

from __future__ import annotations

import json
import shutil
import threading
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from distill.errors import RunBusyError
from distill.play import analysis as module
from distill.play.analysis import Analyses
from distill.play.library import Library
from distill.play.view import describe
from distill.play.watch import training
from distill.runs.folder import RunFolder
from distill.runs.lock import is_locked

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def analyses():
    made = Analyses("cpu")
    yield made
    made.cancel(60)


def wait_until(condition) -> None:
    """Wait for up to two minutes."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "nothing happened for two minutes"
        time.sleep(0.01)


class Gate:
    """An `analyze` that reports once and goes on when it is told to."""

    def __init__(self, monkeypatch) -> None:
        self.reported, self.may_go_on = threading.Event(), threading.Event()
        self._analyze = module.analyze
        monkeypatch.setattr(module, "analyze", self)

    def __call__(self, run_dir, *, device, progress):
        def report(stage, current, total):
            progress(stage, current, total)
            self.reported.set()
            assert self.may_go_on.wait(120)
            progress(stage, current, total)

        return self._analyze(run_dir, device=device, progress=report)


def test_a_run_is_analysed_in_the_background(copied, trained, analyses, monkeypatch):
    shutil.rmtree(copied / "latent")
    gate = Gate(monkeypatch)
    assert analyses.state(copied)["state"] == "missing"
    assert analyses.start(copied)["state"] == "running"
    assert gate.reported.wait(120)
    state = analyses.state(copied)
    assert state["state"] == "running"
    assert json.loads(json.dumps(state)) == state
    assert set(state["progress"]) == {"stage", "current", "total"}
    assert state["progress"]["current"] >= 0
    assert isinstance(state["progress"]["stage"], str)
    # It is no training, although it holds the lock.
    assert is_locked(copied)
    assert training(copied, 0, analyses)["state"] == "idle"
    assert Library(copied, analyses).runs()[0]["state"] == "idle"
    assert describe(copied, analyses)["analysis"]["state"] == "running"
    assert analyses.start(copied)["state"] == "running"
    gate.may_go_on.set()
    wait_until(lambda: not analyses.is_running(copied))
    assert analyses.state(copied) == {"state": "ready", "reason": None, "tip": None, "progress": None}
    assert len(describe(copied, analyses)["axes"]) > 2
    ours, theirs = (load_file(run / "latent" / "analysis.safetensors") for run in (copied, trained))
    np.testing.assert_allclose(ours["latents"], theirs["latents"], atol=1e-5)


def test_a_cancelled_analysis_leaves_the_one_before(copied, analyses, monkeypatch):
    gate = Gate(monkeypatch)
    before = (copied / "latent" / "analysis.json").read_bytes()
    analyses.start(copied)
    assert gate.reported.wait(120)
    canceller = threading.Thread(target=analyses.cancel, args=(60,))
    canceller.start()
    gate.may_go_on.set()
    canceller.join(120)
    assert not analyses.is_running(copied)
    assert analyses.state(copied)["state"] == "ready"
    assert (copied / "latent" / "analysis.json").read_bytes() == before
    assert not is_locked(copied)


def test_an_analysis_that_fails_says_why_and_may_be_tried_again(copied, analyses, tmp_path):
    shutil.rmtree(copied / "latent")
    record = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps(record | {"dataset": str(tmp_path / "gone")}))
    analyses.start(copied)
    wait_until(lambda: not analyses.is_running(copied))
    state = analyses.state(copied)
    assert (state["state"], state["progress"]) == ("failed", None)
    assert str(tmp_path / "gone") in state["reason"]
    assert "folder" in state["tip"]
    (copied / "run.json").write_text(json.dumps(record))
    analyses.start(copied)
    wait_until(lambda: not analyses.is_running(copied))
    assert analyses.state(copied)["state"] == "ready"


def test_an_error_that_is_none_of_ours_is_told_as_well(copied, analyses, monkeypatch):
    shutil.rmtree(copied / "latent")
    monkeypatch.setattr(module, "analyze", lambda *_, **__: 1 / 0)
    analyses.start(copied)
    wait_until(lambda: not analyses.is_running(copied))
    assert analyses.state(copied)["state"] == "failed"
    assert "ZeroDivisionError" in analyses.state(copied)["reason"]


def test_a_run_that_is_locked_is_not_analysed(copied, analyses):
    with RunFolder(copied).lock():
        with pytest.raises(RunBusyError, match="another process") as caught:
            analyses.start(copied)
        assert "wait" in caught.value.tip
        assert analyses.state(copied)["state"] == "ready"
