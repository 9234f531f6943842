"""Datasets and caches made to do harm, and a file that is written while it is read."""

from __future__ import annotations

import json
import os
import pickle
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.audio import load_cache_manifest
from distill.index import Dataset
from distill.preprocess.pipeline import preprocess
from sounds import (
    SMALL,
    chunks_by_hand,
    noise,
    one_object,
    reseal,
    rows_by_path,
    slot_of,
    training,
    write,
    write_dataset,
)


def test_hostile_files_are_skipped_and_the_others_are_processed(tmp_path):
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
    # One content has three names; the others have one each. Of the file that is cut, the part that is there is used.
    assert result.decoded == 2 + len(names)
    assert result.rows == 2 + len(names)
    assert [(path, reason.code) for path, reason in result.partial] == [("cut.wav", "cut-short")]
    reasons = {path: reason.split(":")[0] for path, reason in result.skipped}
    for path, start in {
        "empty.wav": "empty",
        "text.wav": "not an audio",
        "fifo.wav": "not a regular",
        "loop.wav": "a link that leads nowhere",
        "device.wav": "a link that leads out",
        "out.wav": "a link that leads out",
        "header.wav": "",
        "sparse.wav": "too large",
    }.items():
        assert reasons.pop(path).startswith(start), path
    assert reasons == {}
    again = preprocess(root, training())
    assert (again.decoded, again.rows, again.skipped) == (0, result.rows, result.skipped)
    # With links followed, the same rules apply to their targets.
    followed = dict(preprocess(Dataset(root, follow_links=True), training()).skipped)
    assert followed["device.wav"] == "not a regular file"
    assert followed["out.wav"].startswith("not an audio file")


def test_a_file_written_during_preprocessing_gets_the_rows_of_its_final_content(tmp_path):
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
    preprocess(Dataset(root, cache_dir=tmp_path / "new"), training())
    np.testing.assert_array_equal(rows, rows_by_path(tmp_path / "new")["growing.wav"])
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
        lambda line: line.replace('"version":3', '"version":0'),
        lambda line: re.sub(r'"sums":\[.*?\]', '"sums":[1,1e308,1e308,1e308,1e308]', line),
        lambda line: line.replace('"rows":10,"bytes"', '"rows":11,"bytes"'),
    ],
    ids=["..", "absolute", "overflow", "no such pack", "NaN", "file above", "twice", "version", "sums", "rows"],
)
def test_a_forged_manifest_is_refused_and_replaced(tmp_path, edit):
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


def having(*keys: str, value: Any = None):
    """Return an edit of the header that sets the entry at `keys`, or removes it if there is no value."""

    def edit(header: str) -> str:
        values = inner = json.loads(header)
        for key in keys[:-1]:
            inner = inner[key]
        if value is None:
            del inner[keys[-1]]
        else:
            assert inner.get(keys[-1]) != value
            inner[keys[-1]] = value
        return json.dumps(values)

    return edit


def with_more(text: str):
    """Return an edit of the header that adds text at its end."""
    return lambda header: header[:-1] + text + "}"


