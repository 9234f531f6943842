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
from pathlib import Path

import pytest

import kinds
from kinds import mutants
from kinds.bases import BASES, BASES_OF_FFMPEG

FEW, MANY = 15, 500
CONTAINERS = [
    *BASES,
    *(pytest.param(name, marks=pytest.mark.needs("ffmpeg", "ffprobe")) for name in BASES_OF_FFMPEG),
]


def listen(folder: Path, container: str, count: int, *, soak: bool) -> tuple[list[str], list[str]]:
    """Decode `count` changed files in processes with limits; return what happened to the good ones, and the faults."""
    paths = (Path(kinds.__file__).parents[1], *(path for path in sys.path if path.endswith("python")))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONWARNINGS": "error"}
    words, faults, first = [], [], 0
    while first < count:
        command = [sys.executable, mutants.__file__, folder, container, str(first), str(count - first)]
        done = subprocess.run(
            [*command, "ffmpeg"] if soak else command, env=environment, capture_output=True, text=True
        )
        events = [json.loads(line) for line in done.stdout.splitlines()]
        words += [word for _, event, word in events if event == "done"]
        faults += [f"{container} {number}: {word}" for number, event, word in events if event == "fault"]
        if done.stderr:
            faults.append(f"{container}: on standard error: {done.stderr[-2_000:]}")
        if done.returncode == 0:
            break
        assert events, done.stderr
        first, event, word = events[-1]
        assert event == "start", (event, word, done.stderr)
        faults.append(f"{container} {first}: {word}: {_death(done.returncode)}")
        first += 1
    return words, faults


def _death(status: int) -> str:
    name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return f"over {mutants.SECONDS} s of processor time" if name == "SIGXCPU" else name


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limits are those of Linux")
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_changed_file_is_decoded_up_to_the_change_or_refused(container, tmp_path, request):
    soak = request.config.getoption("soak")
    base = (BASES | BASES_OF_FFMPEG)[container](tmp_path / f"{container}.base")
    base.save(tmp_path, container)
    assert base.samples.std() > 0.02
    words, faults = listen(tmp_path, container, MANY if soak else FEW, soak=soak)
    assert not faults, "\n".join(faults)
    # Neither is everything refused, nor does nothing happen.
    assert len(set(words)) >= 2
