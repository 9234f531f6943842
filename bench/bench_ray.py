"""Processor time a second of audio on a Ray cluster of this machine, beside threads.

`pytest bench/bench_ray.py --benchmark-only`. Counted are all processes of the cluster, from when a quarter of the files
are done until three quarters are, so start-up stands apart. Both use as many workers. Parts have a seventh of their
usual size, which is to the disadvantage of Ray.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile

from distill.config import TrainingConfig
from distill.index import Dataset
from distill.preprocess import parts
from distill.preprocess.pipeline import preprocess
from distill.preprocess.ray_engine import RayEngine

pytestmark = [pytest.mark.needs("ray"), pytest.mark.timeout(3600)]
WORKERS = 2
ROUNDS = 3
RATE = 48_000
FILE_S = 20
FILES = 960
FILES_A_PART = 10
WINDOW = (0.25, 0.75)
TICKS = os.sysconf("SC_CLK_TCK")
CONFIG = TrainingConfig(augmentation_expansion=0, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """WAV files that differ in a second only."""
    root = tmp_path_factory.mktemp("audio")
    chance = np.random.default_rng(0)
    sound = 0.4 * np.sin(2 * np.pi * 440 * np.arange(FILE_S * RATE) / RATE)
    sound += 0.05 * chance.standard_normal(len(sound))
    for number in range(FILES):
        sound[:RATE] = 0.05 * chance.standard_normal(RATE)
        soundfile.write(root / f"{number}.wav", sound, RATE, subtype="PCM_16")
    return root


def cluster_seconds() -> dict[int, float]:
    """Return the processor time of each process in sessions that this process has started: those of Ray.

    Without that of children that have ended: Ray ends workers that it has started in vain, whose start-up would count.
    """
    seconds = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if parent_of(int(fields[3])) == os.getpid():
                seconds[int(path.parent.name)] = sum(map(int, fields[11:13])) / TICKS
    return seconds


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


class Measured(NamedTuple):
    """What a run took, seconds, and the statistics of its rows."""

    processor_time: float
    """For each second of audio."""
    start_up: float
    """Until the first files were done."""
    statistics: dict[str, float]


def processor_time(folder: Path, cache_dir: Path, engine: RayEngine | None) -> Measured:
    """Preprocess a folder into a new cache."""
    shutil.rmtree(cache_dir, ignore_errors=True)
    seen: list[tuple[int, float, dict[int, float]]] = []
    start, first = time.perf_counter(), 0.0

    def progress(stage: str, current: int, total: int) -> None:
        nonlocal first
        if stage != "features" or not current:
            return
        first = first or time.perf_counter() - start
        if len(seen) < len(WINDOW) and current >= WINDOW[len(seen)] * total:
            seen.append((current, time.process_time(), cluster_seconds() if engine else {}))

    dataset = Dataset(folder, cache_dir=cache_dir)
    result = preprocess(dataset, CONFIG, workers=WORKERS, engine=engine, progress=progress)
    assert (result.decoded, result.rows) == (FILES, FILES * FILE_S)
    (files, own, others), (more_files, own_later, others_later) = seen
    taken = own_later - own + sum(later - others.get(pid, 0.0) for pid, later in others_later.items())
    return Measured(taken / ((more_files - files) * FILE_S), first, result.normalization_stats)


@pytest.mark.benchmark(group="a Ray cluster of this machine, two workers")
def test_processor_time(benchmark, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "rows_that_fit", lambda *_: FILES_A_PART * FILE_S)
    engine = RayEngine(workers=WORKERS)
    pairs = []
    for _ in range(ROUNDS):
        pairs.append([processor_time(folder, tmp_path / "cache", each) for each in (None, engine)])
        assert pairs[-1][0].statistics == pairs[-1][1].statistics
    ratio = statistics.median(ray.processor_time / threads.processor_time for threads, ray in pairs)
    benchmark.extra_info["ratio_to_threads"] = round(ratio, 3)
    benchmark.extra_info["start_up_of_the_cluster_s"] = round(statistics.median(ray.start_up for _, ray in pairs), 1)
    benchmark.pedantic(lambda: None, rounds=1)