HEADERS = {
    "empty": lambda header: "{}",
    "deep": with_more(',"a":' + "[" * 100_000 + "]" * 100_000),
    "deep in little": with_more(',"a":' + "[" * 20_000 + "]" * 20_000),
    "long integer": with_more(',"a":' + "1" * 5_000),
    "large integer": with_more(f',"a":{1 << 63}'),
    "NaN": with_more(',"a":NaN'),
    "huge": with_more(',"a":"' + "x" * 5_000_000 + '"'),
    "key twice": with_more(',"row_shape":[2,32,32]'),
    "key twice inside": lambda header: header.replace('"n_fft"', '"n_mels": 32, "n_fft"', 1),
    "no statistics": having("normalization_stats"),
    "no total": having("total_spectrograms"),
    "no identity": having("identity"),
    "no dtype": having("identity", "dtype"),
    "no creation": having("created"),
    "other total": having("total_spectrograms", value=0),
    "total is true": having("total_spectrograms", value=True),
    "total as text": having("total_spectrograms", value="10"),
    "size beyond floats": having("cache_size_bytes", value=10**400),
    "statistics of nothing": having("normalization_stats", value={}),
    "deviation 0": having("normalization_stats", "mag_std", value=0.0),
    "mean as text": having("normalization_stats", "mag_mean", value="x"),
    "shape as text": having("row_shape", value="abc"),
    "shape negative": having("row_shape", value=[2, -32, -32]),
    "shape beyond memory": having("row_shape", value=[2, 2**62, 2**62]),
    "other shape": having("row_shape", value=[2, 16, 64]),
    "dtype unknown": having("dtype", value="float64"),
    "dtype of objects": having("identity", "dtype", value="O"),
    "normalize unknown": having("identity", "normalize", value="loud"),
    "variants below 0": having("identity", "augmentation_expansion", value=-1),
    "chunks below 0": having("identity", "chunk_samples", value=-8_000),
    "chunks beyond memory": having("identity", "chunk_samples", value=10**12),
    "identity a number": having("identity", value=5),
    "identity empty": having("identity", value={}),
    "identity with more": having("identity", "evil", value=1),
    "configuration a list": having("complex_spectrogram_config", value=[1]),
    "configuration with more": having("complex_spectrogram_config", "evil", value=1),
    "configuration impossible": having("complex_spectrogram_config", "n_fft", value=1_001),
    "other configuration": having("complex_spectrogram_config", "if_masking_threshold", value=0.5),
    "augmentation a number": having("identity", "augmentation_config", value=5),
    "augmentation with more": having("identity", "augmentation_config", value={"evil": 1}),
    "fingerprint a number": having("config_fingerprint", value=5),
    "other fingerprint": having("config_fingerprint", value="0" * 64),
    "creation a list": having("created", value=[1]),
    "creation an escape": having("created", value="\x1b[2J"),
    "choice a number": having("expansion_is_chosen", value=7),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_forged_header_is_refused_by_every_command_and_replaced(tmp_path, run, name):
    root = tmp_path / "dataset"
    write_dataset(root)
    one_object(*run("preprocess", root, *SMALL, "--json"))
    manifest, start = slot_of(root) / "manifest.json", '"header":'
    before = rows_by_path(root / ".cache")
    forged = []

    def edit(line: str) -> str:
        if not line.startswith(start):
            return line
        forged.append(HEADERS[name](line[len(start) : -1]))
        return start + forged[0] + ","

    reseal(manifest, edit)
    assert len(forged) == 1
    for command in (["verify"], ["verify", "--repair"], ["clean"], ["export", tmp_path / "out"]):
        code, _, err = run(command[0], root, *command[1:])
        assert code == 1, command
        assert "no valid cache here: manifest.json: " in err
        assert "tip: run: distill preprocess" in err
    assert not (tmp_path / "out").exists()
    assert load_cache_manifest(root / ".cache") is None
    status = one_object(*run("status", root, "--json"))
    assert (status["added"], status["rows"]) == (5, 0)
    assert status["damage"]
    code, out, _ = run("status", root)
    assert code == 0
    assert f"cannot be used: {status['damage']}\n" in out
    code, out, _ = run("preprocess", root, *SMALL)
    assert code == 0
    reason = status["damage"].removeprefix("manifest.json: ")
    assert out.count(f"warning: {manifest}: {reason}; its features are computed again") == 1
    assert "\x1b" not in out
    assert one_object(*run("status", root, "--json"))["damage"] is None
    assert run("verify", root)[0] == 0
    after = rows_by_path(root / ".cache")
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[path], rows) for path, rows in before.items())


def test_a_manifest_with_a_huge_pack_allocates_no_memory(tmp_path, run):
    """The forged manifest is consistent, but the pack on disk is smaller than it says."""
    root = tmp_path / "dataset"
    write_dataset(root)
    one_object(*run("preprocess", root, *SMALL, "--json"))
    before = rows_by_path(root / ".cache")

    def edit(line: str) -> str:
        if line.startswith('"header":'):
            assert '"dead_rows": 0' in line
            return line.replace('"dead_rows": 0', f'"dead_rows": {(1 << 60) - 10}')
        return line.replace('"rows":10,"bytes"', f'"rows":{1 << 60},"bytes"')

    reseal(slot_of(root) / "manifest.json", edit)
    assert load_cache_manifest(root / ".cache")["dead_rows"] > 1 << 59
    for command in (["verify"], ["export", tmp_path / "out"]):
        code, out, err = run(command[0], root, *command[1:])
        assert code == 1, command
        assert "bytes" in out + err
    assert run("verify", root, "--repair")[0] == 0
    after = rows_by_path(root / ".cache")
    assert all(np.array_equal(after[path], rows) for path, rows in before.items())


@pytest.mark.parametrize("name", ["manifest.json", "files.json", "lock", "packs/pack", "packs/000.pt", "stats.pkl"])
def test_a_planted_pickle_is_never_loaded(tmp_path, name):
    root = tmp_path / "dataset"
    write_dataset(root)
    cache_dir = preprocess(root, training()).cache_dir
    (pack,) = (cache_dir / "packs").iterdir()
    place = root / ".cache" if name in ("lock", "files.json") else cache_dir
    (pack if name == "packs/pack" else place / name).write_bytes(pickle.dumps(Planted()))
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
