"""``distill preprocess``, ``status`` and ``train``: output, exit status, errors and options.

Commands run in this process, except where only a new one proves the point.
"""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest

from distill import train
from distill.audio import load_cache_manifest
from distill.cli.main import main
from distill.cli.progress import ProgressView
from distill.preprocess.pipeline import preprocess
from distill.preprocess.status import dataset_status
from distill.preprocess.verify import verify
from sounds import CHUNK, SMALL, forbid_decoding, noise, one_object, slot_of, training, write, write_dataset

PREPROCESS_KEYS = [
    *(
        "adopted",
        "cache_dir",
        "channels",
        "decoded",
        "normalization_stats",
        "partial",
        "rows",
        "seconds",
        "skipped",
        "unread",
    )
]
STATUS_KEYS = [
    *("partial", "unread"),
    *("added", "bytes", "cache_dir", "changed", "damage", "dead_rows", "files", "removed", "renamed", "rows"),
    *("skipped", "skipped_files", "unchanged", "slots", "leftover", "left_out"),
]


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path / "dataset")
    return tmp_path / "dataset"


def test_preprocess_json(run, dataset):
    write(dataset / "zero.wav", np.zeros(0))
    code, out, err = run("preprocess", dataset, *SMALL, "--json")
    result = one_object(code, out, err)
    assert sorted(result) == PREPROCESS_KEYS
    manifest = load_cache_manifest(result["cache_dir"])
    assert (result["decoded"], result["rows"]) == (5, manifest["total_spectrograms"]) == (5, 10)
    assert result["normalization_stats"] == manifest["normalization_stats"]
    assert result["skipped"] == [{"path": "zero.wav", "reason": "holds no samples", "code": "no-samples"}]
    assert 0 < result["seconds"] < 60
    assert "zero.wav: holds no samples" in err
    again = one_object(*run("preprocess", dataset, *SMALL, "--json"))
    assert (again["decoded"], again["rows"]) == (0, 10)


def test_preprocess_in_words(run, dataset):
    code, out, err = run("preprocess", dataset, *SMALL)
    assert (code, err) == (0, "")
    assert "5 added" in out
    assert "10 rows" in out
    assert "5 files decoded" in out
    code, out, _ = run("preprocess", dataset, *SMALL)
    assert code == 0
    assert "nothing had to be decoded" in out
    other = [argument if argument != "32" else "40" for argument in SMALL]
    _, out, _ = run("preprocess", dataset, *other)
    assert "n_mels was 32, is 40" in out


def test_status_json(run, dataset, monkeypatch):
    forbid_decoding(monkeypatch)
    result = one_object(*run("status", dataset, "--json"))
    assert sorted(result) == sorted(STATUS_KEYS)
    assert (result["files"], result["added"], result["rows"], result["bytes"]) == (5, 5, 0, 0)
    monkeypatch.undo()
    assert not (dataset / ".cache").exists()
    run("preprocess", dataset, *SMALL)
    forbid_decoding(monkeypatch)
    before = {path: path.read_bytes() for path in (dataset / ".cache").rglob("*") if path.is_file()}
    write(dataset / "new.wav", noise(9))
    write(dataset / "sound-1.wav", noise(10))
    (dataset / "sound-3.wav").rename(dataset / "moved.wav")
    (dataset / "deep" / "er" / "sound-0.wav").unlink()
    (dataset / "empty.wav").touch()
    result = one_object(*run("status", dataset, "--json"))
    counts = {"files": 6, "added": 1, "changed": 1, "renamed": 1, "removed": 1, "unchanged": 2, "skipped": 1}
    assert {name: result[name] for name in counts} == counts
    assert result["rows"] == 10
    ((path, reason, _),) = (entry.values() for entry in result["skipped_files"])
    assert (path, reason) == ("empty.wav", "empty file")
    assert result["bytes"] == sum(path.stat().st_size for path in slot_of(dataset).rglob("*") if path.is_file())
    assert before == {path: path.read_bytes() for path in (dataset / ".cache").rglob("*") if path.is_file()}
    code, out, _ = run("status", dataset)
    assert code == 0
    assert "6 audio files (2 unchanged, 1 added, 1 changed, 1 renamed, 1 removed)" in out
    assert "empty.wav: empty file" in out


