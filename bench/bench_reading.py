"""How often bytes are read, and how fast, compared with a plain loop of two processes and with an earlier commit.

`pytest bench/bench_reading.py --benchmark-only`. The plain loop decodes each file with soundfile, resamples it with
soxr, computes torchaudio's mel spectrogram of each second, and stores nothing; ours computes both channels and stores
them. Each is run in a process of its own, after a warm-up, in alternation.

DISTILL_BENCH_BEFORE=FOLDER (a checkout of an earlier commit with its extension built) adds ratios to that commit.
DISTILL_BENCH_HOURS=20 makes the long WAV files 20 hours in total; by default they have half an hour. They are not in
memory when they are read.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from distill.audio import ComplexSpectrogram, ComplexSpectrogramConfig
from distill.cache import CacheReader

CONFIG = ComplexSpectrogramConfig()
ROUNDS = 5
HOURS = float(os.environ.get("DISTILL_BENCH_HOURS", "0.5"))
BEFORE = os.environ.get("DISTILL_BENCH_BEFORE")
PYTHON = Path(__file__).parents[1] / "python"

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes with /proc/self/io"),
    pytest.mark.timeout(3600),
]

# Prints wall and processor time, bytes read and the mean number of threads that run or wait for a core.
MEASURED = """
import json, os, sys, threading, time
def runnable(found, stop):
    own = threading.get_native_id()
    while not stop.wait(0.02):
        states = []
        for task in os.listdir("/proc/self/task"):
            try:
                states.append(int(task) != own and open(f"/proc/self/task/{task}/stat").read().rsplit(")")[1][1] == "R")
            except OSError:
                pass
        found.append(min(sum(states), 2))
def measured(run):
    io = lambda: open("/proc/self/io").read().split()
    read, from_disk = lambda: int(io()[1]), lambda: int(io()[9])
    cpu = lambda: sum(os.times()[:4])
    found, stop = [], threading.Event()
    sampler = threading.Thread(target=runnable, args=(found, stop))
    os.sync()
    before = time.perf_counter(), cpu(), read(), from_disk()
    sampler.start()
    rows = run()
    wall = time.perf_counter() - before[0]
    stop.set()
    sampler.join()
    print(json.dumps({"rows": rows, "wall": wall, "cpu": cpu() - before[1], "read": read() - before[2],
                      "from_disk": from_disk() - before[3], "runnable": sum(found) / max(1, len(found))}))
"""

OURS = """
from distill.audio import ComplexSpectrogramConfig, preprocess_complex_spectrograms
from distill.cache import CacheReader
def run(dataset, cache_dir):
    slot = preprocess_complex_spectrograms(
        None, dataset, ComplexSpectrogramConfig(), cache_dir=cache_dir, device="cpu", workers=2)[0]
    return len(CacheReader(slot))
run(sys.argv[1], sys.argv[3] + "-warm")
measured(lambda: run(sys.argv[2], sys.argv[3]))
"""

PLAIN = """
import multiprocessing, pathlib, soundfile, soxr, torch, torchaudio
from distill.audio import ComplexSpectrogramConfig
CONFIG = ComplexSpectrogramConfig()
RATE = CONFIG.sample_rate
torch.set_num_threads(1)
mel = torchaudio.transforms.MelSpectrogram(
    RATE, n_fft=CONFIG.n_fft, hop_length=CONFIG.hop_length, n_mels=CONFIG.n_mels, norm=None, mel_scale="htk")
@torch.inference_mode()
def rows_of(path):
    sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = torch.from_numpy(soxr.resample(sound.mean(axis=1), rate, RATE, quality="HQ"))
    mono /= mono.abs().max()
    chunks = [torch.nn.functional.pad(chunk, (0, RATE - chunk.numel())) for chunk in mono.split(RATE)]
    return sum(len(torch.log1p(mel(chunk))) > 0 for chunk in chunks)
def run(pool, dataset):
    return sum(pool.imap_unordered(rows_of, sorted(pathlib.Path(dataset).iterdir())))
with multiprocessing.get_context("fork").Pool(2) as pool:
    run(pool, sys.argv[1])
    def all_of_it():
        rows = run(pool, sys.argv[2])
        pool.close()
        pool.join()  # so that the processor time of the processes counts
        return rows
    measured(all_of_it)
"""


def sound(random: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    """Return decaying tones over a little noise, [S, 2]: neither silent nor easy to compress."""
    time = np.arange(round(seconds * rate)) / rate
    tones = [random.uniform(60, 4000) * time + 5 * random.uniform(0, 1) for _ in range(6)]
    envelope = np.exp(-3 * (time % random.uniform(0.3, 1.2)))
    mono = envelope * np.sin(2 * np.pi * np.stack(tones)).mean(axis=0) + 0.01 * random.standard_normal(time.size)
    return np.stack([0.5 * mono, 0.5 * np.roll(mono, 40)], axis=1).astype(np.float32)


def write_folder(folder: Path, names: list[tuple[str, int]], seconds: float) -> Path:
    """Write one file for each extension and rate, of slightly different lengths."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for number, (extension, rate) in enumerate(names):
        samples = sound(random, seconds + number / 7, rate)
        options = {"subtype": "PCM_16"} if extension in ("wav", "flac") else {}
        with soundfile.SoundFile(folder / f"{number:02}.{extension}", "w", rate, 2, **options) as file:
            for start in range(0, len(samples), rate):  # libsndfile's Vorbis encoder overflows its stack on long blocks
                file.write(samples[start : start + rate])
    return folder


@pytest.fixture(scope="module")
def warm(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("warm") / "up", [("wav", 44_100), ("flac", 48_000)], 2.0)


