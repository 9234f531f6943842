"""Short flags, and the nearest name for commands, flags, keys and values that do not exist."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from distill.cli import parsing
from distill.cli.main import COMMANDS, load
from instruments import tones, write_run
from sounds import SMALL, write_dataset

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = {
    "train": {"-o": "--out", "-e": "--epochs", "-s": "--seed"},
    "preprocess": {"-e": "--epochs", "-s": "--seed"},
    "generate": {"-o": "--out", "-n": "--count", "-s": "--seed", "-f": "--force"},
    "reconstruct": {"-o": "--out", "-s": "--seed", "-f": "--force"},
    "analyze": {"-s": "--seed"},
    "export": {"-f": "--format"},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    write_dataset(folder := tmp_path_factory.mktemp("dataset"))
    return folder


@pytest.fixture(scope="module")
def tone_run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), tones()[:6], latent_dim=3)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_the_short_flags_of_a_command(run, name):
    code, out, _ = run(name, "--help")
    assert code == 0
    sentence = ", ".join(f"{letter} is {flag}" for letter, flag in SHORT.get(name, {}).items())
    assert (f"Short flags: {sentence}." in out) == bool(sentence)
    assert ("Short flags" in out) == bool(sentence)
    assert all(flag in out.replace(sentence, "") for flag in SHORT.get(name, {}).values())


def test_short_flags_mean_the_long_ones(run, tone_run, tmp_path):
    assert run("generate", tone_run, "--out", tmp_path / "long", "--count", 2, "--seed", 7)[0] == 0
    names = ["sample-001.wav", "sample-002.wav"]
    for form in ("-n 2 -s 7", "-n=2 -s=7 -f", "-n2 -s7 -f"):
        assert run("generate", tone_run, "-o", tmp_path / "short", *form.split())[0] == 0
        assert sorted(path.name for path in (tmp_path / "short").glob("*.wav")) == names
        for name in names:
            assert (tmp_path / "short" / name).read_bytes() == (tmp_path / "long" / name).read_bytes()
    code, _, err = run("generate", tone_run, "-o", tmp_path / "short", "-n2")
    assert (code, "--force" in err) == (2, True)
    sound = tmp_path / "short" / names[0]
    assert run("reconstruct", tone_run, sound, "-o", tmp_path / "back")[0] == 0
    assert soundfile.info(tmp_path / "back" / names[0]).frames == soundfile.info(sound).frames


def test_short_flags_of_training_and_export(run, dataset, tone_run, tmp_path):
    code, _, err = run("train", dataset, "-e", 0, "-s=-1")
    assert code == 2
    assert "epochs=0 must be" in err
    assert "seed=-1 must be" in err
    code, _, err = run("train", dataset, *SMALL, "-o", tone_run)
    assert (code, f"{tone_run}: already holds a run" in err) == (2, True)
    assert run("preprocess", dataset, *SMALL)[0] == 0
    assert run("export", dataset, tmp_path / "rows", "-f", "npy")[0] == 0
    assert (tmp_path / "rows" / "features.npy").exists()


@pytest.mark.parametrize(
    ("argv", "nearest"),
    [
        (["stauts", "DATASET"], "no command 'stauts'; did you mean 'status'?"),
        (["--verison"], "did you mean '--version'?"),
        (["preprocess", "DATASET", "--preset", "quik"], "--preset='quik' must be one of 'default', 'quick', 'large'"),
        (["preprocess", "DATASET", "--preset", "quik"], "did you mean 'quick'?"),
        (["train", "DATASET", "--split-by=flie"], "did you mean 'file'?"),
        (["train", "DATASET", "--cache_dtype", "float61"], "did you mean 'float16'?"),
        (["generate", "DATASET", "-o", "OUT", "--sample-format", "pcm42"], "did you mean 'pcm24'?"),
        (["export", "DATASET", "OUT", "-f", "safetensor"], "did you mean 'safetensors'?"),
        (["train", "DATASET", "--epoch", "3"], "--epochs"),
        (["train", "DATASET", "--n-mels", "3"], "--complex-spectrogram.n-mels"),
        (["status", "DATASET", "--jsno"], "--json"),
        (["generate", "DATASET", "-o", "OUT", "--cuont", "3"], "--count"),
    ],
)
def test_what_does_not_exist_is_an_error_that_names_the_nearest(run, argv, nearest, dataset, tmp_path):
    names = {"DATASET": str(dataset), "OUT": str(tmp_path / "out")}
    code, out, err = run(*(names.get(word, word) for word in argv))
    assert (code, out) == (2, "")
    assert nearest in err
    assert not (tmp_path / "out").exists()


def test_what_resembles_nothing_gets_no_suggestion(run, dataset):
    for argv in (["zzz"], ["preprocess", dataset, "--preset", "zzz"]):
        code, _, err = run(*argv)
        assert code == 2
        assert "zzz" in err
        assert "did you mean" not in err


def test_each_wrong_choice_is_named_and_a_choice_left_open_is_accepted(run, dataset, tone_run, tmp_path):
    code, _, err = run("train", dataset, "--normalize", "fil", "--split-by", "x")
    assert code == 2
    assert "--normalize='fil'" in err
    assert "--split-by='x'" in err
    assert run("generate", tone_run, "-n1", "-o", tmp_path, "--sample-format", "None")[0] == 0


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("latent_dimm", "latent_dim"),
        ("n_mels", "complex_spectrogram.n_mels"),
        ("gain_db", "augmentation.gain_db"),
        ("complex_spectrogram.n_fff", "complex_spectrogram.n_fft"),
    ],
)
def test_a_key_of_a_configuration_file_that_does_not_exist_names_the_nearest(run, dataset, tmp_path, key, nearest):
    config = tmp_path / "config.toml"
    config.write_text(f"{key} = 3\n")
    code, _, err = run("preprocess", dataset, "--config", config)
    assert code == 2
    assert f"{config}: unknown key '{key}'; did you mean '{nearest}'?" in err


def test_words_that_only_begin_like_a_short_flag_are_none(run, tone_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for word in ("-out=new", "-owhere", "-seed=3", "-nine"):
        code, _, err = run("generate", tone_run, word)
        assert code == 2
        assert word.partition("=")[0] in err
    assert list(tmp_path.iterdir()) == []


def test_what_follows_two_dashes_is_a_name(run, tone_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-old.wav", "-fold.wav", "-s"):
        soundfile.write(tmp_path / name, tones()[0], 16_000, format="WAV")
    code, _, err = run("reconstruct", tone_run, "-o", "back", "--", "-old.wav", "-fold.wav", "-s")
    assert code == 0, err
    assert {path.name for path in (tmp_path / "back").glob("*d.wav")} == {"-old.wav", "-fold.wav"}


LINES = [
    ("preprocess", "in"),
    ("preprocess", "in --json --yes --trust stat --cache-dir c --workers 3"),
    ("preprocess", "--complex-spectrogram.n-mels=64 in --no-yes --complex-spectrogram.no-center"),
    ("preprocess", "in --no-complex-spectrogram.center --complex_spectrogram.f_max 8000 --preset quick"),
    ("preprocess", "in --learning-rate 1e-3 --augmentation.gain-db 3 --val-fraction 0.2 --seed 0"),
    ("preprocess", "in --complex-spectrogram.norm slaney --cache-dtype float16 --augmentation-expansion 2"),
    ("preprocess", "in --complex-spectrogram.norm None --augmentation-expansion None"),
    ("preprocess", "in --ray --shard 1/2"),
    ("train", "in --out o -e 3 -s7 --no-analyze --tensorboard --batch-size 8 --no-complex-spectrogram.enabled"),
    ("train", "--dropout .5 in --out=a=b"),
    ("status", "in --follow-links"),
    ("clean", "in --slot a b --older-than 3d"),
    ("export", "in out -f npy"),
    ("export", "in --slot 00ff out"),
    ("generate", "run -o new -n 2 --temperature 0.5 --json --axis 1=2 --axis 2=1"),
    ("generate", "run -o new --from a.wav --to b.wav --steps 3"),
    ("generate", "run -o new --around a.wav --radius 1 --no-force --sample-format pcm16"),
    ("analyze", "run in --seed 3"),
    ("analyze", "run --json"),
    ("reconstruct", "run a.wav b.wav --out o --format flac"),
    ("play", "run --no-browser --port 8000"),
]
USUAL = 15


def read(name, line):
    """Read a command line, without the checks that look at the disk."""
    kind = load(COMMANDS[name].arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "check", lambda arguments: None)
        return parsing.parse(kind, line.split(), "distill")


@pytest.mark.parametrize(("name", "line"), LINES, ids=" ".join)
def test_a_command_line_means_what_tyro_says(name, line, monkeypatch):
    found = read(name, line)
    monkeypatch.setattr(parsing, "read_usual", lambda *arguments: None)
    assert repr(found) == repr(read(name, line))


def test_most_command_lines_need_no_tyro(monkeypatch):
    needed = []
    monkeypatch.setattr(parsing, "_read_with_tyro", lambda *arguments: needed.append(arguments) or read("status", "in"))
    for name, line in LINES:
        read(name, line)
    assert len(LINES) - len(needed) >= USUAL


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("status", ""),
        ("status", "in more"),
        ("status", "in --json=yes"),
        ("status", "in --jsn"),
        ("status", "in --cache-dir"),
        ("status", "in --no-cache-dir"),
        ("preprocess", "in --seed 1.5"),
        ("preprocess", "in --n-mels 3"),
        ("preprocess", "in --learning-rate fast"),
        ("preprocess", "in --seed 1_0_x"),
        ("generate", "run"),
        ("generate", "run --out"),
        ("generate", "run --start a.wav --out o"),
    ],
    ids=" ".join,
)
def test_a_command_line_with_a_fault_is_refused(name, line, run):
    with pytest.raises(SystemExit) as left:
        read(name, line)
    assert left.value.code == 2
