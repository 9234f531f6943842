"""What a command prints, in a process of its own: on a full disk, a closed stream, an ASCII terminal, and on errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distill.models import load_model
from instruments import tones, write_run
from sounds import CHUNK, noise, write

DISTILL = [sys.executable, "-c", "import sys; from distill.cli.main import main; sys.exit(main())"]
FEATURE = {"sample-rate": 16_000, "n-fft": 512, "hop-length": 256, "n-mels": 16}
TINY = ("--chunk-samples", CHUNK, "--augmentation-expansion", 0, "--latent-dim", 2, "--device", "cpu")
TINY += tuple(word for name, value in FEATURE.items() for word in (f"--complex-spectrogram.{name}", value))
ASCII = {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NOTEBOOK = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}


def distill(*argv, redirections: str = "", **environment) -> subprocess.CompletedProcess[str]:
    """Run a command, with the redirections `redirections`."""
    command = [*DISTILL, *map(str, argv)]
    if redirections:
        command = ["bash", "-c", f'"$@" {redirections}', "bash", *command]
    variables = os.environ | {"GOMP_SPINCOUNT": "0"} | environment
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=variables)
    assert "Traceback" not in done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr
    return done


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Two sounds whose names no ASCII terminal can show, and one that cannot be used."""
    folder = tmp_path_factory.mktemp("dataset")
    for seed, name in enumerate(("太鼓.wav", "ünï.wav")):
        write(folder / name, noise(seed, CHUNK * 4))
    write(folder / "空.wav", np.zeros(0))
    assert distill("preprocess", folder, *TINY).returncode == 0
    return folder


@pytest.mark.parametrize(
    ("redirections", "environment"),
    [
        ("> /dev/full", NOTEBOOK),
        (">&- 2> /dev/full", {}),
        ("| head -c 1 > /dev/null; exit ${PIPESTATUS[0]}", {}),
        ("", ASCII | NOTEBOOK),
    ],
    ids=["full disk", "closed", "broken pipe", "ASCII terminal"],
)
def test_a_training_ends_as_usual_whatever_its_output_is(dataset, tmp_path, redirections, environment):
    out = tmp_path / "実行"
    argv = ("train", dataset, *TINY, "--epochs", 2, "--preview-epochs", 0, "--no-analyze", "--out", out)
    done = distill(*argv, redirections=redirections, **environment)
    assert done.returncode == 0, done.stderr
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2
    assert all(tensor.isfinite().all() for tensor in load_model(out).state_dict().values())
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    if redirections == "> /dev/full":
        assert "warning: the output cannot be written: No space left on device" in done.stderr
    if not redirections:
        assert done.stdout.isascii()
        assert "R\\xb2" in done.stdout
        assert "\\u7a7a.wav: " in done.stdout


def test_a_short_command_whose_output_is_lost_fails_and_says_so(dataset, tmp_path):
    for argv in (
        ("status", dataset, "--json"),
        ("verify", dataset),
        ("preprocess", dataset, *TINY),
        ("status", "--help"),
        ("--help",),
        ("--version",),
    ):
        done = distill(*argv, redirections="> /dev/full")
        assert done.returncode == 1, argv
        assert done.stderr.endswith("error: the output cannot be written: No space left on device\n")
    assert distill("status", dataset, redirections="> /dev/full 2>&1").returncode == 1


def test_a_reader_that_leaves_early_and_closed_streams(dataset):
    left = distill("status", dataset, redirections="| head -c 0; exit ${PIPESTATUS[0]}")
    assert (left.returncode, left.stderr) == (1, "")
    assert distill("status", dataset, redirections=">&-").returncode == 0
    refused = distill("status", dataset / "none", redirections="2>&-")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_a_closed_stream_is_not_where_files_are_opened(dataset, tmp_path):
    """Descriptor 2 would be that of a file of the cache, and the warnings of libraries would be written into it."""
    code = "import os, sys; from distill.cli.main import main; main(['--version']); print(os.open('/dev/null', 0))"
    done = subprocess.run(
        ["bash", "-c", '"$@" 2>&-', "bash", sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert int(done.stdout.splitlines()[-1]) > 2


@pytest.fixture(scope="module")
def tone_run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), tones()[:6], latent_dim=3)


def test_errors_are_a_line_and_a_remedy(dataset, tone_run, tmp_path):
    described = json.loads((tone_run / "model.json").read_text())
    damaged = Path(tmp_path / "damaged")
    for name in ("run.json", "config.toml"):
        damaged.mkdir(exist_ok=True)
        (damaged / name).write_bytes((tone_run / name).read_bytes())
    described["statistics"]["mag_std"] = "\x1b]0;title\x07"
    (damaged / "model.json").write_text(json.dumps(described))
    cases = {
        ("generate", tone_run, "--out", tmp_path / "out", "--device", "gpu"): "gpu",
        ("analyze", tmp_path / "none"): "no such run folder",
        ("reconstruct", damaged, next(dataset.glob("*.wav")), "--out", tmp_path / "out"): "statistics.mag_std=",
        ("train", dataset, "--out", tmp_path / "out", "--epochs", 0, "--device", "x"): "epochs=0",
        ("verify", tmp_path / "none"): "no such folder",
        ("nonsense",): "no command 'nonsense'",
    }
    for argv, reason in cases.items():
        done = distill(*argv)
        assert (done.returncode, done.stdout) == (2, ""), argv
        assert re.match(r"error: .*", done.stderr)
        assert reason in done.stderr
        assert "\x1b" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_pictures_do_not_need_the_backend_of_the_environment(tmp_path):
    code = """
import os, sys
from pathlib import Path
import numpy as np
from distill.plots.latent import save_scree_picture
save_scree_picture(np.array([0.7, 0.3]), ["pitch", "axis2"], Path(sys.argv[1]))
assert "matplotlib.pyplot" not in sys.modules
print(os.environ["MPLBACKEND"])
"""
    path = tmp_path / "scree.png"
    for backend in (NOTEBOOK["MPLBACKEND"], "module://no.such.module", "TkAgg", "nonsense"):
        command = [sys.executable, "-c", code, path]
        variables = os.environ | {"MPLBACKEND": backend}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=variables)
        assert (done.returncode, done.stdout) == (0, f"{backend}\n"), done.stderr
        assert path.read_bytes().startswith(b"\x89PNG")
        path.unlink()
