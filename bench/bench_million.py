"""Time, memory and manifest of large datasets: a first run, a run in which nothing changed, `status`, opening.

`DISTILL_BENCH_FILES=100000 pytest bench/bench_million.py --benchmark-only -s`. Each act runs in a process of its own,
whose peak memory is measured. Default: 2000 files. With `DISTILL_BENCH_DECODED=1000` only so many files are decoded;
the rows of the others are random and handed to the writer, which takes minutes for a million files instead of hours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

N_FILES = int(os.environ.get("DISTILL_BENCH_FILES", "2000"))
N_DECODED = int(os.environ.get("DISTILL_BENCH_DECODED", str(N_FILES)))
FILES_PER_FOLDER = 1000
SAMPLE_RATE, SAMPLES = 16_000, 1600
_WAV_HEADER = (
    b"RIFF" + (36 + 2 * SAMPLES).to_bytes(4, "little") + b"WAVEfmt \x10\0\0\0\x01\0\x01\0"
    + SAMPLE_RATE.to_bytes(4, "little") + (2 * SAMPLE_RATE).to_bytes(4, "little") + b"\x02\0\x10\0data"
    + (2 * SAMPLES).to_bytes(4, "little")
)  # fmt: skip

# Runs in the measured process. `tick` is the progress callback: the longest time without a call is the longest silence.
_PRELUDE = """
import json, sys, time
root, last, silence, commits, commit_s = sys.argv[1], time.monotonic(), 0.0, 0, 0.0
def tick(*_):
    global last, silence
    now = time.monotonic()
    last, silence = now, max(silence, now - last)
from distill.config import AugmentationConfig, ComplexSpectrogramConfig, TrainingConfig
from distill.index import Dataset
spec = ComplexSpectrogramConfig(sample_rate=16_000, n_fft=256, hop_length=200, n_mels=8, enabled=True)
config = TrainingConfig(complex_spectrogram=spec, augmentation_expansion=0, chunk_samples=1600, device="cpu")
def peak_mb():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1000
"""
_ACTS = {
    "status": """
from distill.preprocess.status import dataset_status
start = last = time.monotonic()
cpu = time.process_time()
found = dataset_status(root, progress=tick)
""",
    "preprocess": """
from distill.cache.writer import CacheWriter
from distill.preprocess.pipeline import preprocess
commit = CacheWriter.commit
def timed(writer):
    global commits, commit_s
    start = time.monotonic()
    commit(writer)
    commits, commit_s = commits + 1, commit_s + time.monotonic() - start
CacheWriter.commit = timed
start = last = time.monotonic()
cpu = time.process_time()
found = preprocess(Dataset(root), config, progress=tick).rows
""",
    "fill": """
import numpy as np
from distill.cache.slots import slot_formats
from distill.cache.writer import CacheWriter
start = last = time.monotonic()
cpu = time.process_time()
[(slot, _)] = slot_formats(Dataset(root).cache_path)
rng = np.random.default_rng(0)
with CacheWriter(Dataset(root).cache_path) as writer:
    writer.reopen(slot)
    scan = Dataset(root).scan(writer.manifest, known=writer.files, progress=tick)
    writer.manifest.apply(scan)
    for _, content_hash, _ in scan.todo:
        row = rng.standard_normal((1, *writer.row_format.shape), np.float32)
        sums = [row[0, 0].size, row[0, 0].sum(), (row[0, 0] ** 2).sum(), row[0, 1].sum(), (row[0, 1] ** 2).sum()]
        writer.add_rows(content_hash, row)
        writer.finish_content(content_hash, 0, [float(value) for value in sums])
    writer.finish()
    writer.keep_hashes(scan)
""",
    "open": """
from distill.cache.reader import CacheReader
from distill.cache.slots import slot_formats
[(slot, _)] = slot_formats(Dataset(root).cache_path)
start = last = time.monotonic()
cpu = time.process_time()
found = len(CacheReader(slot))
""",
}
_END = """
tick()
taken = dict(s=time.monotonic() - start, cpu=time.process_time() - cpu, mb=peak_mb(), silence=silence)
print(json.dumps(dict(taken, commits=commits, commit_s=commit_s)))
"""


def make_sounds(root: Path, numbers: range) -> None:
    """Write WAV files of noise, each of its own."""
    rng = np.random.default_rng(numbers.start)
    for number in numbers:
        folder = root / f"recordings-{number // FILES_PER_FOLDER:04}"
        if number % FILES_PER_FOLDER == 0 or number == numbers.start:
            folder.mkdir(exist_ok=True)
        samples = rng.integers(-8000, 8000, SAMPLES, np.int16)
        (folder / f"take-{number:07}.wav").write_bytes(_WAV_HEADER + samples.tobytes())


def measure(act: str, root: Path) -> dict[str, float]:
    """Run an act in a process of its own, and print what it took."""
    code = _PRELUDE + _ACTS[act] + _END
    done = subprocess.run([sys.executable, "-c", code, root], stdout=subprocess.PIPE, check=True, text=True)
    figures = json.loads(done.stdout)
    manifest = next((root / ".cache" / "slots").glob("*/manifest.json")).stat().st_size
    print(
        f"{N_FILES} files, {act}: {figures['s']:.2f} s ({figures['cpu']:.2f} s of processor time), "
        f"peak {figures['mb']:.0f} MB, "
        f"longest silence {figures['silence']:.2f} s, {figures['commits']} commits of {figures['commit_s']:.2f} s, "
        f"manifest {manifest / 1e6:.1f} MB",
        flush=True,
    )
    return figures


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    given = os.environ.get("DISTILL_BENCH_TREE")
    root = Path(given) if given else tmp_path_factory.mktemp("audio")
    make_sounds(root, range(N_DECODED))
    time.sleep(4.1)  # until the stamps are old enough to be trusted
    return root


def bare_walk(root: Path) -> int:
    """The baseline: look at every file, and keep nothing."""
    return sum(entry.stat().st_size > 0 for folder in os.scandir(root) if folder.name != ".cache"
               for entry in os.scandir(folder.path))  # fmt: skip


def test_a_large_dataset(benchmark, dataset):
    first = measure("preprocess", dataset)
    if N_DECODED < N_FILES:
        make_sounds(dataset, range(N_DECODED, N_FILES))
        time.sleep(4.1)
        measure("fill", dataset)
    assert bare_walk(dataset) == N_FILES
    start = time.perf_counter()
    benchmark.pedantic(bare_walk, (dataset,), rounds=1)
    walk_s = time.perf_counter() - start
    figures = {"status": measure("status", dataset), "no_op": measure("preprocess", dataset)}
    figures["open"] = measure("open", dataset)
    for name, taken in figures.items():
        benchmark.extra_info[f"{name}_to_bare_walk"] = round(taken["s"] / walk_s, 2)
        benchmark.extra_info[f"{name}_peak_MB"] = round(taken["mb"])
    benchmark.extra_info["first_run_peak_MB"] = round(first["mb"])
    benchmark.extra_info["first_run_commits_share"] = round(first["commit_s"] / first["s"], 4)
    benchmark.extra_info["longest_silence_s"] = round(max(f["silence"] for f in (first, *figures.values())), 2)
