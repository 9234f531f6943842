"""Folders that distill wrote: left out of a dataset, and refused as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.errors import DatasetError
from distill.index import Dataset, Manifest
from distill.storage import make_output_folder, mark_output, output_folder_of
from scans import age, audio, scan_dataset, update


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(audio(path))
    return path


def old_run(folder: Path) -> None:
    """A run as earlier versions left it, without a mark."""
    for name in ("run.json", "config.toml"):
        put(folder / name)
    put(folder / "previews/epoch-001/sample-1.wav")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset of two recordings with folders of distill among them."""
    root = tmp_path / "dataset"
    put(root / "kick.wav")
    put(root / "deep/er/snare.wav")
    for folder in ("runs/new", "deep/generated", "z"):
        assert make_output_folder(root / folder)
        # Names before and after that of the mark, and more entries than are read at once.
        for number in range(300):
            put(root / folder / f"{number}.wav")
        put(root / folder / "below/further/a.wav")
    old_run(root / "runs/old")
    return root


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("follow_links", [False, True])
def test_folders_that_distill_wrote_are_left_out_and_listed(dataset, workers, follow_links):
    scan = scan_dataset(Manifest(), dataset, workers=workers, follow_links=follow_links)
    assert scan.added == ["deep/er/snare.wav", "kick.wav"]
    assert scan.left_out == ["deep/generated", "runs/new", "runs/old/previews", "z"]
    assert (scan.n_files, scan.faults, scan.skipped) == (2, [], [])


def test_a_rescan_of_an_unchanged_dataset_lists_them_too(dataset):
    manifest = Manifest()
    update(manifest, dataset)
    age(dataset)
    update(manifest, dataset)
    scan = scan_dataset(manifest, dataset)
    assert scan.counts["unchanged"] == scan.n_files == 2
    assert scan.left_out == ["deep/generated", "runs/new", "runs/old/previews", "z"]


def test_files_that_were_used_before_their_folder_was_marked_are_removed(tmp_path):
    put(tmp_path / "kick.wav")
    put(tmp_path / "generated/sample-001.wav")
    manifest = Manifest()
    assert update(manifest, tmp_path).left_out == []
    mark_output(tmp_path / "generated")
    scan = update(manifest, tmp_path)
    assert (scan.removed, scan.left_out) == (["generated/sample-001.wav"], ["generated"])
    (tmp_path / "generated/.distill-output").unlink()
    assert update(manifest, tmp_path).added == ["generated/sample-001.wav"]


@pytest.mark.parametrize("names", [["run.json"], ["config.toml"], ["run.json", "config.toml.bak"], ["x.json"]])
def test_a_folder_named_previews_that_is_not_in_a_run_is_a_part_of_the_dataset(tmp_path, names):
    for name in names:
        put(tmp_path / "mine" / name)
    put(tmp_path / "mine/previews/a.wav")
    scan = scan_dataset(Manifest(), tmp_path)
    assert (scan.added, scan.left_out) == (["mine/previews/a.wav"], [])


def test_recordings_beside_the_files_of_an_old_run_stay_in_the_dataset(tmp_path):
    old_run(tmp_path)
    put(tmp_path / "kick.wav")
    put(tmp_path / "drums/previews/a.wav")
    scan = scan_dataset(Manifest(), tmp_path)
    assert (scan.added, scan.left_out) == (["drums/previews/a.wav", "kick.wav"], ["previews"])
    Dataset(tmp_path).check()


@pytest.mark.parametrize("follow_links", [False, True])
def test_listed_files_in_such_folders_are_skipped_with_the_reason(dataset, follow_links):
    files = ["kick.wav", "z/7.wav", "z/below/further/a.wav", "runs/old/previews/epoch-001/sample-1.wav", "z/none.wav"]
    scan = scan_dataset(Manifest(), dataset, files=files, follow_links=follow_links)
    reason = "in a folder that distill wrote"
    assert [path for path, _, _ in scan.todo] == [b"kick.wav"]
    assert scan.skipped == [(path, reason) for path in sorted(files[1:4])]
    assert scan.faults == [("z/none.wav", "no such file")]


@pytest.mark.parametrize("place", ["runs/new", "runs/new/below", "z/below/further", "runs/old/previews/epoch-001"])
def test_a_dataset_in_such_a_folder_is_refused_with_reason_and_remedy(dataset, place, monkeypatch):
    with pytest.raises(DatasetError, match="distill wrote") as error:
        Dataset(dataset / place).check()
    assert "copy the files to another folder" in error.value.tip
    written = output_folder_of(dataset / place)
    assert str(written) in str(error.value)
    assert (f"remove {written / '.distill-output'}" in error.value.tip) == ("old" not in place)
    monkeypatch.chdir(dataset / place)
    with pytest.raises(DatasetError, match="distill wrote"):
        Dataset(".").check()
    (dataset / "link").symlink_to(dataset / place)
    with pytest.raises(DatasetError, match="distill wrote"):
        Dataset(dataset / "link").check()


def test_a_dataset_that_holds_nothing_else_names_what_was_left_out(tmp_path):
    old_run(tmp_path / "runs/old")
    dataset = Dataset(tmp_path)
    dataset.check()
    with pytest.raises(DatasetError, match="apart from what distill wrote: runs/old/previews"):
        dataset.require_audio(dataset.scan(Manifest()))


def test_only_a_folder_that_holds_nothing_is_marked(tmp_path):
    for kind in ("recording", "folder", "hidden"):
        theirs = tmp_path / kind
        theirs.mkdir()
        {"recording": put, "folder": Path.mkdir, "hidden": put}[kind](
            theirs / {"recording": "a.wav", "folder": "sub", "hidden": ".a"}[kind]
        )
        assert not make_output_folder(theirs)
        assert output_folder_of(theirs) is None
        # But a new folder in it is ours.
        assert make_output_folder(theirs / "x/y")
        assert output_folder_of(theirs / "x/y/z") == (theirs / "x/y").resolve()
        assert output_folder_of(theirs / "x") is None
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        assert make_output_folder(tmp_path / "empty")
        put(tmp_path / "empty/sample-001.wav")
    mark = tmp_path / "empty" / ".distill-output"
    assert "Remove this file" in mark.read_text()


def test_planted_marks_are_not_written_through(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.distill-output").symlink_to(tmp_path / "treasure")
    mark_output(tmp_path / "out")
    assert not (tmp_path / "treasure").exists()
