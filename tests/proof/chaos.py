"""Writers that are killed at random moments, two at a time, while a reader reads without a pause.

Each round some files come, go or change, a writer (preprocessing, or giving space back) starts, often a second one
beside it, and some of them are killed. The contents come from a stock whose rows are known.
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
from shimmed import arguments, check_rows, check_tidy, fork, tell, wait

from distill import _native
from distill.cache import CacheReader, pack
from distill.cache.compaction import clean
from distill.errors import CacheError
from distill.preprocess.pipeline import preprocess
from sounds import noise, training, write

torch.set_num_threads(1)
pack.MAX_PACK_BYTES = 1024 + 5 * (2 * 32 * 32 * 4 + 8)
STOCK = 30


def read_without_pause(cache_dir: Path, expected: dict[bytes, np.ndarray], told: Path, stop: Path) -> None:
    """Every row that is read is right; a cache that is replaced meanwhile is no reason to fail."""
    counts: Counter[str] = Counter()
    while not stop.exists():
        try:
            reader = CacheReader(cache_dir)
        except CacheError as error:
            # Only before the first commit is there none.
            if "no valid cache" in str(error) and not counts["opened"]:
                continue
            raise
        counts["opened"] += 1
        for _ in range(2):
            rows = reader.read(np.arange(len(reader)))
            for index, content in enumerate(reader.content_hashes):
                np.testing.assert_array_equal(rows[reader.source == index], expected[content])
            counts["rows read beside writers"] += len(rows)
    told.write_text(json.dumps(counts))


def change(root: Path, stock: list[Path], chance: random.Random) -> None:
    for _ in range(chance.randrange(1, 8)):
        path = root / f"{chance.randrange(20)}.wav"
        if chance.random() < 0.4:
            path.unlink(missing_ok=True)
        else:
            shutil.copy(chance.choice(stock), path)


def main() -> None:
    asked = arguments()
    work, chance, tried = Path(asked["work"]), random.Random(asked["seed"]), Counter()
    stock = [write(work / "stock" / f"{n}.wav", noise(n, 8_000 * (1 + n % 4)), subtype="PCM_16") for n in range(STOCK)]
    reader = CacheReader(preprocess(work / "stock", training()).cache_dir)
    rows = reader.read(np.arange(len(reader)))
    expected = {content: rows[reader.source == index] for index, content in enumerate(reader.content_hashes)}

    root = work / "dataset"
    root.mkdir()
    change(root, stock[:1], random.Random(0))
    cache_dir, told, stop = root / ".cache", work / "told", work / "stop"
    beside = fork(lambda: read_without_pause(cache_dir, expected, told, stop))
    for _ in range(asked["rounds"]):
        change(root, stock, chance)
        write(root / "always.wav", noise(0, 8_000), subtype="PCM_16")
        runs = [lambda: preprocess(root, training(), workers=2) and None] * chance.choice((1, 1, 2))
        if chance.random() < 0.3 and (cache_dir / "manifest.json").exists():
            runs.append(lambda: clean(cache_dir) and None)
        writers = [fork(run) for run in runs]
        for writer in writers:
            if chance.random() < 0.6:
                time.sleep(chance.random() * 0.06)
                os.kill(writer, signal.SIGKILL)
        for status in map(wait, writers):
            assert status in (0, -signal.SIGKILL), status
            tried["writers killed at random" if status else "writers left alone"] += 1
        if (cache_dir / "manifest.json").exists():
            check_rows(cache_dir, expected)
        if chance.random() < 0.3:
            preprocess(root, training())
            present = {_native.hash_file(path) for path in root.glob("*.wav")}
            assert check_rows(cache_dir, expected) == present
            check_tidy(cache_dir)
    stop.touch()
    assert wait(beside) == 0
    seen = json.loads(told.read_text())
    tried["rows read beside writers"] = seen["rows read beside writers"]
    assert seen["opened"] > asked["rounds"] // 10
    tell(tried=tried)


if __name__ == "__main__":
    main()
