"""What distill writes into a dataset is not trained on: runs, generated sounds, reconstructions."""

from __future__ import annotations

import pytest

from distill.index import Dataset, Manifest
from distill.storage import MARK_NAME
from instruments import PITCHES, tones, write_run
from sounds import SMALL, noise, one_object, sine, write, write_dataset

TRAIN = (*SMALL, "--epochs", "1", "--preview-epochs", "1", "--latent-dim", "4", "--batch-size", "4", "--no-analyze")
CPU = ("--device", "cpu")


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    """A dataset that is the working directory."""
    write_dataset(tmp_path / "RECORDINGS")
    monkeypatch.chdir(tmp_path / "RECORDINGS")
    return tmp_path / "RECORDINGS"


@pytest.fixture(scope="module")
def tone_run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("tones") / "run", tones())


def files_of(recordings) -> int:
    return Dataset(recordings).scan(Manifest()).n_files


def test_a_run_inside_its_dataset_is_not_a_part_of_it(run, recordings):
    code, out, err = run("train", ".", *TRAIN)
    assert (code, err) == (0, "")
    (run_dir,) = (recordings / "runs").iterdir()
    assert len(list(run_dir.glob("previews/*/*.wav"))) >= 2
    name = f"runs/{run_dir.name}"
    again = one_object(*run("status", ".", "--json"))
    assert (again["files"], again["unchanged"], again["added"]) == (5, 5, 0)

    code, out, _ = run("train", ".", *TRAIN, "--out", "runs/again")
    assert code == 0
    assert "5 audio files (5 unchanged)" in out
    assert f"left out 2 folders that distill wrote: {name}, runs/again" in out

    # A run of an earlier version has no mark.
    for mark in recordings.rglob(MARK_NAME):
        mark.unlink()
    code, out, _ = run("preprocess", ".", *SMALL)
    assert code == 0
    assert f"left out 2 folders that distill wrote: {name}/previews, runs/again/previews" in out
    assert files_of(recordings) == 5


@pytest.mark.parametrize("command", ["train", "preprocess", "status", "verify"])
def test_a_dataset_that_distill_wrote_is_refused(run, tone_run, tmp_path, command):
    assert run("generate", tone_run, "--out", tmp_path / "out", "--count", "1", *CPU)[0] == 0
    code, _, err = run(command, tmp_path / "out")
    assert code == 2
    assert f"{tmp_path / 'out'}: not a dataset: distill wrote" in err
    assert f"remove {tmp_path / 'out' / MARK_NAME}" in err
    (tmp_path / "out" / MARK_NAME).unlink()
    assert Dataset(tmp_path / "out").scan(Manifest()).n_files == 1
    Dataset(tmp_path / "out").check()


def test_generated_and_reconstructed_sounds_in_a_new_folder_are_not_a_part_of_the_dataset(run, recordings, tone_run):
    tone = write(recordings / "tone.wav", sine(PITCHES[2], 1.0))
    assert run("generate", tone_run, "--out", "new/generated", "--count", "2", *CPU)[0] == 0
    assert run("reconstruct", tone_run, tone, "--out", "reconstructed", *CPU)[0] == 0
    # Again into the same folder, which is ours, although it is not empty.
    code, out, _ = run("generate", tone_run, "--out", "new/generated", "--count", "3", "--force", *CPU)
    assert code == 0
    assert "in the dataset" not in out
    assert files_of(recordings) == 6
    assert len(list(recordings.glob("new/generated/*.wav"))) == 3


def test_a_folder_with_recordings_is_not_marked_and_a_warning_says_so(run, recordings, tmp_path):
    made = write_run(tmp_path / "run", tones())
    (made / "run.json").write_text(
        (made / "run.json").read_text().replace(f'"dataset": "{made}"', f'"dataset": "{recordings}"')
    )
    for out in (".", "deep"):
        code, text, err = run("generate", made, "--out", out, "--count", "1", *CPU)
        assert (code, err) == (0, "")
        assert f"warning: {out} is in the dataset of this run and holds other files" in text
    # Nothing of the user's is hidden by what was written.
    assert files_of(recordings) == 7
    assert list(recordings.rglob(MARK_NAME)) == []
    # Elsewhere there is nothing to warn of.
    write(tmp_path / "elsewhere" / "a.wav", noise(1))
    code, text, _ = run("generate", made, "--out", tmp_path / "elsewhere", "--count", "1", *CPU)
    assert code == 0
    assert "warning" not in text
    assert files_of(tmp_path / "elsewhere") == 2


def test_a_run_in_a_folder_with_recordings_hides_none_of_them(run, recordings):
    """The run folder is the dataset itself: only the previews are left out."""
    code, out, err = run("train", ".", *TRAIN, "--out", ".")
    assert (code, err) == (0, "")
    assert list(recordings.glob("previews/*/*.wav"))
    code, out, _ = run("preprocess", ".", *SMALL)
    assert code == 0
    assert "left out 1 folder that distill wrote: previews" in out
    assert files_of(recordings) == 5


def test_a_failed_training_leaves_no_folder_with_a_mark(run, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    code, _, err = run("train", ".", *TRAIN)
    assert code == 2
    assert "no audio" in err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_reconstructions_of_sounds_with_the_longest_names(run, tone_run, tmp_path):
    """The new name may not be longer than the file system allows, nor may that of a temporary file."""
    samples = sine(PITCHES[1], 0.6)
    sources = [
        write(tmp_path / "in" / ("a" * 243 + ".wav"), samples),  # 247 bytes
        write(tmp_path / "in" / ("b" * 251 + ".wav"), samples),
        write(tmp_path / "in" / ("c" * 252 + ".au"), samples),
        write(tmp_path / "in" / ("é" * 126 + ".au"), samples),
        write(tmp_path / "more" / ("b" * 251 + ".wav"), samples),
    ]
    result = one_object(*run("reconstruct", tone_run, *sources, "--out", tmp_path / "out", "--json", *CPU))
    assert result["skipped"] == []
    # What " (original).wav" leaves of 255 bytes.
    names = ["a" * 240, "b" * 240, "c" * 240, "é" * 120, "b" * 238 + "-2"]
    assert result["files"] == [str(tmp_path / "out" / f"{name}.wav") for name in names]
    assert result["originals"] == [str(tmp_path / "out" / f"{name} (original).wav") for name in names]
    found = {path.name for path in (tmp_path / "out").iterdir()}
    kinds = (".wav", ".png", " (original).wav")
    assert found == {MARK_NAME, *(f"{name}{kind}" for name in names for kind in kinds)}


@pytest.mark.parametrize("planted", [".distill-0123456789abcdef.tmp", ".step-000000002.pt.partial"])
def test_what_a_killed_training_left_is_removed_when_it_is_resumed(run, recordings, planted):
    assert run("train", ".", *TRAIN, "--out", "runs/a")[0] == 0
    for folder in ("checkpoints", ".", "previews/epoch-002"):
        (recordings / "runs/a" / folder).mkdir(exist_ok=True)
        (recordings / "runs/a" / folder / planted).write_bytes(b"half")
    assert run("train", "--resume", "runs/a", "--epochs", "2")[0] == 0
    assert list(recordings.rglob(planted)) == []
