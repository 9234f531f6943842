"""Kills writers at random moments while a reader reads all the time.

In each round, some files are added, removed or changed, one or two writers (preprocessing or `clean`) start, and some
of them are killed. The files are copies from a fixed set whose rows are known.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from shimmed import arguments, check_rows, check_tidy, fork, report, wait

from distill import _native
from distill.cache import CacheReader, pack
from distill.cache.compaction import clean
from distill.errors import CacheError
from distill.preprocess.pipeline import preprocess
from sounds import noise, training, write

torch.set_num_threads(1)
pack.MAX_PACK_BYTES = 1024 + 5 * (2 * 32 * 32 * 4 + 8)
STOCK = 30


def read_until(stop: Path, cache_dir: Path, expected: dict[bytes, np.ndarray], result: Path) -> None:
    """Read and check all rows again and again; write counts to `result`."""
    counts: Counter[str] = Counter()
    while not stop.exists():
        try:
            reader = CacheReader(cache_dir)
        except CacheError as error:
            # There is no cache only before the first commit.
            if "no valid cache" in str(error) and not counts["opened"]:
                continue
            raise
        counts["opened"] += 1
        for _ in range(2):
            rows = reader.read(np.arange(len(reader)))
            for index, content in enumerate(reader.content_hashes):
                np.testing.assert_array_equal(rows[reader.source == index], expected[content])
            counts["rows read during writes"] += len(rows)
    result.write_text(json.dumps(counts))


def change(root: Path, stock: list[Path], chance: random.Random) -> None:
    for _ in range(chance.randrange(1, 8)):
        path = root / f"{chance.randrange(20)}.wav"
        if chance.random() < 0.4:
            path.unlink(missing_ok=True)
        else:
            shutil.copy(chance.choice(stock), path)


def main() -> None:
    options = arguments()
    work, chance, tried = Path(options["work"]), random.Random(options["seed"]), Counter()
    stock = [write(work / "stock" / f"{n}.wav", noise(n, 8_000 * (1 + n % 4)), subtype="PCM_16") for n in range(STOCK)]
    reader = CacheReader(preprocess(work / "stock", training()).cache_dir)
    rows = reader.read(np.arange(len(reader)))
    expected = {content: rows[reader.source == index] for index, content in enumerate(reader.content_hashes)}

    root = work / "dataset"
    root.mkdir()
    change(root, stock[:1], random.Random(0))
    cache_dir, result, stop = root / ".cache", work / "result", work / "stop"

    def has_rows() -> bool:
        return any(cache_dir.glob("slots/*/manifest.json"))

    reading = fork(lambda: read_until(stop, cache_dir, expected, result))
    for _ in range(options["rounds"]):
        change(root, stock, chance)
        write(root / "always.wav", noise(0, 8_000), subtype="PCM_16")
        runs = [lambda: preprocess(root, training(), workers=2) and None] * chance.choice((1, 1, 2))
        if chance.random() < 0.3 and has_rows():
            runs.append(lambda: clean(cache_dir) and None)
        writers = [fork(run) for run in runs]
        for writer in writers:
            if chance.random() < 0.6:
                time.sleep(chance.random() * 0.06)
                os.kill(writer, signal.SIGKILL)
        for status in map(wait, writers):
            assert status in (0, -signal.SIGKILL), status
            tried["writers killed at random" if status else "writers left alone"] += 1
        if has_rows():
            check_rows(cache_dir, expected)
        if chance.random() < 0.3:
            preprocess(root, training())
            present = {_native.hash_file(path) for path in root.glob("*.wav")}
            assert check_rows(cache_dir, expected) == present
            check_tidy(cache_dir)
    stop.touch()
    assert wait(reading) == 0
    seen = json.loads(result.read_text())
    tried["rows read during writes"] = seen["rows read during writes"]
    assert seen["opened"] > options["rounds"] // 10
    report(tried)


if __name__ == "__main__":
    main()
