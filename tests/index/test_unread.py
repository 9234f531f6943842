"""Files with another audio or video extension: counted by kind and named, never in silence."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest

from distill.errors import DatasetError, NothingUsableError
from distill.extensions import AUDIO_EXTENSIONS, FFMPEG_EXTENSIONS, read_extensions, unread_extensions, unread_lines
from distill.index import Dataset, Manifest
from distill.preprocess.pipeline import preprocess
from distill.storage import make_output_folder
from distill.training.data import TrainingData
from scans import scan_dataset
from sounds import SMALL, one_object, training, write_dataset

INSTALL = "pip install 'distill[ffmpeg]'"


def touch(path: Path, count: int = 1) -> None:
    for number in range(count):
        each = path.with_name(path.name.replace("*", str(number)))
        each.parent.mkdir(parents=True, exist_ok=True)
        each.write_bytes(b"anything")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A musician's folder: kinds that are not read among others that nobody wants to hear of."""
    root = tmp_path / "dataset"
    write_dataset(root, 2)
    touch(root / "loops/*.rx2", 3)
    touch(root / "Loops/*.REX", 2)
    touch(root / "old/take *.Sd2", 4)
    touch(root / "deep/er/session.aup3")
    for name in (
        *("kick.wav.asd", "song.als", "mix.reapeaks", "notes.txt", "cover.jpg", "song.mid", "set.cue", "x.wvc"),
        *("._kick.wav", ".DS_Store", ".hidden.rx2", "rx2", "rx2.txt", ".cache/x.rx2", ".trash/y.sd2", "main.ts"),
    ):
        touch(root / "other" / name)
    (root / "folder.rx2").mkdir()
    return root


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("follow_links", [False, True])
def test_kinds_are_counted_in_any_case(folder, workers, follow_links):
    scan = scan_dataset(Manifest(), folder, workers=workers, follow_links=follow_links)
    assert scan.unread == {"aup3": 1, "rex": 2, "rx2": 3, "sd2": 4}
    assert (scan.n_files, scan.skipped, scan.faults) == (2, [], [])


def test_a_rescan_counts_them_too_and_a_list_of_files_does_not(folder):
    manifest = Manifest()
    manifest.apply(scan_dataset(manifest, folder))
    assert scan_dataset(manifest, folder).unread == {"aup3": 1, "rex": 2, "rx2": 3, "sd2": 4}
    assert scan_dataset(manifest, folder, files=["sound-1.wav"]).unread == {}


def test_files_in_folders_that_distill_wrote_do_not_count(folder):
    # More entries than are read at once, with names before and after that of the mark.
    assert make_output_folder(folder / "written")
    touch(folder / "written/*.sd2", 300)
    touch(folder / "written/.../below.sd2")
    assert scan_dataset(Manifest(), folder).unread["sd2"] == 4


def test_each_extension_is_listed_once_in_lower_case_and_without_a_dot():
    every = [*read_extensions(), *unread_extensions()]
    assert max(Counter(every).values()) == 1
    assert {*AUDIO_EXTENSIONS, *FFMPEG_EXTENSIONS} <= set(every)
    assert all(extension == extension.lower() and "." not in extension and extension for extension in every)
    wanted = {"wma", "wv", "webm", "mkv", "mka", "tta", "ac3", "ape", "mpc", "amr", "mp4", "mov", "avi", "dsf", "dff"}
    assert wanted <= set(FFMPEG_EXTENSIONS)
    assert {"m4a", "aac", "mp2", "caf", "sph", "voc", "bw64", "snd", "wav", "aiff"} <= set(AUDIO_EXTENSIONS)
    # Not audio, or no more than what belongs to a file that is.
    assert not {"mid", "asd", "reapeaks", "cue", "als", "ts", "txt", "nki", "wvc"} & set(every)


def test_a_line_names_the_kind_and_a_true_remedy():
    lines = unread_lines({"wma": 20, "rx2": 1, "aax": 2})
    assert lines == [
        f"20 .wma files are not read: {INSTALL}",
        "1 .rx2 file is not read: export WAV from a program that opens them",
        "2 .aax files are not read: they are protected against copying",
    ]


def test_what_ffmpeg_reads_is_named_with_the_package_to_install(folder, run, monkeypatch):
    monkeypatch.setattr("distill.extensions.has_ffmpeg", lambda **options: False)
    touch(folder / "videos/*.MP4", 20)
    touch(folder / "track.stem.mp4")
    for command in (("preprocess", *SMALL), ("status",)):
        _, out, _ = run(command[0], folder, *command[1:])
        assert f"21 .mp4 files are not read: {INSTALL}\n" in out
        assert one_object(*run(command[0], folder, *command[1:], "--json"))["unread"]["mp4"] == 21


def test_commands_show_the_kinds_in_words_and_in_json(folder, run):
    expected = {"aup3": 1, "rex": 2, "rx2": 3, "sd2": 4}
    lines = unread_lines(expected)
    _, out, _ = run("preprocess", folder, *SMALL)
    assert all(out.count(f"warning: {line}\n") == 1 for line in lines)
    assert one_object(*run("preprocess", folder, *SMALL, "--json"))["unread"] == expected
    _, out, _ = run("status", folder)
    assert all(f"  {line}\n" in out for line in lines)
    assert one_object(*run("status", folder, "--json"))["unread"] == expected
    assert not any(name in out for name in ("asd", "DS_Store", "reapeaks", "._kick"))


def test_the_one_channel_path_names_them_too(folder, caplog):
    caplog.set_level(logging.INFO, "distill")
    TrainingData.from_audio(Dataset(folder), training())
    assert set(unread_lines({"aup3": 1, "rex": 2, "rx2": 3, "sd2": 4})) <= set(caplog.messages)


def test_a_folder_of_nothing_else_says_so(tmp_path):
    touch(tmp_path / "a/*.rx2", 3)
    for use in (preprocess, TrainingData.from_audio):
        with pytest.raises(DatasetError, match="no audio that distill reads in this folder") as caught:
            use(Dataset(tmp_path), training())
        assert str(caught.value).endswith("\n  3 .rx2 files are not read: export WAV from a program that opens them")
        assert "wav, " in caught.value.tip
    assert not (tmp_path / ".cache").exists()


def test_a_folder_of_such_files_and_unusable_ones_says_both(tmp_path):
    touch(tmp_path / "a/*.rx2", 3)
    touch(tmp_path / "text.wav")
    reason = r"(?s)no file could be used.*text\.wav: .*\n  3 \.rx2 files are not read"
    with pytest.raises(NothingUsableError, match=reason):
        preprocess(tmp_path, training())
