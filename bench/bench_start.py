"""What a command takes that has nothing, or little, to compute: processor time of new processes, with their baselines.

`pytest bench/bench_start.py --benchmark-only`. A run of preprocess that finds nothing to do is compared with
`distill --version` and the bare scan, generate with `import torch`. Processes take turns; the least time of each
counts, user and system, which other programs on the machine change little.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench_index import CHUNK, CONFIG, dataset, manifest_of  # noqa: F401 - `dataset` is a fixture: 100 000 files
from distill.index import Dataset, FileTable, Manifest
from instruments import tones, write_run
from sounds import age, write_dataset

ROUNDS = 5
pytestmark = pytest.mark.timeout(1800)
DISTILL = [sys.executable, "-c", "import sys; from distill.cli.main import main; sys.exit(main())"]
OPTIONS = ["--complex-spectrogram.sample-rate", CONFIG.sample_rate, "--complex-spectrogram.n-fft", CONFIG.n_fft]
OPTIONS += ["--complex-spectrogram.hop-length", CONFIG.hop_length, "--complex-spectrogram.n-mels", CONFIG.n_mels]
OPTIONS += ["--chunk-samples", CHUNK, "--augmentation-expansion", 0]


def processor_s(command: Sequence[object]) -> float:
    """Run a command; return its processor time in seconds."""
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return used.ru_utime + used.ru_stime


def least(*commands: Sequence[object], rounds: int = ROUNDS) -> list[float]:
    """Run commands in turn; return the least processor time of each."""
    taken = [[processor_s(command) for command in commands] for _ in range(rounds)]
    return [min(times) for times in zip(*taken, strict=True)]


def scan_s(root: Path) -> float:
    """Return the processor time of loading the tables and scanning, in this process."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        known = FileTable.load(root / ".cache" / "files.json")
        scan = Dataset(root).scan(Manifest.load(manifest_of(root), known), known=known, loads_ffmpeg=False)
        times.append(time.process_time() - start)
        assert scan.counts["unchanged"] == scan.n_files > 0
    return min(times)


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("few")
    write_dataset(root, 100)
    age(root)
    return root


@pytest.mark.benchmark(group="nothing to do")
@pytest.mark.parametrize("name", ["few", "dataset"], ids=["100 files", "100 000 files"])
def test_preprocess_compared_with_version_and_scan(benchmark, request, name):
    root = request.getfixturevalue(name)
    command = [*DISTILL, "preprocess", root, *OPTIONS]
    processor_s(command)
    written = manifest_of(root).stat().st_mtime_ns
    version, ours, status = least([*DISTILL, "--version"], command, [*DISTILL, "status", root])
    assert manifest_of(root).stat().st_mtime_ns == written
    baseline = version + scan_s(root)
    benchmark.extra_info["ratio_to_version_and_scan"] = round(ours / baseline, 2)
    benchmark.extra_info["status_ratio_to_version_and_scan"] = round(status / baseline, 2)
    benchmark.pedantic(processor_s, (command,), rounds=1)


@pytest.mark.benchmark(group="a second of sound")
def test_generate_compared_with_importing_torch(benchmark, tmp_path):
    run, out = write_run(tmp_path / "run", tones()), tmp_path / "out"
    command = [*DISTILL, "generate", run, "--out", out, "--count", 1, "--duration", 1, "--force"]
    torch, ours = least([sys.executable, "-c", "import torch"], command)
    assert (out / "sample-001.wav").stat().st_size > 48_000
    benchmark.extra_info["ratio_to_import_torch"] = round(ours / torch, 2)
    benchmark.extra_info["processor_seconds_above_import_torch"] = round(ours - torch, 2)
    benchmark.pedantic(processor_s, (command,), rounds=1)


@pytest.mark.benchmark(group="a path that does not exist")
def test_a_fault_compared_with_version(benchmark, tmp_path):
    wrong = [
        sys.executable,
        "-c",
        "from distill.cli.main import main; assert main() == 2",
        "generate",
        tmp_path / "none",
    ]
    wrong += ["--out", tmp_path]
    version, ours = least([*DISTILL, "--version"], wrong)
    benchmark.extra_info["ratio_to_version"] = round(ours / version, 2)
    benchmark.pedantic(processor_s, (wrong,), rounds=1)