def test_cache_dir(run, dataset, tmp_path):
    result = one_object(*run("preprocess", dataset, *SMALL, "--json", "--cache-dir", tmp_path / "elsewhere"))
    assert result["cache_dir"] == str(slot_of(tmp_path / "elsewhere"))
    assert not (dataset / ".cache").exists()
    assert one_object(*run("status", dataset, "--json"))["rows"] == 0
    assert one_object(*run("status", dataset, "--json", "--cache-dir", tmp_path / "elsewhere"))["unchanged"] == 5


def test_names_that_are_not_unicode_in_a_new_process(tmp_path):
    """On an ASCII terminal, and with bytes that no terminal can show."""
    root = tmp_path / "dataset"
    write(os.fsencode(root) + b"/\xff\xe9 name.wav", np.zeros(CHUNK))
    write(os.fsencode(root) + "/ünï\n.wav".encode(), np.zeros(0))
    write(root / "good.wav", noise(1))
    code = "import sys; from distill.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "preprocess", root, *SMALL, "--json"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(command, capture_output=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert done.stdout.count(b"\n") == 1
    result = json.loads(done.stdout)
    skipped = {os.fsencode(entry["path"]) for entry in result["skipped"]}
    assert skipped == {b"\xff\xe9 name.wav", "ünï\n.wav".encode()}
    assert b"Traceback" not in done.stderr
    assert rb"\udcff\udce9 name.wav: silent" in done.stderr


@pytest.mark.parametrize("command", ["preprocess", "status"])
def test_a_folder_without_audio_is_an_error_with_a_remedy(run, tmp_path, command):
    (tmp_path / "file.wav").write_text("a file")
    (tmp_path / "empty").mkdir()
    cases = {"none": "no such folder", "file.wav": "not a folder", "empty": "no audio"}
    for name, reason in cases.items():
        code, out, err = run(command, tmp_path / name, "--json")
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert f"{tmp_path / name}: {reason}" in err
        assert "\ntip: " in err
    assert "flac" in err
    assert "wav" in err
    assert list((tmp_path / "empty").iterdir()) == []


def test_unreadable_folders_are_named_if_no_audio_is_found(run, unprivileged):
    write_dataset(unprivileged / "dataset" / "deep", 2)
    (unprivileged / "dataset" / "deep").chmod(0)
    waveforms = [unprivileged / "dataset", "--no-complex-spectrogram.enabled", "--device", "cpu"]
    for code, out, err in (
        run("status", unprivileged / "dataset"),
        run("preprocess", unprivileged / "dataset", *SMALL),
        run(*waveforms, "--out", unprivileged / "run", command=train.main),
    ):
        assert code == 2
        assert "no audio in what could be read of this folder\n  deep: unreadable: permission denied" in out + err
        assert "tip: make the paths above readable" in err
    assert not (unprivileged / "dataset" / ".cache").exists()


def test_an_unreadable_folder_is_listed_and_counted_as_skipped(run, unprivileged):
    write_dataset(unprivileged)
    (unprivileged / "deep").chmod(0)
    entry = {"path": "deep", "reason": "unreadable: permission denied", "code": "unreadable"}
    result = one_object(*run("status", unprivileged, "--json"))
    assert (result["files"], result["skipped"], result["skipped_files"]) == (2, 1, [entry])
    result = one_object(*run("preprocess", unprivileged, *SMALL, "--json"))
    assert (result["decoded"], result["rows"], result["skipped"]) == (2, 4, [entry])
    assert "deep: unreadable" in run("preprocess", unprivileged, *SMALL)[1]
    assert "skipped: deep: unreadable" in run("status", unprivileged)[1]


def test_status_shows_progress(run, dataset, monkeypatch):
    shown = []
    monkeypatch.setattr("distill.cli.progress.ProgressView.progress", lambda view, *call: shown.append(call))
    assert run("status", dataset)[0] == 0
    total = sum(path.stat().st_size for path in dataset.rglob("*.wav"))
    assert ("hash", total, total) in shown


