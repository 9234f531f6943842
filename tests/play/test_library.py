"""Which folders are runs, what the listing says of them, and how one is found."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime, timezone
from pathlib import Path

import pytest

from distill.errors import NotFoundError, RunError
from distill.play.library import Library
from distill.play.view import describe
from distill.runs.folder import RunFolder
from sounds import training

pytestmark = pytest.mark.usefixtures("one_thread")


def lines_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_one_run(trained):
    library = Library(trained)
    assert library.single
    (run,) = library.runs()
    assert library.find(trained.name) == trained
    lines = lines_of(trained)
    best = min(lines, key=lambda line: line["val_loss"])
    assert run == {
        "name": trained.name,
        "date": datetime.fromtimestamp(int((trained / "model.safetensors").stat().st_mtime), timezone.utc).isoformat(),
        "epochs": len(lines),
        "val_loss": best["val_loss"],
        "magnitude_r2": best["val_magnitude_r2"],
        "if_r2": best["val_if_r2"],
        "state": "idle",
        "analysis": "ready",
        "playable": True,
        "picture": True,
        "error": None,
    }


def test_a_relative_path_to_one_run_has_its_name(trained, monkeypatch):
    monkeypatch.chdir(trained)
    (run,) = Library(".").runs()
    assert run["name"] == trained.name
    assert Library(".").find(trained.name).samefile(trained)


def test_the_runs_of_a_folder_are_looked_up_again_each_time(copied):
    folder = copied.parent
    library = Library(folder)
    assert not library.single
    assert [run["name"] for run in library.runs()] == ["copied"]
    shutil.copytree(copied, folder / "later")
    os.utime(folder / "later" / "model.safetensors", (2e9, 2e9))
    (folder / "no run").mkdir()
    assert [run["name"] for run in library.runs()] == ["later", "copied"]
    assert library.find("later") == folder / "later"
    shutil.rmtree(folder / "later")
    with pytest.raises(NotFoundError, match="later"):
        library.find("later")


@pytest.mark.parametrize("name", [b"\xff.wav", "näher & <b>\n'".encode(), b"%2e%2e", b"-rf"])
def test_any_name_is_listed_and_found(copied, name):
    path = copied.parent / os.fsdecode(name)
    copied.rename(path)
    library = Library(path.parent)
    (run,) = library.runs()
    assert run["name"] == name.decode("utf-8", "backslashreplace")
    assert run["error"] is None
    assert library.find(run["name"]) == path
    assert describe(path)["name"] == run["name"]


@pytest.mark.parametrize("name", ["..", ".", "", "copied/../copied", "copied/", "/", "copied\0", "outside", "link"])
def test_a_name_is_no_path_and_links_are_left_out(copied, trained, name):
    (copied.parent / "link").symlink_to(trained)
    library = Library(copied.parent)
    assert [run["name"] for run in library.runs()] == ["copied"]
    with pytest.raises(NotFoundError) as caught:
        library.find(name)
    assert caught.value.tip


@pytest.mark.parametrize("file", ["metrics.jsonl", "run.json", "config.toml"])
def test_a_damaged_run_is_listed_with_its_error(copied, trained, file):
    shutil.copytree(trained, copied.parent / "whole")
    (copied / file).write_bytes(b'{"epoch": "three"\n}\n')
    runs = {run["name"]: run for run in Library(copied.parent).runs()}
    assert str(copied / file) in runs["copied"]["error"]
    assert not runs["copied"]["playable"]
    assert (runs["whole"]["error"], runs["whole"]["playable"]) == (None, True)


def test_a_run_that_has_just_begun_cannot_be_played_yet(trained, tmp_path):
    run = RunFolder(tmp_path / "new")
    run.create(training(), RunFolder(trained).dataset())
    (found,) = Library(tmp_path).runs()
    assert (found["playable"], found["error"], found["epochs"], found["picture"]) == (False, None, None, False)
    assert found["analysis"] == "missing"


def test_a_run_that_is_locked_is_training(copied):
    library = Library(copied.parent)
    with RunFolder(copied).lock():
        assert library.runs()[0]["state"] == "training"
    assert library.runs()[0]["state"] == "idle"


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_what_is_no_run_is_named_with_a_remedy(tmp_path, kind):
    path = tmp_path / kind
    if kind == "file":
        path.write_text("")
    if kind == "empty":
        (path / "inner" / "run").mkdir(parents=True)
        (path / "inner" / "run" / "run.json").write_text("{}")  # too deep
    with pytest.raises(RunError) as caught:
        Library(path)
    assert str(path) in str(caught.value)
    assert "folder of a run" in caught.value.tip
