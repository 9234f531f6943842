"""Scanning 100 000 unchanged files, compared with git and a pathlib scan; commits and hashing, with bare ones.

`pytest bench/bench_index.py --benchmark-only`. The lower bound, getdents and fstatat, is in the Rust
bench: `cargo bench -p distill-index`. Both sides of a ratio are measured in alternation. Making the files takes 20 s.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distill.audio import ComplexSpectrogramConfig, load_cache_manifest, preprocess_complex_spectrograms
from distill.cache.manifest import MANIFEST_NAME
from distill.cache.writer import CacheWriter
from distill.index import AUDIO_EXTENSIONS, Dataset, Manifest, hash_bytes, hash_file

N_FILES, N_FOLDERS, ROUNDS = 100_000, 1_000, 7
CONFIG = ComplexSpectrogramConfig(sample_rate=16_000, n_fft=128, hop_length=64, n_mels=8)
CHUNK = 128


def preprocess(root: Path) -> tuple[Path, dict[str, float]]:
    return preprocess_complex_spectrograms(
        None, root, CONFIG, chunk_samples=CHUNK, sample_rate=CONFIG.sample_rate, device="cpu"
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A dataset whose rows are all in the cache. They are random rows written with CacheWriter, to save decoding."""
    import soundfile

    root = tmp_path_factory.mktemp("audio")
    soundfile.write(root / "first.wav", np.sin(np.arange(CHUNK)), CONFIG.sample_rate)
    cache_dir, _ = preprocess(root)
    for folder in range(N_FOLDERS):
        (root / f"recordings-{folder:04}").mkdir()
        for number in range(folder, N_FILES - 1, N_FOLDERS):
            # The first bytes of an Ogg file, so that the index accepts it.
            (root / f"recordings-{folder:04}" / f"take-{number:06}.wav").write_bytes(b"OggS%d" % number)
    time.sleep(2.1)  # until the stamps are old enough to be trusted
    rng = np.random.default_rng(0)
    with CacheWriter(root / ".cache") as writer:
        writer.reopen(cache_dir)
        scan = Dataset(root).scan(writer.manifest)
        writer.manifest.apply(scan)
        for _, content_hash, _ in scan.todo:
            row = rng.standard_normal((1, *writer.row_format.shape), np.float32)
            writer.add_rows(content_hash, row)
            writer.finish_content(content_hash, 0, [row[0, 0].size, 0.1 + row.sum(), (row**2).sum(), 0.5, 2.5])
        writer.finish()
    # As after a run that has hashed all files: with the table that slots share, and binary copies of both.
    preprocess(root)
    assert manifest_of(root).with_suffix(".bin").exists()
    assert (root / ".cache" / "files.bin").exists()
    return root


def in_turn(*functions: Callable[[], object]) -> list[float]:
    """Median seconds of each function."""
    taken: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, times in zip(functions, taken, strict=True):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in taken]


def report(benchmark, ours: float, baseline: float, name: str) -> None:
    benchmark.extra_info[f"ratio_to_{name.replace(' ', '_')}"] = round(ours / baseline, 3)


def rescan(root: Path):
    return Dataset(root).scan(Manifest.load(manifest_of(root)))


def manifest_of(root: Path) -> Path:
    (path,) = (root / ".cache").glob(f"slots/*/{MANIFEST_NAME}")
    return path


def check_rescan(root: Path) -> None:
    scan = rescan(root)
    assert (scan.counts["unchanged"], scan.refreshed, len(scan.todo)) == (N_FILES, 0, 0)


