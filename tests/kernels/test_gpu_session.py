"""bench/gpu_session.py without a GPU: its steps on a CPU, with launches and tools that do nothing."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
import pytest

pytest.importorskip("triton", "3.6")

import gpu_session

# Notes how it was called; memcheck runs the command that follows its own options, too.
TOOL = """#!/bin/sh
echo "$0 $@" >> "$OUT/../calls"
case "$@" in *memcheck*) ;; *) exit 0 ;; esac
while [ "$1" != "$PYTHON" ]; do shift; done
exec "$@"
"""


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    return tmp_path / "out"


def test_a_dry_run_leaves_the_results_of_every_step(out, tmp_path, monkeypatch, capfd):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("compute-sanitizer", "ncu"):
        (tools / name).write_text(TOOL)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONWARNINGS", "error::DeprecationWarning:__main__")
    assert gpu_session.main(["--dry-run"]) == 1  # because a kernel that does nothing disagrees
    # pytest: no test was collected, because there is no GPU.
    expected = {"benchmark": 1, "tests": 5, "memcheck": 1, "racecheck": 0, "ncu": 0}
    ended = json.loads((out / "session.json").read_text())
    assert ended == {name: f"exit status {status}" for name, status in expected.items()}
    assert "racecheck: exit status 0" in capfd.readouterr().out

    report = json.loads((out / "benchmark" / "cpu.json").read_text())
    assert report["failed"] == {}
    assert report["disagrees"].keys() == report["parity"].keys() == {"random", "tonal"}
    with np.load(out / "benchmark" / "cpu.npz") as features:
        assert {name: features[name].shape for name in features} == dict.fromkeys(("random", "tonal"), (2, 2, 128, 12))
    timed = {row["method"]: row for row in report["results"] if "us" in row and row["clips"] == 1}
    assert "distill" not in timed
    assert timed["eager reference"]["graph_left_out"] == "RuntimeError: a CPU has no graphs"
    assert len(report["sweep"]) == 4
    assert "the kernel, random waveforms: disagrees" in (out / "benchmark.log").read_text()
    assert "tests need a CUDA device and were not run" in (out / "tests.log").read_text()
    assert json.loads((out / "memcheck.log").read_text()).keys() == {"random", "tonal"}
    calls = (out / "calls").read_text().splitlines()
    assert ["memcheck" in calls[0], "racecheck" in calls[1], "--clock-control none" in calls[2]] == [True] * 3


def step(code, seconds=30.0):
    return gpu_session.Step("step", [sys.executable, "-c", code], seconds)


def test_a_step_that_takes_too_long_ends_with_all_that_it_started(tmp_path):
    child = "import time; time.sleep(1); open('late', 'w')"
    code = f"import os, subprocess, sys, time; os.chdir({str(tmp_path)!r}); print('begun', flush=True); "
    code += f"subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    while "begun" not in _log(tmp_path):  # on a busy machine, Python takes long to start
        ended = gpu_session.run(step(code, seconds=0.7), tmp_path, 100.0)
        assert ended == "stopped after 1 s"
    time.sleep(1.5)
    assert not (tmp_path / "late").exists()


def _log(folder):
    return (folder / "step.log").read_text() if (folder / "step.log").exists() else ""


def test_a_step_has_no_more_time_than_the_session(tmp_path):
    assert gpu_session.run(step("print(1)"), tmp_path, 0.0) == "left out: no time left"
    assert gpu_session.run(step("import time; time.sleep(60)"), tmp_path, 0.2) == "stopped after 0 s"
    assert gpu_session.run(step("print(1)"), tmp_path, 30.0) == "exit status 0"
    assert _log(tmp_path) == "1\n"


def test_a_tool_that_is_not_there_is_left_out(tmp_path):
    missing = gpu_session.Step("missing", ["no-such-profiler"], 1.0)
    assert gpu_session.run(missing, tmp_path, 10.0) == "left out: no no-such-profiler here"
