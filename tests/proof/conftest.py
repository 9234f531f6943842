"""Fixtures for the proof of the cache's promises: small numbers by default, large ones with `--soak` (`make soak`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
_tried: Counter[str] = Counter()
_failures: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed and f"{HERE.name}/" in report.nodeid:
        _failures.append(report.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _tried:
        terminalreporter.section("proof")
        counts = ", ".join(f"{count} {what}" for what, count in sorted(_tried.items()))
        terminalreporter.write_line(f"{counts}; failures {len(_failures)}")


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled shim. A C compiler is present wherever Rust links."""
    library = tmp_path_factory.mktemp("shim") / "faults.so"
    done = subprocess.run(
        [os.environ.get("CC", "cc"), "-O1", "-shared", "-fPIC", "-o", library, HERE / "faults.c", "-ldl"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return library


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether to run with large numbers, for minutes."""
    return request.config.getoption("--soak")


@pytest.fixture
def tried() -> Counter[str]:
    """Counts of what was tried, for the summary at the end."""
    return _tried


@pytest.fixture
def prove(shim: Path, tmp_path: Path):
    """Run a script of this folder under the shim. Return its counts, and add them to the summary."""

    def run(script: str, **arguments: Any) -> dict[str, int]:
        paths = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        # One thread, because a fork of a process with threads can hang.
        environment = os.environ | {"LD_PRELOAD": str(shim), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-W", "error", HERE / script, json.dumps(arguments | {"work": str(tmp_path)})],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-8_000:] + done.stdout[-2_000:]
        counts = json.loads(done.stdout.splitlines()[-1])
        _tried.update(counts)
        return counts

    return run