def run(command: list[str]) -> bytes:
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def repositories(dataset, tmp_path_factory) -> list[list[str]]:
    """`git status` of the dataset with git's defaults, and as it is fastest without a daemon."""
    (dataset / ".gitignore").write_text(".cache\n")
    commands = []
    for name in ("plain", "best"):
        git = ["git", "-c", "user.name=bench", "-c", "user.email=bench@example.org"]
        # Otherwise git runs maintenance in the background, on the same cores.
        git += ["-c", "maintenance.auto=false", "-c", "gc.auto=0"]
        git += [
            "--git-dir",
            str(tmp_path_factory.mktemp(name) / "git"),
            "--work-tree",
            str(dataset),
            "-C",
            str(dataset),
        ]
        steps = [["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]]
        if name == "best":
            steps.append(["config", "core.untrackedCache", "true"])
            steps.append(["update-index", "--index-version", "4", "--untracked-cache"])
        # The first calls of `git status` write what makes the next ones faster.
        for step in (*steps, ["status", "--porcelain"], ["status", "--porcelain"]):
            run([*git, *step])
        commands.append([*git, "status", "--porcelain"])
        assert run(commands[-1]) == b""
    return commands


@pytest.mark.benchmark(group="100 000 files, nothing changed")
def test_rescan_compared_with_git_status(benchmark, dataset, repositories):
    check_rescan(dataset)
    ours, plain, best = in_turn(lambda: rescan(dataset), *(lambda git=git: run(git) for git in repositories))
    report(benchmark, ours, plain, "git status")
    report(benchmark, ours, best, "git status with untracked cache and index v4")
    benchmark(rescan, dataset)


@pytest.mark.benchmark(group="100 000 files, nothing changed")
def test_a_fresh_status_compared_with_a_fresh_git_status(benchmark, dataset, repositories):
    command = [str(Path(sys.executable).with_name("distill")), "status", str(dataset), "--json"]
    found = json.loads(run(command))
    assert (found["files"], found["unchanged"], found["rows"]) == (N_FILES, N_FILES, N_FILES)
    ours, plain, best = in_turn(lambda: run(command), *(lambda git=git: run(git) for git in repositories))
    report(benchmark, ours, plain, "git status")
    report(benchmark, ours, best, "git status with untracked cache and index v4")
    benchmark.pedantic(run, (command,), rounds=ROUNDS)


@pytest.mark.benchmark(group="100 000 files, nothing changed")
def test_loading_compared_with_parsing_json(benchmark, dataset, tmp_path):
    saved, alone = manifest_of(dataset), tmp_path / "manifest.json"
    shutil.copyfile(saved, alone)
    assert Manifest.load(saved).live() == Manifest.load(alone).live()
    ours, baseline = in_turn(lambda: Manifest.load(saved), lambda: Manifest.load(alone))
    report(benchmark, ours, baseline, "JSON without binary copy")
    benchmark(Manifest.load, saved)


def scan_with_pathlib(root: Path, known: Path) -> bool:
    """The method of version 1: resolve every path, and compare paths and times with a JSON file."""
    found = sorted(
        path.resolve()
        for extension in AUDIO_EXTENSIONS
        for path in root.rglob(f"*.{extension}")
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    files = [{"path": str(path), "mtime": os.path.getmtime(path)} for path in found]  # noqa: PTH204
    if not known.exists():
        known.write_text(json.dumps({"files": files}))
    return json.loads(known.read_text())["files"] == files


@pytest.mark.benchmark(group="100 000 files, nothing changed")
def test_preprocessing_compared_with_a_pathlib_scan(benchmark, dataset, tmp_path):
    cache_dir, stats = preprocess(dataset)
    manifest = load_cache_manifest(cache_dir)
    assert manifest["total_spectrograms"] == N_FILES
    assert stats == manifest["normalization_stats"]
    assert scan_with_pathlib(dataset, tmp_path / "known.json")
    ours, baseline = in_turn(lambda: preprocess(dataset), lambda: scan_with_pathlib(dataset, tmp_path / "known.json"))
    report(benchmark, ours, baseline, "rglob, resolve, getmtime, JSON")
    benchmark(preprocess, dataset)


@pytest.mark.benchmark(group="100 000 files, nothing changed")
def test_system_calls(benchmark, dataset, tmp_path):
    if not shutil.which("strace"):
        pytest.fail("strace is not installed: apt-get install strace")
    code = f"""
from distill.index import Dataset, Manifest
Dataset({str(dataset)!r}).scan(Manifest.load({str(manifest_of(dataset))!r}))
"""
    trace = tmp_path / "trace"
    calls = "openat,open,stat,lstat,newfstatat,statx"
    command = ["strace", "-f", "-qq", "-e", f"trace={calls}", "-o", trace, sys.executable, "-c", code]
    subprocess.run(command, check=True)
    # The index stats files by their name, relative to their folder.
    lines = [line.split(" ", 1)[1].lstrip() for line in trace.read_text().splitlines() if '"take-' in line]
    opened = sum(line.startswith("open") for line in lines)
    stats = len(lines) - opened
    benchmark.extra_info.update(source_files_opened=opened, stats_a_file=round(stats / (N_FILES - 1), 3))
    assert opened == 0
    assert stats >= N_FILES - 1
    benchmark.pedantic(rescan, (dataset,), rounds=1)


def write_durably(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".tmp")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@pytest.mark.benchmark(group="manifest of 100 000 files")
def test_commit_compared_with_a_bare_write(benchmark, dataset, tmp_path):
    saved = manifest_of(dataset)
    content = saved.read_bytes()
    manifest = Manifest.load(saved)
    manifest.save(tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == content
    ours, baseline = in_turn(
        lambda: manifest.save(tmp_path / "saved"), lambda: write_durably(tmp_path / "raw", content)
    )
    report(benchmark, ours, baseline, "write + fsync + rename")
    benchmark.pedantic(manifest.save, (tmp_path / "saved",), rounds=ROUNDS)


@pytest.mark.benchmark(group="hashing 1 GB")
def test_hashing_compared_with_b3sum(benchmark, tmp_path):
    if not shutil.which("b3sum"):
        pytest.fail("b3sum is not installed: make bench installs it")
    block = np.random.default_rng(0).bytes(1 << 20)
    paths = [tmp_path / f"{number}.wav" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) + block * 250)
    b3sum = ["b3sum", "--num-threads", "1", "--no-names", *paths]
    expected = subprocess.run(b3sum, check=True, capture_output=True, text=True).stdout.split()
    assert [hash_file(path).hex() for path in paths] == expected
    assert hash_bytes(paths[0].read_bytes()).hex() == expected[0]
    ours, baseline = in_turn(
        lambda: [hash_file(path) for path in paths], lambda: subprocess.run(b3sum, check=True, capture_output=True)
    )
    report(benchmark, ours, baseline, "b3sum --num-threads 1")
    benchmark.pedantic(hash_file, (paths[0],), rounds=ROUNDS)
