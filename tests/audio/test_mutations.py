"""Files changed at random: no crash, no hang, no memory without a bound, and no wrong sample.

What a reader gives before a change is what the intact file holds. Where the container has checksums, all that it gives
is. With `--soak` there are 500 changed files a container, and FFmpeg listens to them, too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import distill
import kinds
from kinds import mutants
from kinds.bases import BASES, BASES_OF_FFMPEG

FEW, MANY = 15, 500
_BATCH = 10
CONTAINERS = [
    *BASES,
    *(pytest.param(name, marks=pytest.mark.needs("ffmpeg", "ffprobe")) for name in BASES_OF_FFMPEG),
]


@dataclass
class Heard:
    """What happened to the changed files of a container."""

    words: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Listener:
    """Decodes changed files when they are asked for, those of many containers in a process with limits."""

    def __init__(self, containers: list[str], folder: Path, *, soak: bool) -> None:
        self.folder, self._soak = folder, soak
        self._batches = [containers[start : start + _BATCH] for start in range(0, len(containers), _BATCH)]
        self._heard: dict[str, Heard] = {}

    def get(self, container: str) -> Heard:
        """Return what happened to the changed files of a container."""
        if container not in self._heard:
            (batch,) = (batch for batch in self._batches if container in batch)
            for name in batch:
                base = (BASES | BASES_OF_FFMPEG)[name](self.folder / f"{name}.base")
                assert base.samples.std() > 0.02
                base.save(self.folder, name)
            self._heard |= self._listen(batch)
        return self._heard[container]

    def _listen(self, batch: list[str]) -> dict[str, Heard]:
        found = {container: Heard() for container in batch}
        jobs = [(container, str(number)) for container in batch for number in range(MANY if self._soak else FEW)]
        while jobs:
            done = _decode(self.folder, jobs, soak=self._soak)
            last = ("", "", "", "")
            for line in done.stdout.splitlines():
                last = container, number, event, words = json.loads(line)
                if event == "done":
                    found[container].words.append(words)
                if event == "fault":
                    found[container].faults.append(f"{container} {number}: {words}")
            container, number, event, words = last
            assert container, done.stderr
            if done.stderr:
                found[container].faults.append(f"on standard error, up to {container}: {done.stderr[-2_000:]}")
            if done.returncode == 0:
                break
            # It crashed, or was stopped by a limit: the others are decoded in another process.
            found[container].faults.append(f"{container} {number}: {words}: {event}: {_death(done.returncode)}")
            jobs = jobs[jobs.index((container, number)) + 1 :]
        return found


@pytest.fixture(scope="module")
def listener(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Listener:
    here = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    containers = [item.callspec.params["container"] for item in here]
    return Listener(containers, tmp_path_factory.mktemp("mutants"), soak=request.config.getoption("soak"))


def _decode(folder: Path, jobs: list[tuple[str, str]], *, soak: bool) -> subprocess.CompletedProcess[str]:
    paths = (Path(kinds.__file__).parents[1], Path(distill.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONWARNINGS": "error"}
    command = [sys.executable, mutants.__file__, str(folder), *(["ffmpeg"] if soak else [])]
    lines = "".join(f"{' '.join(job)}\n" for job in jobs)
    return subprocess.run(command, env=environment, input=lines, capture_output=True, text=True)


def _death(status: int) -> str:
    name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return f"over {mutants.SECONDS} s of processor time" if name == "SIGXCPU" else name


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limits are those of Linux")
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_changed_file_is_decoded_up_to_the_change_or_refused(container, listener):
    words, faults = listener.get(container).words, listener.get(container).faults
    assert not faults, "\n".join(faults)
    # Neither is everything refused, nor does nothing happen.
    assert len(set(words)) >= 2