def measure(script: str, warm: Path, dataset: Path, tmp_path: Path, python: Path = PYTHON) -> dict[str, float]:
    """Run a script on a dataset in a process of its own; return what it printed."""
    cache_dir = tmp_path / "cache"
    for folder in (cache_dir, tmp_path / "cache-warm"):
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-c", MEASURED + script, str(warm), str(dataset), str(cache_dir)]
    environment = {**os.environ, "PYTHONPATH": str(python)}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    found = json.loads(printed.splitlines()[-1])
    found["busy"] = found["cpu"] / found["wall"]
    found["read_ratio"] = found["read"] / sum(path.stat().st_size for path in dataset.iterdir())
    return found


def check(dataset: Path, tmp_path: Path) -> None:
    """Check that the rows of one file are the features of its samples."""
    path = next(path for path in sorted(dataset.iterdir()) if path.suffix == ".flac")
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = soxr.resample(samples.mean(axis=1), rate, CONFIG.sample_rate)
    mono /= np.abs(mono).max()
    expected = ComplexSpectrogram(CONFIG)(torch.from_numpy(mono[: CONFIG.sample_rate])[None, None])[0].numpy()
    (slot,) = (tmp_path / "cache" / "slots").iterdir()
    reader = CacheReader(slot)
    rows = reader.read(np.arange(len(reader)))
    assert np.abs(rows[:, 0] - expected[0]).max(axis=(1, 2)).min() < 2e-3


def ratio(pairs: list[tuple[dict[str, float], dict[str, float]]], name: str) -> float:
    """Return the median over the pairs of (other, ours) of how many times more the other took."""
    return round(statistics.median(other[name] / ours[name] for other, ours in pairs), 2)


def report_before(benchmark, warm: Path, dataset: Path, tmp_path: Path, rounds: int) -> None:
    """Add the ratios to an earlier commit, if one is given."""
    if BEFORE:
        other = Path(BEFORE) / "python"
        pairs = [
            (measure(OURS, warm, dataset, tmp_path, other), measure(OURS, warm, dataset, tmp_path))
            for _ in range(rounds)
        ]
        benchmark.extra_info["times_as_fast_as_before"] = ratio(pairs, "wall")
        benchmark.extra_info["processor_time_before_to_ours"] = ratio(pairs, "cpu")
        benchmark.extra_info["bytes_read_before_over_bytes_on_disk"] = round(pairs[0][0]["read_ratio"], 2)


@pytest.mark.benchmark(group="reading of a folder, two workers, compared with a plain loop of two processes")
@pytest.mark.needs("torchaudio")
@pytest.mark.parametrize("kind", ["flac", "mixed"])
def test_short_files(benchmark, warm, tmp_path, kind):
    kinds = (
        [("flac", 44_100)] if kind == "flac" else [("wav", 48_000), ("flac", 44_100), ("mp3", 44_100), ("ogg", 44_100)]
    )
    dataset = write_folder(tmp_path / "sounds", kinds * (24 // len(kinds)), 60.0)
    plain, first = measure(PLAIN, warm, dataset, tmp_path), measure(OURS, warm, dataset, tmp_path)
    check(dataset, tmp_path)
    assert 0.9 * plain["rows"] <= first["rows"] <= plain["rows"]
    assert first["read_ratio"] > 1
    pairs = [(measure(PLAIN, warm, dataset, tmp_path), measure(OURS, warm, dataset, tmp_path)) for _ in range(ROUNDS)]
    benchmark.extra_info["bytes_read_over_bytes_on_disk"] = round(first["read_ratio"], 3)
    benchmark.extra_info["times_as_fast_as_the_plain_loop"] = ratio(pairs, "wall")
    benchmark.extra_info["processor_time_of_the_plain_loop_to_ours"] = ratio(pairs, "cpu")
    report_before(benchmark, warm, dataset, tmp_path, 3)
    benchmark.pedantic(measure, (OURS, warm, dataset, tmp_path), rounds=1)


@pytest.mark.benchmark(group="reading of long WAV files, two workers")
@pytest.mark.parametrize("files", [1, 20])
def test_long_files(benchmark, warm, tmp_path, files):
    """The share of two cores that is busy, with files that are not in memory."""
    random = np.random.default_rng(1)
    dataset = tmp_path / "long"
    dataset.mkdir()
    block = sound(random, 10.0, CONFIG.sample_rate)
    seconds = 3600 * HOURS / files
    for number in range(files):
        with soundfile.SoundFile(
            dataset / f"{number}.wav", "w", CONFIG.sample_rate, 2, "PCM_16", format="RF64"
        ) as file:
            for _ in range(max(1, round(seconds / 10))):
                file.write(block * np.float32(random.uniform(0.3, 1)))
            file.write(block[: 1000 * (number + 1)])
    rounds = []
    for _ in range(3):
        os.sync()
        for path in dataset.iterdir():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        rounds.append(measure(OURS, warm, dataset, tmp_path))
    assert rounds[0]["rows"] >= 3600 * HOURS * 0.9
    for name, figure in (("busy", "cores_busy"), ("runnable", "cores_busy_or_waited_for")):
        benchmark.extra_info[f"{figure}_of_2"] = round(statistics.median(run[name] for run in rounds), 2)
    benchmark.extra_info["bytes_read_over_bytes_on_disk"] = round(rounds[0]["read_ratio"], 3)
    # Without what was decoded, spooled to a temporary file, and read back from memory.
    on_disk = sum(path.stat().st_size for path in dataset.iterdir())
    benchmark.extra_info["bytes_from_disk_over_bytes_on_disk"] = round(rounds[0]["from_disk"] / on_disk, 3)
    report_before(benchmark, warm, dataset, tmp_path, 1)
    benchmark.pedantic(measure, (OURS, warm, dataset, tmp_path), rounds=1)
