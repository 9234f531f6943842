"""Fixtures for the proof of the cache's promises: small numbers by default, large ones with `--soak` (`make soak`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


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
def tried(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """Counts of what this test tried, for the summary at the end, which `tests/conftest.py` writes."""
    counts: Counter[str] = Counter()
    yield counts
    request.node.user_properties.append(("tried", dict(counts)))


@pytest.fixture
def prove(shim: Path, tmp_path: Path, tried: Counter[str]):
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
        tried.update(counts)
        return counts

    return run
