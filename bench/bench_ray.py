"""Processor time a second of audio on a Ray cluster of this machine, beside threads.

`pytest bench/bench_ray.py --benchmark-only`. Counted are all processes of the cluster. Start-up stands apart: a run
with few files is taken from one with many. Both use as many workers, and their rows are compared first.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile

from distill.cache import CacheReader
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
FEW, MANY = 8, 128
TICKS = os.sysconf("SC_CLK_TCK")
CONFIG = TrainingConfig(augmentation_expansion=0, device="cpu")


class Spent(NamedTuple):
    """What a run took, seconds."""

    processor: float
    wall: float


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A folder with few files, and one with many."""
    root = tmp_path_factory.mktemp("audio")
    chance = np.random.default_rng(0)
    for name, count in (("few", FEW), ("many", MANY)):
        (root / name).mkdir()
        for number in range(count):
            tone = np.sin(2 * np.pi * (100 + 20 * number) * np.arange(FILE_S * RATE) / RATE)
            sound = 0.4 * tone + 0.1 * chance.standard_normal(FILE_S * RATE).clip(-5, 5)
            soundfile.write(root / name / f"{number}.flac", sound, RATE, subtype="PCM_24")
    return root / "few", root / "many"


class Session:
    """The processor time of all processes that a process started, by their session, also of those that have ended."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, str], float] = {}

    def look(self) -> None:
        """Add up what the processes have spent by now."""
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            session, start = int(fields[3]), fields[19]
            if parent_of(session) == os.getpid():
                ticks = int(fields[11]) + int(fields[12])
                self._seconds[int(path.parent.name), start] = ticks / TICKS

    @property
    def seconds(self) -> float:
        """What they have spent."""
        return sum(self._seconds.values())


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def spent(folder: Path, cache_dir: Path, engine: RayEngine | None) -> Spent:
    """Preprocess a folder into a new cache."""
    shutil.rmtree(cache_dir, ignore_errors=True)
    session = Session()
    own, start = time.process_time(), time.perf_counter()
    preprocess(
        Dataset(folder, cache_dir=cache_dir),
        CONFIG,
        workers=WORKERS,
        engine=engine,
        progress=lambda *_: engine and session.look(),
    )
    return Spent(time.process_time() - own + session.seconds, time.perf_counter() - start)


def rows(cache_dir: Path) -> dict[bytes, bytes]:
    reader = CacheReader(next((cache_dir / "slots").iterdir()))
    values = reader.read(np.arange(len(reader)))
    return {content: values[reader.source == index].tobytes() for index, content in enumerate(reader.content_hashes)}


@pytest.mark.benchmark(group="a Ray cluster of this machine, two workers")
def test_processor_time(benchmark, folders, tmp_path, monkeypatch):
    few = folders[0]
    # Small parts, so that both workers have as much to do.
    monkeypatch.setattr(parts, "rows_that_fit", lambda *_: 4 * FILE_S)
    engines: dict[str, RayEngine | None] = {"threads": None, "Ray": RayEngine(workers=WORKERS)}
    for name, engine in engines.items():
        spent(few, tmp_path / name, engine)
    assert rows(tmp_path / "threads") == rows(tmp_path / "Ray")

    marginal: dict[str, list[float]] = {name: [] for name in engines}
    start_up: list[float] = []
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            small, large = (spent(folder, tmp_path / name, engine) for folder in folders)
            each = (large.processor - small.processor) / ((MANY - FEW) * FILE_S)
            marginal[name].append(each)
            if engine:
                start_up.append(small.wall - each * FEW * FILE_S / WORKERS)
    threads, ray = (statistics.median(marginal[name]) for name in ("threads", "Ray"))
    benchmark.extra_info["processor_time_to_threads_target_1.03"] = round(ray / threads, 3)
    benchmark.extra_info["start-up_of_the_cluster_s"] = round(statistics.median(start_up), 1)
    benchmark.pedantic(lambda: spent(few, tmp_path / "Ray", engines["Ray"]), rounds=1)
