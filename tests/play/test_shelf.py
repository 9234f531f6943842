"""The shelf keeps what it was given, whoever writes at the same time, and never replaces a file that it cannot read."""

from __future__ import annotations

import json
import multiprocessing
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import pytest

from distill.errors import ConfigError, NotFoundError, RunError, StorageError
from distill.play import shelf as module
from distill.play.shelf import Shelf

SETTINGS = {"seed": 7, "duration": None, "axes": {"1": 0.5}, "sample": {"temperature": 1.0}}
COMMAND = "distill generate runs/first --seed 7"


def test_a_sound_is_kept_renamed_and_removed(tmp_path):
    shelf = Shelf(tmp_path)
    assert shelf.sounds() == []
    assert not (tmp_path / "shelf.json").exists()
    first, second = shelf.add("Bell", SETTINGS, COMMAND), shelf.add("Glöckchen 🔔", SETTINGS | {"seed": 8}, COMMAND)
    assert first == {"id": first["id"], "name": "Bell", "kept": first["kept"], "settings": SETTINGS, "command": COMMAND}
    assert re.fullmatch("[0-9a-f]{8}", first["id"])
    assert first["id"] != second["id"]
    age = datetime.now(timezone.utc) - datetime.fromisoformat(first["kept"])
    assert abs(age.total_seconds()) < 3600
    assert Shelf(tmp_path).sounds() == [first, second]
    assert json.loads((tmp_path / "shelf.json").read_text())["sounds"] == [first, second]
    renamed = shelf.rename(first["id"], "Gong")
    assert renamed == first | {"name": "Gong"}
    assert shelf.sounds() == [renamed, second]
    shelf.remove(first["id"])
    assert shelf.sounds() == [second]


def test_an_unknown_sound_is_named(tmp_path):
    shelf = Shelf(tmp_path)
    shelf.add("Bell", SETTINGS, COMMAND)
    before = (tmp_path / "shelf.json").read_bytes()
    for call in (lambda: shelf.rename("01234567", "x"), lambda: shelf.remove("../shelf")):
        with pytest.raises(NotFoundError, match=r"01234567|\.\./shelf"):
            call()
    assert (tmp_path / "shelf.json").read_bytes() == before


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "\x1b[31m", "a\0", "\x85", 3, None])
def test_a_name_that_is_no_line_of_text_is_refused(tmp_path, name):
    shelf = Shelf(tmp_path)
    entry = shelf.add("x" * 200, SETTINGS, COMMAND)
    before = (tmp_path / "shelf.json").read_bytes()
    for call in (lambda: shelf.add(name, SETTINGS, COMMAND), lambda: shelf.rename(entry["id"], name)):
        with pytest.raises(ConfigError, match="name"):
            call()
    assert (tmp_path / "shelf.json").read_bytes() == before


def test_settings_that_are_no_json_are_refused(tmp_path):
    for settings in ({"seed": float("nan")}, {"seed": {1, 2}}):
        with pytest.raises(ConfigError):
            Shelf(tmp_path).add("Bell", settings, COMMAND)
    assert list(tmp_path.iterdir()) == []


ENTRY = {"id": "0123abcd", "name": "Bell", "kept": "2026-01-01T00:00:00+00:00", "settings": SETTINGS, "command": "x"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"{", "line 1"),
        (b"[]", "no object"),
        (json.dumps({"version": 2, "sounds": []}).encode(), "version=2"),
        (json.dumps({"version": 1, "sounds": [ENTRY, 3]}).encode(), "sound 2"),
        (json.dumps({"version": 1, "sounds": [ENTRY | {"name": "\x1b"}]}).encode(), "sound 1: name"),
        (json.dumps({"version": 1, "sounds": [ENTRY | {"extra": 1}]}).encode(), "extra"),
        (json.dumps({"version": 1, "sounds": [ENTRY, ENTRY]}).encode(), "twice"),
    ],
)
def test_a_damaged_file_is_named_and_stays_as_it_is(tmp_path, content, reason):
    path = tmp_path / "shelf.json"
    path.write_bytes(content)
    shelf = Shelf(tmp_path)
    calls = (shelf.sounds, lambda: shelf.add("Bell", SETTINGS, COMMAND), lambda: shelf.remove(ENTRY["id"]))
    for call in calls:
        with pytest.raises(RunError) as caught:
            call()
        assert str(path) in str(caught.value)
        assert reason in str(caught.value)
        assert "move it away" in caught.value.tip
    assert path.read_bytes() == content


def test_a_link_is_neither_read_nor_written_through(tmp_path):
    run, outside = tmp_path / "run", tmp_path / "outside.json"
    run.mkdir()
    Shelf(tmp_path).add("Bell", SETTINGS, COMMAND)
    (tmp_path / "shelf.json").rename(outside)
    before = outside.read_bytes()
    (run / "shelf.json").symlink_to(outside)
    for call in (Shelf(run).sounds, lambda: Shelf(run).add("Gong", SETTINGS, COMMAND)):
        with pytest.raises(RunError, match=r"shelf\.json"):
            call()
    assert outside.read_bytes() == before


def test_a_full_shelf_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_SOUNDS", 2)
    shelf = Shelf(tmp_path)
    kept = [shelf.add(name, SETTINGS, COMMAND) for name in ("a", "b")]
    with pytest.raises(ConfigError, match=r"full: at most 2 sounds") as caught:
        shelf.add("c", SETTINGS, COMMAND)
    assert "remove" in caught.value.tip
    assert shelf.sounds() == kept
    monkeypatch.setattr(module, "_LARGEST", 1500)
    with pytest.raises(ConfigError, match="full"):
        shelf.rename(kept[0]["id"], "🔔" * 150)
    assert shelf.sounds() == kept


def add_some(folder: Path, of: str) -> None:
    for number in range(10):
        Shelf(folder).add(f"{of}-{number}", SETTINGS, COMMAND)


def test_nothing_is_lost_if_several_processes_and_threads_keep_sounds(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=add_some, args=(tmp_path, f"process {number}")) for number in range(2)]
    for process in processes:
        process.start()
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda number: add_some(tmp_path, f"thread {number}"), range(3)))
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    names = [entry["name"] for entry in Shelf(tmp_path).sounds()]
    kinds = [*(f"process {number}" for number in range(2)), *(f"thread {number}" for number in range(3))]
    assert sorted(names) == sorted(f"{kind}-{number}" for kind in kinds for number in range(10))
    assert [path.name for path in tmp_path.iterdir()] == ["shelf.json"]


def test_a_folder_that_cannot_be_written_is_named(unprivileged):
    run = unprivileged / "run"
    run.mkdir()
    run.chmod(0o500)
    with pytest.raises(StorageError) as caught:
        Shelf(run).add("Bell", SETTINGS, COMMAND)
    assert str(run / "shelf.json") in str(caught.value)
    assert caught.value.tip
