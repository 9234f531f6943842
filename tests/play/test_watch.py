"""A run that trains, seen from beside it: what appears on disk is what is told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import soundfile

from distill.errors import NotFoundError, RunError
from distill.play.watch import is_training, picture, preview, training
from distill.runs.folder import RunFolder
from distill.runs.lock import is_locked
from distill.training import train
from sounds import RATE

pytestmark = pytest.mark.usefixtures("one_thread")


def lines_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_that_has_ended(trained):
    found = training(trained, 0)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["state"], found["epoch"], found["epochs"], found["seconds_left"]) == ("idle", 2, 2, None)
    assert found["metrics"] == lines_of(trained)
    assert training(trained, 1)["metrics"] == lines_of(trained)[1:]
    assert training(trained, 2)["metrics"] == []
    sounds = sorted(path.stem for path in (trained / "previews" / "epoch-002").glob("*.wav"))
    assert {"original-1", "reconstruction-1", "sample-1"} <= set(sounds)
    previews = [{"epoch": epoch, "sounds": sounds, "picture": True} for epoch in (1, 2)]
    assert found["previews"] == previews
    assert found["analysis"]["state"] == "ready"


def test_while_a_run_trains_its_epochs_and_previews_appear(trained, copied):
    config = replace(RunFolder(copied).config(), epochs=4)
    seen = []

    def look(event):
        if event.kind == "epoch":
            seen.append((event.values["epoch"], training(copied, 2)))

    train(None, copied, config, resume=True, analyze=False, on_event=look)
    assert [epoch for epoch, _ in seen] == [3, 4]
    for epoch, found in seen:
        assert (found["state"], found["epoch"], found["epochs"]) == ("training", epoch, 4)
        assert [line["epoch"] for line in found["metrics"]] == list(range(3, epoch + 1))
        assert [preview["epoch"] for preview in found["previews"]] == list(range(1, epoch + 1))
    lines = {line["epoch"]: line for line in lines_of(copied)}
    first = seen[0][1]["seconds_left"]
    assert 0 <= first <= max(line["seconds"] for line in lines.values())
    assert seen[1][1]["seconds_left"] == 0
    assert training(copied, 0)["state"] == "idle"


def test_the_time_left_is_that_of_the_remaining_epochs(copied):
    folder = RunFolder(copied)
    folder.write_config(replace(folder.config(), epochs=102))
    lines = [line | {"seconds": 10.0} for line in lines_of(copied)]
    (copied / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ahead = time.time() + 1000
    os.utime(copied / "metrics.jsonl", (ahead, ahead))  # as by a clock that differs
    with folder.lock():
        assert training(copied, 0)["seconds_left"] == pytest.approx(1000)
        os.utime(copied / "metrics.jsonl", (1, 1))
        assert training(copied, 0)["seconds_left"] == pytest.approx(990)
        (copied / "metrics.jsonl").write_text("")
        assert training(copied, 0)["seconds_left"] is None
        assert training(copied, 0)["epoch"] == 0


def test_a_damaged_line_is_named(copied):
    (copied / "metrics.jsonl").write_text('{"epoch": 0}\n')
    with pytest.raises(RunError, match="line 1"):
        training(copied, 0)


def test_a_preview_is_the_file_that_training_wrote(trained):
    content = preview(trained, 2, "sample-1")
    assert content == (trained / "previews" / "epoch-002" / "sample-1.wav").read_bytes()
    samples, rate = soundfile.read(BytesIO(content))
    assert (rate, len(samples)) == (RATE, 8000)
    assert samples.std() > 1e-4
    assert preview(trained, 1, "picture") == (trained / "previews" / "epoch-001" / "previews.png").read_bytes()


@pytest.mark.parametrize(
    "name", ["", "sample-9", "../epoch-001/sample-1", "../../run", "sample-1.wav", "secret", "x-1"]
)
def test_nothing_but_a_preview_is_read(copied, name):
    folder = copied / "previews" / "epoch-002"
    (folder / "secret.wav").write_bytes(b"")
    with pytest.raises(NotFoundError):
        preview(copied, 2, name)
    for epoch in (0, 3, -1, 10**30):
        with pytest.raises(NotFoundError):
            preview(copied, epoch, "sample-1")


def test_links_in_place_of_previews_are_left_out(copied, trained):
    previews = copied / "previews"
    shutil.rmtree(previews / "epoch-001")
    (previews / "epoch-001").symlink_to(trained / "previews" / "epoch-001")
    (previews / "epoch-002" / "sample-1.wav").unlink()
    (previews / "epoch-002" / "sample-1.wav").symlink_to(trained / "previews" / "epoch-002" / "sample-1.wav")
    (found,) = training(copied, 0)["previews"]
    assert found["epoch"] == 2
    assert "sample-1" not in found["sounds"]
    assert "sample-2" in found["sounds"]
    for epoch in (1, 2):
        with pytest.raises(NotFoundError):
            preview(copied, epoch, "sample-1")


def test_the_picture_is_the_best_that_there_is(copied):
    for name in ("reconstruction.png", "latent/map.png", "loss.png"):
        content = (copied / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert picture(copied) == content
        (copied / name).unlink()
    with pytest.raises(NotFoundError, match="no picture yet"):
        picture(copied)


HOLDER = """
import sys, time
from pathlib import Path
from distill.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.readline()
"""


def test_the_lock_of_another_process_is_seen_until_it_ends_or_is_killed(copied):
    for end in (lambda process: process.communicate("\n"), lambda process: process.send_signal(signal.SIGKILL)):
        assert not is_locked(copied)
        command = [sys.executable, "-c", HOLDER, str(copied)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "locked\n"
        assert is_locked(copied)
        assert is_training(copied)
        end(process)
        process.wait(60)
        process.stdin.close()
        process.stdout.close()
    assert (copied / ".lock").exists()  # what the killed process left
    assert not is_locked(copied)


def test_looking_at_a_lock_takes_nothing(copied):
    assert not is_locked(copied)
    assert not (copied / ".lock").exists()
    for content in ("", "x", f"{2**40} {os.uname().nodename}\n"):
        (copied / ".lock").write_text(content)
        assert not is_locked(copied)
    with RunFolder(copied).lock():
        assert is_locked(copied)
        with pytest.raises(RunError, match="locked"), RunFolder(copied).lock():
            pass
    assert not is_locked(copied)
    (copied / ".lock").symlink_to(copied / "run.json")
    assert not is_locked(copied)
    (copied / ".lock").unlink()
    os.mkfifo(copied / ".lock")
    assert not is_locked(copied)
