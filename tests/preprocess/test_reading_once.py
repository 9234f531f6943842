"""How often the bytes of a file are read, and what is known of files that were hashed while they were decoded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from distill._native import FileTable
from distill.audio import load_cache_manifest
from distill.index import Dataset
from distill.preprocess.pipeline import preprocess
from distill.preprocess.status import dataset_status
from sounds import CHUNK, age, forbid_decoding, noise, rows_by_path, training, write, write_dataset

pytestmark = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes with /proc/self/io")


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def run(dataset, config=None, **options):
    """Preprocess; return the result, the stages, and the bytes read for each byte of the dataset."""
    stages: list[str] = []
    size = sum(path.stat().st_size for path in Path(dataset).glob("*.*"))
    before = bytes_read()
    result = preprocess(
        dataset, config or training(), progress=lambda stage, *_: stages.append(stage) if stage else None, **options
    )
    return result, set(stages), (bytes_read() - before) / size


def write_long(folder, lengths):
    for number, length in enumerate(lengths):
        write(folder / f"{number}.wav", noise(number, length), subtype="PCM_16")
    return folder


def test_files_of_distinct_sizes_are_read_once_and_others_twice(tmp_path):
    distinct = write_long(tmp_path / "distinct", [1_000_000 + 1_000 * number for number in range(4)])
    same = write_long(tmp_path / "same", [1_000_000] * 4)
    preprocess(write_long(tmp_path / "warm", [CHUNK]), training())
    first, stages, ratio = run(distinct)
    assert ("hash" in stages, "lengths" in stages) == (False, True)
    assert 1 <= ratio <= 1.05
    again, stages, ratio = run(same)
    assert "hash" in stages
    assert 2 <= ratio <= 2.05
    # How a file was hashed makes no difference to its rows.
    np.testing.assert_array_equal(rows_by_path(first.cache_dir)["0.wav"], rows_by_path(again.cache_dir)["0.wav"])
    age(tmp_path)
    run(distinct)  # files that were young when they were read are hashed again
    assert run(distinct)[2] < 0.05


def test_manifest_and_table_of_files_have_the_hash_of_each_file(tmp_path):
    write_dataset(tmp_path)
    result, stages, _ = run(tmp_path)
    assert "hash" not in stages
    files = load_cache_manifest(result.cache_dir)["files"]
    assert {file["path"]: file["content_hash"] for file in files} == {
        os.path.relpath(path, tmp_path): blake3(path.read_bytes()).hexdigest() for path in tmp_path.rglob("*.wav")
    }
    assert len(FileTable.load(tmp_path / ".cache" / "files.json")) == 5
    age(tmp_path)
    # The rows with variants are computed; those without are copied from them.
    preprocess(tmp_path, training(augmentation_expansion=2))
    (tmp_path / "sound-1.wav").rename(tmp_path / "moved.wav")
    again, stages, _ = run(tmp_path)
    assert (again.decoded, again.counts["renamed"], again.counts["unchanged"]) == (0, 1, 4)
    assert "hash" in stages  # its size is that of a known file


def test_copies_are_decoded_once(tmp_path):
    write_dataset(tmp_path)
    shutil.copy(tmp_path / "sound-1.wav", tmp_path / "copy.wav")
    result, stages, _ = run(tmp_path)
    assert (result.decoded, "hash" in stages) == (5, True)
    rows = rows_by_path(result.cache_dir)
    np.testing.assert_array_equal(rows["copy.wav"], rows["sound-1.wav"])


@pytest.mark.parametrize("is_longer", [False, True])
def test_a_changed_file_gets_new_rows_whether_its_size_changed_or_not(tmp_path, is_longer):
    write_dataset(tmp_path)
    preprocess(tmp_path, training())
    age(tmp_path)
    preprocess(tmp_path, training())
    before = (tmp_path / "sound-1.wav").stat().st_size
    write(tmp_path / "sound-1.wav", noise(44, 2 * CHUNK - 100 + 777 * is_longer), subtype="PCM_24")
    assert ((tmp_path / "sound-1.wav").stat().st_size != before) == is_longer
    assert dataset_status(tmp_path)["changed"] == 1
    result, stages, _ = run(tmp_path)
    assert (result.decoded, result.counts["changed"], "hash" in stages) == (1, 1, not is_longer)
    rows = rows_by_path(result.cache_dir)["sound-1.wav"]
    fresh = preprocess(Dataset(tmp_path, cache_dir=tmp_path / ".fresh"), training())
    np.testing.assert_array_equal(rows, rows_by_path(fresh.cache_dir)["sound-1.wav"])
    # A file that was touched has the same bytes, so it is hashed and not decoded.
    age(tmp_path)
    os.utime(tmp_path / "sound-3.wav")
    assert preprocess(tmp_path, training()).decoded == 0


def test_an_interrupted_run_keeps_what_is_finished_without_reading_it_again(tmp_path, monkeypatch):
    write_dataset(tmp_path)
    age(tmp_path)

    def interrupt(stage, current, total):
        if (stage, current) == ("features", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preprocess(tmp_path, training(), workers=1, progress=interrupt)
    kept = load_cache_manifest(tmp_path / ".cache")["files"]
    assert len(kept) == 3
    assert all(file["rows"] == 2 for file in kept)
    result, stages, _ = run(tmp_path)
    assert (result.decoded, result.counts["unchanged"], result.counts["added"]) == (2, 3, 2)
    assert "hash" not in stages
    forbid_decoding(monkeypatch)
    assert run(tmp_path)[0].decoded == 0


def test_a_file_that_changes_between_scan_and_decoding_waits_for_the_next_run(tmp_path):
    """It could have the size, and so the content, of another file by then."""
    paths = write_dataset(tmp_path)

    def grow(stage, current, total):
        if stage == "lengths":
            shutil.copy(paths[0], tmp_path / "sound-1.wav")

    result = preprocess(tmp_path, training(), progress=grow)
    assert (result.skipped, result.decoded) == ([("sound-1.wav", "changed while it was read")], 4)
    again = preprocess(tmp_path, training())
    assert (again.skipped, again.decoded) == ([], 0)
    rows = rows_by_path(again.cache_dir)
    np.testing.assert_array_equal(rows["sound-1.wav"], rows[os.path.relpath(paths[0], tmp_path)])


def test_a_file_that_cannot_be_decoded_is_known_by_its_hash(tmp_path, monkeypatch):
    write_dataset(tmp_path)
    (tmp_path / "text.wav").write_bytes(b"no sound at all " * 999)
    first, stages, _ = run(tmp_path)
    assert "hash" not in stages
    ((path, reason),) = first.skipped
    assert (path, reason.code) == ("text.wav", "not-audio")
    age(tmp_path)
    forbid_decoding(monkeypatch)
    (tmp_path / "text.wav").rename(tmp_path / "renamed.wav")
    assert preprocess(tmp_path, training()).skipped == [("renamed.wav", reason)]


def test_a_folder_that_stands_elsewhere_while_it_is_decoded_is_not_taken_for_the_one_that_was_scanned(tmp_path):
    """Renaming a folder leaves all stamps of the files in it, so a wrong hash would stay for good."""
    dataset, stand_in = tmp_path / "dataset", tmp_path / "stand-in"
    write(dataset / "a" / "x.wav", noise(1), subtype="PCM_16")
    write(dataset / "y.wav", noise(2, 9_000), subtype="PCM_16")
    write(stand_in / "x.wav", noise(3), subtype="PCM_16")
    age(tmp_path)
    moved = []

    def progress(stage, current, total):
        if stage == "lengths" and not moved:
            moved.append((dataset / "a").rename(tmp_path / "away"))
            stand_in.rename(dataset / "a")

    result = preprocess(dataset, training(), progress=progress)
    assert [path for path, _ in result.skipped] == ["a/x.wav"]
    (dataset / "a").rename(stand_in)
    moved[0].rename(dataset / "a")
    found = rows_by_path(preprocess(dataset, training()).cache_dir)
    expected = preprocess(Dataset(dataset, cache_dir=tmp_path / "fresh"), training()).cache_dir
    np.testing.assert_array_equal(found["a/x.wav"], rows_by_path(expected)["a/x.wav"])


def test_a_file_that_becomes_a_copy_while_files_are_hashed_loses_no_rows(tmp_path):
    """Two files of one content are then decoded at once, because the sizes that were scanned differ."""
    first = write(tmp_path / "set" / "a.wav", noise(1, 40 * CHUNK), subtype="PCM_16")
    others = [write(tmp_path / "set" / f"{name}.wav", noise(2, 9_000), subtype="PCM_16") for name in "bz"]
    age(tmp_path)
    content = first.read_bytes()

    def progress(stage, current, total):
        if stage == "hash" and others[1].stat().st_size != len(content):
            others[1].write_bytes(content)

    for _ in range(2):
        result = preprocess(tmp_path / "set", training(), workers=2, progress=progress)
    found = rows_by_path(result.cache_dir)
    assert (len(found["a.wav"]), len(found["z.wav"]), result.rows) == (40, 40, 42)


def test_a_file_that_comes_back_has_the_rows_that_are_still_there(tmp_path):
    write_dataset(tmp_path / "set")
    whole = preprocess(tmp_path / "set", training())
    file = next((tmp_path / "set").rglob("*.wav"))
    file.rename(tmp_path / "away.wav")
    preprocess(tmp_path / "set", training())
    assert dataset_status(tmp_path / "set")["dead_rows"] > 0
    (tmp_path / "away.wav").rename(file)
    back = preprocess(tmp_path / "set", training())
    assert (back.rows, dataset_status(tmp_path / "set")["dead_rows"]) == (whole.rows, 0)
