"""A folder, or a cache, in which somebody means us harm; or only records while we read."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

from distill.audio import load_cache_manifest
from distill.audio.preprocessing import preprocess
from sounds import chunks_by_hand, noise, reseal, rows_by_path, training, write, write_dataset


def test_a_hostile_tree_costs_nothing_but_its_own_files(tmp_path):
    root = tmp_path / "dataset"
    good = write(root / "good.wav", noise(1), subtype="PCM_16")
    os.link(good, root / "linked.wav")
    (root / "copy.wav").write_bytes(good.read_bytes())
    names = [b"\xff\xfe.wav", b"new\nline.wav", "ünï \u202e.wav".encode(), b"-rf *.wav", b"x" * 251 + b".wav"]
    for number, name in enumerate(names):
        write(os.fsencode(root) + b"/" + name, noise(10 + number), subtype="PCM_16")
    (root / "folder.wav").mkdir()
    (root / "empty.wav").touch()
    (root / "text.wav").write_text("no sound")
    os.mkfifo(root / "fifo.wav")
    (root / "loop.wav").symlink_to("loop.wav")
    (root / "device.wav").symlink_to("/dev/zero")
    (root / "out.wav").symlink_to("/etc/passwd")
    (root / "up").symlink_to("..")
    (root / "cut.wav").write_bytes(good.read_bytes()[:-1_000])
    (root / "header.wav").write_bytes(good.read_bytes()[:44])
    with (root / "sparse.wav").open("wb") as file:
        file.truncate(1 << 40)
    result = preprocess(root, training())
    # Three names of one content, and those with names of their own.
    assert result.decoded == 1 + len(names)
    assert result.rows == 1 + len(names)
    reasons = {path: reason.split(":")[0] for path, reason in result.skipped}
    for path, start in {
        "empty.wav": "empty",
        "text.wav": "not an audio",
        "fifo.wav": "not a regular",
        "loop.wav": "a link that leads nowhere",
        "device.wav": "a link that leads out",
        "out.wav": "a link that leads out",
        "cut.wav": "cut short",
        "header.wav": "",
        "sparse.wav": "too large",
    }.items():
        assert reasons.pop(path).startswith(start), path
    assert reasons == {}
    again = preprocess(root, training())
    assert (again.decoded, again.rows, again.skipped) == (0, result.rows, result.skipped)
    # With links followed, what they lead to is looked at with the same eyes.
    followed = dict(preprocess(root, training(), follow_links=True).skipped)
    assert followed["device.wav"] == "not a regular file"
    assert followed["out.wav"].startswith("not an audio file")


def test_a_file_that_is_written_meanwhile_is_not_taken_for_what_it_was(tmp_path):
    """Whatever was read of it, when the recording has ended its rows are those of what it holds."""
    root = tmp_path / "dataset"
    write_dataset(root)
    whole = write(tmp_path / "whole.wav", noise(5, 40_000), subtype="PCM_16").read_bytes()
    growing, stop = root / "growing.wav", threading.Event()

    def record() -> None:
        while not stop.is_set():
            with growing.open("wb") as file:
                for start in range(0, len(whole), 2_000):
                    file.write(whole[start : start + 2_000])
                    file.flush()
            os.truncate(growing, 30_000)

    recorder = threading.Thread(target=record)
    recorder.start()
    for _ in range(5):
        assert preprocess(root, training()).rows >= 10
    stop.set()
    recorder.join()
    growing.write_bytes(whole)
    result = preprocess(root, training())
    assert result.rows == 15
    rows = rows_by_path(result.cache_dir)["growing.wav"]
    preprocess(root, training(), cache_dir=tmp_path / "anew")
    np.testing.assert_array_equal(rows, rows_by_path(tmp_path / "anew")["growing.wav"])
    assert len(chunks_by_hand(growing)) == len(rows) == 5


class Planted:
    def __reduce__(self):
        return (os.mkdir, (str(Path(__file__).with_name("planted")),))


@pytest.mark.parametrize(
    "edit",
    [
        lambda line: line.replace('"name":"', '"name":"../packs/'),
        lambda line: line.replace('"name":"', '"name":"/etc/'),
        lambda line: line.replace('"rows":10,"bytes"', '"rows":9223372036854775808,"bytes"'),
        lambda line: line.replace('"segments":[[0,', '"segments":[[1,'),
        lambda line: line.replace('"sums":[', '"sums":[NaN,'),
        lambda line: line.replace('"path":"sound-1.wav"', '"path":"../sound-1.wav"'),
        lambda line: line.replace('"path":"sound-3.wav"', '"path":"sound-1.wav"'),
        lambda line: line.replace('"version":1', '"version":2'),
    ],
    ids=["..", "absolute", "overflow", "no such pack", "NaN", "file above", "twice", "version"],
)
def test_a_forged_manifest_is_refused_and_made_anew(tmp_path, edit):
    root = tmp_path / "dataset"
    write_dataset(root)
    manifest = preprocess(root, training()).cache_dir / "manifest.json"
    before = manifest.read_bytes()
    reseal(manifest, lambda line: line)
    assert manifest.read_bytes() == before
    reseal(manifest, edit)
    assert manifest.read_bytes() != before
    assert load_cache_manifest(root / ".cache") is None
    assert preprocess(root, training()).decoded == 5


@pytest.mark.parametrize("name", ["manifest.json", "lock", "packs/pack", "packs/000.pt", "stats.pkl"])
def test_a_planted_pickle_is_never_loaded(tmp_path, name):
    root = tmp_path / "dataset"
    write_dataset(root)
    cache_dir = preprocess(root, training()).cache_dir
    (pack,) = (cache_dir / "packs").iterdir()
    (pack if name == "packs/pack" else cache_dir / name).write_bytes(pickle.dumps(Planted()))
    assert preprocess(root, training()).decoded == (5 if name in ("manifest.json", "packs/pack") else 0)
    assert len(rows_by_path(cache_dir)) == 5
    assert not Path(__file__).with_name("planted").exists()


def test_a_link_in_place_of_a_pack_is_not_written_through(tmp_path):
    root = tmp_path / "dataset"
    write_dataset(root)
    cache_dir = preprocess(root, training()).cache_dir
    (pack,) = (cache_dir / "packs").iterdir()
    mine = tmp_path / "mine"
    mine.write_text("precious")
    pack.unlink()
    pack.symlink_to(mine)
    assert preprocess(root, training()).decoded == 5
    assert mine.read_text() == "precious"
    assert not pack.is_symlink()