def test_on_a_terminal_a_bar_is_shown_for_what_takes_longer_than_a_moment(monkeypatch):
    now, stream = [0.0], io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("distill.cli.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with ProgressView() as view:
        view.progress("scan", 1, 9)
        view.line("found")
        assert stream.getvalue() == "found\n"
        now[0] = 1.0
        view.progress("features", 3, 9)
        view.line("half")
        view.progress("features", 9, 9)
    shown = stream.getvalue()
    assert "scan" not in shown
    assert "half" in shown
    assert "features" in shown
    assert "9/9" in shown


def test_torch_is_not_imported_if_nothing_has_changed(run, dataset):
    assert run("preprocess", dataset, *SMALL)[0] == 0
    command = ["preprocess", os.fspath(dataset), *SMALL, "--json"]
    code = f"import sys; from distill.cli.main import main; code = main({command!r}); assert code == 0, code; "
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *_, imported = done.stdout.splitlines()
    assert json.loads("".join(done.stdout.splitlines()[:-1]))["decoded"] == 0
    assert imported == "False"


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A dataset whose tables are read in several blocks, preprocessed; one of its files is a sound."""
    root = tmp_path_factory.mktemp("many")
    write(root / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 9600))
    for number in range(6000):
        # Each of a size of its own, and none a WAV file.
        (root / f"{number}.wav").write_bytes(b"x" * (number + 1))
    preprocess(root, training())
    assert (root / ".cache" / "files.json").stat().st_size > 1_000_000
    return root


def test_reading_the_tables_of_a_large_cache_shows_progress(many, monkeypatch, run):
    shown = []
    monkeypatch.setattr("distill.cli.progress.ProgressView.progress", lambda view, *call: shown.append(call))
    assert run("status", many)[0] == 0
    assert "cache" in {stage for stage, *_ in shown}


# The table of files is read first, then the slot's; `verify` reads only that.
@pytest.mark.parametrize(
    ("command", "call"), [("preprocess", 1), ("preprocess", 2), ("status", 1), ("status", 2), ("verify", 1)]
)
@pytest.mark.parametrize("error", [FileNotFoundError(2, "no log"), BrokenPipeError(32, "gone"), ValueError("stop")])
def test_an_error_of_a_callback_is_none_of_the_cache(many, monkeypatch, error, command, call):
    calls = []

    def fail(stage, current, total):
        if stage == "cache":
            calls.append(stage)
            if len(calls) == call:
                raise error

    functions = {
        "preprocess": lambda: preprocess(many, training(), progress=fail),
        "status": lambda: dataset_status(many, progress=fail),
        "verify": lambda: verify(many, progress=fail),
    }
    packs = sorted((slot_of(many) / "packs").iterdir())
    with pytest.raises(type(error)) as raised:
        functions[command]()
    assert raised.value is error
    assert sorted((slot_of(many) / "packs").iterdir()) == packs
    forbid_decoding(monkeypatch)
    assert preprocess(many, training()).decoded == 0


def test_a_backend_that_does_not_exist_is_refused_before_anything_is_read(run, dataset, monkeypatch):
    monkeypatch.setenv("DISTILL_BACKEND", "nonsense")
    for command in ("preprocess", "train"):
        code, _, err = run(command, dataset, *SMALL)
        assert code == 2
        assert "DISTILL_BACKEND='nonsense' must be one of auto, fused, rust, reference" in err
    assert not (dataset / ".cache").exists()


def test_an_export_that_is_interrupted_says_that_nothing_is_left(run, dataset, tmp_path, monkeypatch):
    assert run("preprocess", dataset, *SMALL)[0] == 0

    def interrupt(view, stage, current, total):
        if stage == "export":
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("distill.cli.progress.ProgressView.progress", interrupt)
    code, _, err = run("export", dataset, tmp_path / "rows")
    assert (code, err) == (143, "interrupted; what was written is removed\n")
    assert not (tmp_path / "rows").exists()


def test_the_time_left_begins_anew_with_each_table(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("distill.cli.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    view = ProgressView()
    for _ in range(4):
        for megabytes in range(0, 601, 50):  # a table of 600 MB in 12 s
            view.progress("cache", megabytes * 10**6, 600 * 10**6)
            now[0] += 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "left" in line]
    assert len(lines) >= 4
    for line in lines:
        read, left = map(int, re.fullmatch(r"cache: (\d+) of 600 MB, about (\d+) s left", line).groups())
        assert left == (600 - read) / 50


def test_a_cache_of_another_dataset_gives_a_warning(run, dataset, tmp_path):
    cache = ["--cache-dir", tmp_path / "cache"]
    other = tmp_path / "other"
    write(other / "else.wav", noise(70))
    assert "another dataset" not in run("preprocess", dataset, *SMALL, *cache)[1]
    write(dataset / "sound-1.wav", noise(71))
    (dataset / "sound-3.wav").unlink()
    assert "another dataset" not in run("preprocess", dataset, *SMALL, *cache)[1]
    code, out, _ = run("preprocess", other, *SMALL, *cache)
    assert code == 0
    assert f"none of the 4 files this cache knew is in {other}: is it another dataset's cache?" in out


def test_an_unreadable_dataset_is_an_error(run, dataset, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    code, out, err = run("status", dataset)
    assert (code, out) == (2, "")
    assert f"error: {dataset}: cannot be read: Permission denied" in err


def test_a_cache_that_cannot_be_written_is_an_error_with_a_remedy(run, dataset, tmp_path):
    (tmp_path / "file").write_text("no folder")
    code, out, err = run("preprocess", dataset, *SMALL, "--json", "--cache-dir", tmp_path / "file" / "cache")
    assert (code, out) == (1, "")
    assert "cannot be written" in err
    assert "--cache-dir" in err.split("tip: ")[1]


def test_a_dataset_without_usable_files_is_an_error(run, tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    code, out, err = run("preprocess", tmp_path, *SMALL, "--json")
    assert (code, out) == (1, "")
    assert "no file could be used" in err
    assert "text.wav: not an audio file" in err


def test_flags_out_of_range_are_reported_all_at_once(run, dataset):
    for command in (main, train.main):
        argv = ["preprocess", dataset] if command is main else [dataset]
        flags = ["--complex-spectrogram.n-fft", "1001", "--chunk-samples", "0", "--augmentation.speed", "3"]
        code, out, err = run(*argv, *flags, "--normalize", "file", command=command)
        assert (code, out) == (2, "")
        for fault in ("n_fft=1001 must be even", "chunk_samples=0", "speed=3.0"):
            assert fault in err
    assert not (dataset / ".cache").exists()


def test_faults_of_a_config_file_are_reported_at_once(run, dataset, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text("latent_dimm = 3\nepochs = 0\n[complex_spectrogram]\nn_mel = 3\nhop_length = 0\n")
    code, out, err = run("preprocess", dataset, "--config", config)
    assert (code, out) == (2, "")
    for fault in ("did you mean 'latent_dim'", "epochs=0", "did you mean 'complex_spectrogram.n_mels'", "hop_length=0"):
        assert fault in err
    for content, reason in ((b"a = = 1", "cannot be read"), (b"\xff\xfe", "cannot be read")):
        config.write_bytes(content)
        code, _, err = run("preprocess", dataset, "--config", config)
        assert code == 2
        assert f"{config}: {reason}" in err
    code, _, err = run("preprocess", dataset, "--config", tmp_path / "none.toml")
    assert code == 2
    assert "No such file" in err


def test_flags_override_a_config_file(run, dataset, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text(
        "chunk_samples = 4000\naugmentation_expansion = 0\ndevice = 'cpu'\n"
        "[complex_spectrogram]\nsample_rate = 16000\nn_fft = 512\nhop_length = 256\nn_mels = 24\n"
    )
    one_object(*run("preprocess", dataset, "--json", "--config", config, "--complex-spectrogram.n-mels", "20"))
    manifest = load_cache_manifest(dataset / ".cache")
    assert (manifest["chunk_samples"], manifest["complex_spectrogram_config"]["n_mels"]) == (4_000, 20)


@pytest.mark.parametrize(
    "argv",
    [
        ["preprocess"],
        ["preprocess", ".", "--no-such-option", "1"],
        ["preprocess", ".", "--epochs", "many"],
        ["preprocess", ".", "--preset", "none"],
        ["preprocess", ".", "--workers", "0"],
        ["verify", ".", "--workers", "0"],
        ["preprocess", ".", "--device", "abacus"],
        ["status"],
        ["polish", "."],
        [],
    ],
)
def test_wrong_usage_exits_with_2(run, argv, tmp_path, monkeypatch):
    write(tmp_path / "a.wav", noise(1))
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*argv)
    assert code == 2
    assert out + err
    assert not (tmp_path / ".cache").exists()


def test_an_unknown_command_is_named_with_the_usage(run):
    code, out, err = run("polish", ".")
    assert (code, out) == (2, "")
    assert "'polish'" in err
    assert "distill COMMAND" in err


@pytest.mark.parametrize(
    ("argv", "texts"),
    [
        (["--help"], ["train DATASET", "preprocess DATASET", "status DATASET"]),
        (["preprocess", "--help"], ["--cache-dir", "--complex-spectrogram.n-mels", "--json", "--workers"]),
        (["status", "--help"], ["--cache-dir", "--json"]),
        (["train", "--help"], ["--resume", "--seed", "--epochs", "--out"]),
        (["--version"], ["distill 0."]),
    ],
)
def test_help(run, argv, texts):
    code, out, err = run(*argv)
    assert (code, err) == (0, "")
    assert all(text in out for text in texts)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["none"], "none: no such folder"),
        (["--device", "cuda:99", "dataset"], "cuda"),
        (["--resume", "dataset"], "dataset"),
        ([], "no dataset was given"),
    ],
)
def test_training_that_cannot_start_exits_with_2(run, dataset, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*flags, command=train.main)
    assert code == 2
    assert "error: " in err
    assert message in err
    assert not (tmp_path / "runs").exists()
    assert not (dataset / ".cache").exists()


def test_faults_of_training_options_in_a_new_process(tmp_path):
    """`python -m distill.train` reports all of them, without a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "distill.train", tmp_path / "none", "--epochs", "0", "--device", "x"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "epochs=0" in done.stderr
    assert "device='x'" in done.stderr
    assert "Traceback" not in done.stderr


def test_training_on_magnitude_only(dataset, tmp_path):
    feature = [argument.replace("--complex-", "--") for argument in SMALL]
    flags = [*feature, "--no-complex-spectrogram.enabled", "--epochs", "1", "--latent-dim", "4"]
    assert train.main([str(dataset), "--out", str(tmp_path / "run"), *flags]) == 0
    assert "enabled = false" in (tmp_path / "run" / "config.toml").read_text()


def test_control_characters_in_a_name_are_escaped(run, dataset):
    (dataset / "a\x1b]0;title\x07b.wav").touch()
    code, out, _ = run("status", dataset)
    assert code == 0
    assert "\x1b" not in out
    assert r"a\x1b]0;title\x07b.wav" in out


# A row of one second takes 3 MB, so that 40 seconds take more than 100 MB.
LARGE_ROWS = [*SMALL, "--complex-spectrogram.hop-length", "1"]


def at_a_terminal(answer, *argv, limit=100_000_000):
    """Run a command in a new process on a terminal, type an answer when asked; return exit status and output."""
    leader, follower = pty.openpty()
    code = f"import sys; from distill.preprocess import plan; plan.CONFIRM_ABOVE_BYTES = {limit}"
    code += "; from distill.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *map(str, argv)]
    # Wide, so that no line is wrapped.
    environment = os.environ | {"COLUMNS": "1000", "TERM": "dumb"}
    process = subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, env=environment, start_new_session=True
    )
    os.close(follower)
    shown = b""
    with suppress(OSError):  # the end of a terminal's output
        while piece := os.read(leader, 4096):
            shown += piece
            if b"[y/N]" in shown and answer is not None:
                if callable(answer):
                    answer(process)
                else:
                    os.write(leader, answer)
                answer = None
    os.close(leader)
    return process.wait(60), shown.decode()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A folder whose features take more than 100 MB with LARGE_ROWS."""
    folder = tmp_path_factory.mktemp("large")
    write(folder / "long.wav", noise(1, 80 * CHUNK))
    return folder


def interrupt(process):
    process.send_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("train", b"n\n"),
        ("train", interrupt),
        ("preprocess", b"\n"),
        ("preprocess", b"\x04"),
        ("preprocess", interrupt),
    ],
    ids=["train-n", "train-ctrl-c", "preprocess-enter", "preprocess-ctrl-d", "preprocess-ctrl-c"],
)
def test_on_a_terminal_it_asks_before_more_than_100_mb(large, tmp_path, command, answer):
    """Any answer but yes computes nothing, and leaves no run."""
    options = ("--out", tmp_path / "run") if command == "train" else ()
    code, shown = at_a_terminal(answer, command, large, *LARGE_ROWS, "--cache-dir", tmp_path / "cache", *options)
    assert code == 1
    assert re.search(rf"80 rows, 1\d\d MB in {tmp_path / 'cache'}\. Go on\? \[y/N\]", shown)
    assert "--cache-dtype float16" in shown
    assert "cancelled before anything was computed" in shown
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", ["yes", "--yes", "no terminal"])
def test_with_yes_or_without_a_terminal_it_goes_on(run, large, tmp_path, monkeypatch, how):
    argv = ["preprocess", large, *SMALL, "--cache-dir", tmp_path / "cache"]
    if how == "no terminal":
        monkeypatch.setattr("distill.preprocess.plan.CONFIRM_ABOVE_BYTES", 1_000)
        code, shown, _ = run(*argv)
    else:
        code, shown = at_a_terminal(b"y\n", *argv, *(["--yes"] if how == "--yes" else []), limit=1_000)
    assert code == 0
    assert ("Go on?" in shown) == (how == "yes")
    assert "--cache-dtype float16" in shown
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1
