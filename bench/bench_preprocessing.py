"""Preprocessing of a folder, compared with a lower bound and with a straightforward implementation.

`pytest bench/bench_preprocessing.py --benchmark-only`. The lower bound: decode, resample and a bare STFT of each file;
both run on one thread, in alternation. The straightforward implementation: the same steps as ours from a file to its
rows, without a kernel or a cache, on one thread; ours uses two.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from distill.audio import ComplexSpectrogram, ComplexSpectrogramConfig, preprocess_complex_spectrograms
from distill.cache import CacheReader
from distill.config import AugmentationConfig
from distill.demo import write_dataset

CONFIG = ComplexSpectrogramConfig()
AUGMENTATION = AugmentationConfig()
ROUNDS = 5
SONIC_PI = Path("/usr/share/sonic-pi/samples")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    write_dataset(folder)
    return folder


def decode_and_transform(dataset: Path) -> None:
    """The lower bound: no chunks, no mel bands, nothing stored."""
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


def settled_seconds(function) -> float:
    """Measure after a sync, so that ours does not wait for files that were written before."""
    os.sync()
    return seconds(function)


def check(dataset: Path, cache_dir: Path) -> None:
    """Check that the rows of one file are the features of its samples."""
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


class Straightforward:
    """File by file: decode, resample, cut, two STFTs, the angle between them, a dense mel product, a `.pt` per row."""

    def __init__(self, out: Path, expansion: int) -> None:
        functional = pytest.importorskip("torchaudio.functional")
        self.resample = functional.resample
        self.out, self.expansion, self.rows = out, expansion, 0
        self.window = torch.hann_window(CONFIG.n_fft)
        self.filters = functional.melscale_fbanks(
            CONFIG.n_fft // 2 + 1, 0.0, CONFIG.sample_rate / 2, CONFIG.n_mels, CONFIG.sample_rate
        )
        self.random = torch.Generator().manual_seed(0)
        out.mkdir(parents=True)

    @torch.inference_mode()
    def run(self, dataset: Path) -> int:
        rate = CONFIG.sample_rate
        for path in sorted(path for path in dataset.rglob("*.*") if path.suffix in (".flac", ".wav", ".ogg", ".aiff")):
            sound, file_rate = soundfile.read(path, dtype="float32", always_2d=True)
            mono = self.resample(torch.from_numpy(sound).mean(1), file_rate, rate)
            for chunk in (mono / mono.abs().max()).split(rate):
                chunk = torch.nn.functional.pad(chunk, (0, rate - chunk.numel()))
                for sample in (chunk, *(self.variant(chunk) for _ in range(self.expansion))):
                    torch.save(self.features(sample), self.out / f"{self.rows}.pt")
                    self.rows += 1
        return self.rows

    def features(self, chunk: torch.Tensor) -> torch.Tensor:
        now, later = (self.stft(samples) for samples in (chunk, chunk.roll(-1)))
        turn = torch.remainder(later.angle() - now.angle() + torch.pi, 2 * torch.pi) - torch.pi
        power = now.abs().square()
        energy = power.T @ self.filters
        frequency = (power * turn).T @ self.filters / energy.clamp(min=1e-10)
        return torch.stack((energy.log1p().T, frequency.T))

    def stft(self, samples: torch.Tensor) -> torch.Tensor:
        return torch.stft(samples, CONFIG.n_fft, CONFIG.hop_length, window=self.window, return_complex=True)

    def variant(self, chunk: torch.Tensor) -> torch.Tensor:
        speed, shift, gain, noise = (2 * torch.rand(4, generator=self.random) - 1).tolist()
        moved = self.resample(chunk, round(1000 * (1 + AUGMENTATION.speed * speed)), 1000)
        moved = torch.nn.functional.pad(moved, (0, max(0, chunk.numel() - moved.numel())))[: chunk.numel()]
        moved = moved.roll(round(AUGMENTATION.time_shift_s * CONFIG.sample_rate * shift))
        moved = moved * 10 ** (AUGMENTATION.gain_db * (gain - 1) / 40)
        level = moved.square().mean().sqrt() * 10 ** (-(AUGMENTATION.noise_db + 10 * (noise + 1)) / 20)
        return moved + level * torch.randn(moved.shape, generator=self.random)


@pytest.fixture(scope="module")
def sounds(dataset) -> Path:
    """The samples of Sonic Pi if they are installed, else the sounds of the demo."""
    return SONIC_PI if SONIC_PI.exists() else dataset


@pytest.mark.benchmark(group="a folder of sounds, two threads, compared with a straightforward one on one thread")
@pytest.mark.parametrize("expansion", [0, 5], ids=["no variants", "5 variants"])
def test_straightforward(benchmark, sounds, tmp_path, expansion):
    def ours(name: str) -> Path:
        return preprocess_complex_spectrograms(
            None, sounds, CONFIG, AUGMENTATION, expansion, cache_dir=tmp_path / name, device="cpu", workers=2
        )[0]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    baseline = Straightforward(tmp_path / "baseline checked", expansion)
    rows = baseline.run(sounds)
    reader = CacheReader(ours("checked"))
    # Ours leaves out silent chunks. Compared by the mean over bands and frames, because the features differ in detail.
    assert 0.9 * rows <= len(reader) <= rows
    if expansion == 0:
        theirs = torch.stack([torch.load(baseline.out / f"{row}.pt") for row in range(rows)])[:, 0].mean((1, 2))
        found = torch.tensor(reader.read(np.arange(len(reader)))[:, 0].mean((1, 2)))
        nearest = (found[:, None] - theirs[None]).abs().min(dim=1).values
        assert nearest.median() < 1e-2 * theirs.std()
    pairs = [
        (
            settled_seconds(lambda n=n: ours(f"ours {n}")),
            settled_seconds(lambda n=n: Straightforward(tmp_path / f"baseline {n}", expansion).run(sounds)),
        )
        for n in range(ROUNDS)
    ]
    torch.set_num_threads(threads)
    benchmark.extra_info["dataset"] = "sonic-pi-samples" if sounds == SONIC_PI else "60 sounds of the demo"
    benchmark.extra_info["times_faster"] = round(statistics.median(baseline / ours for ours, baseline in pairs), 1)
    benchmark.pedantic(ours, setup=lambda: ((f"b{time.monotonic_ns()}",), {}), rounds=3)


MEMORY = """
import sys
import distill.preprocess.pipeline
from distill.audio import AugmentationConfig, ComplexSpectrogramConfig, preprocess_complex_spectrograms
def peak():  # not getrusage, whose peak starts at that of the parent
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
preprocess_complex_spectrograms(
    None, sys.argv[1], ComplexSpectrogramConfig(), AugmentationConfig(), int(sys.argv[2]), cache_dir=sys.argv[3],
    device="cpu", workers=2,
)
print((peak() - before) / 1024)
"""


@pytest.mark.benchmark(group="a folder of sounds, two threads, compared with a straightforward one on one thread")
@pytest.mark.parametrize("expansion", [0, 5], ids=["no variants", "5 variants"])
def test_peak_memory(benchmark, sounds, tmp_path, expansion):
    def grown() -> float:
        cache_dir = tmp_path / f"{time.monotonic_ns()}"
        command = [sys.executable, "-c", MEMORY, str(sounds), str(expansion), str(cache_dir)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    megabytes = benchmark.pedantic(grown, rounds=1)
    assert megabytes > 1
    benchmark.extra_info["MB_above_the_process_after_import"] = round(megabytes)
