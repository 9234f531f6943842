"""Preprocessing of a folder, beside the least that could be done: decode, resample and a bare STFT of each file.

`pytest bench/bench_preprocessing.py --benchmark-only`. Both sides run on one thread, in turn.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from distill.audio import ComplexSpectrogram, ComplexSpectrogramConfig, preprocess_complex_spectrograms
from distill.cache import CacheReader
from distill.demo import write_dataset

CONFIG = ComplexSpectrogramConfig()
ROUNDS = 5


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    write_dataset(folder)
    return folder


def decode_and_transform(dataset: Path) -> None:
    """The baseline: no chunks, no mel, nothing kept."""
    window = torch.hann_window(CONFIG.n_fft)
    for path in dataset.rglob("*.*"):
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
        mono = torch.from_numpy(soxr.resample(sound.mean(axis=1), rate, CONFIG.sample_rate))
        torch.stft(mono, CONFIG.n_fft, CONFIG.hop_length, window=window, return_complex=True)


def preprocess(dataset: Path, cache_dir: Path) -> Path:
    return preprocess_complex_spectrograms(None, dataset, CONFIG, cache_dir=cache_dir, device="cpu", workers=1)[0]


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def check(dataset: Path, cache_dir: Path) -> None:
    """The rows of one file are those of its samples."""
    path = dataset / "metal/bell00.wav"
    if not path.exists():
        path = next((dataset / "metal").glob("bell0*.wav"))
    sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = soxr.resample(sound.mean(axis=1), rate, CONFIG.sample_rate)
    mono /= np.abs(mono).max()
    expected = ComplexSpectrogram(CONFIG)(torch.from_numpy(mono[: CONFIG.sample_rate])[None, None])[0].numpy()
    reader = CacheReader(cache_dir)
    rows = reader.read(np.arange(len(reader)))
    assert np.abs(rows[:, 0] - expected[0]).max(axis=(1, 2)).min() < 2e-3


@pytest.mark.benchmark(group="a folder of 60 sounds, one thread")
def test_first_run(benchmark, dataset, tmp_path):
    check(dataset, preprocess(dataset, tmp_path / "checked"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pairs = [
        (seconds(lambda n=n: preprocess(dataset, tmp_path / f"{n}")), seconds(lambda: decode_and_transform(dataset)))
        for n in range(ROUNDS)
    ]
    torch.set_num_threads(threads)
    ratio = statistics.median(ours / baseline for ours, baseline in pairs)
    benchmark.extra_info["ratio_to_decode_resample_stft"] = round(ratio, 2)
    benchmark.pedantic(preprocess, setup=lambda: ((dataset, tmp_path / f"b{time.monotonic_ns()}"), {}), rounds=ROUNDS)


@pytest.mark.benchmark(group="a folder of 60 sounds, one thread")
def test_second_run(benchmark, dataset, tmp_path):
    first = seconds(lambda: preprocess(dataset, tmp_path / "cache"))
    time.sleep(2.1)  # until the stamps are old enough to be trusted
    preprocess(dataset, tmp_path / "cache")
    second = statistics.median(seconds(lambda: preprocess(dataset, tmp_path / "cache")) for _ in range(ROUNDS))
    benchmark.extra_info["ratio_to_first_run"] = round(second / first, 5)
    benchmark(preprocess, dataset, tmp_path / "cache")
