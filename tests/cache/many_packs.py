"""Makes a cache of one row a pack, and uses it in a process that may have 256 files open. Run by test_many_packs.py."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from distill.audio import load_cache_manifest
from distill.cache import CacheReader, compaction, pack
from distill.cache.export import export
from distill.models import ConvVAE
from distill.preprocess.pipeline import preprocess
from distill.preprocess.status import dataset_status
from distill.preprocess.verify import verify
from distill.training import create_complex_data_loaders, train_epoch
from sounds import age, noise, training, write

FILES = 10
SAMPLES = 1_000
torch.set_num_threads(1)
CONFIG = training(chunk_samples=SAMPLES, batch_size=250, device_budget_mb=0)


def make(root: Path, packs: int) -> Path:
    """Make a dataset and its cache, one row a pack. Nothing waits for the disk."""
    for number in range(FILES):
        write(root / f"{number}.wav", noise(number, SAMPLES * packs // FILES), subtype="PCM_16")
    age(root)
    size, sync = pack.MAX_PACK_BYTES, os.fsync
    pack.MAX_PACK_BYTES, os.fsync = 1, lambda descriptor: None
    try:
        return preprocess(root, CONFIG).cache_dir
    finally:
        pack.MAX_PACK_BYTES, os.fsync = size, sync


def train(cache_dir: Path) -> int:
    """Train for an epoch; return the number of rows."""
    loader, _ = create_complex_data_loaders(cache_dir, CONFIG, val_fraction=0.01)
    model = ConvVAE(in_channels=2, latent_dim=4, n_mels=32, n_frames=loader.dataset.row_shape[-1])
    means = train_epoch(
        model,
        loader,
        torch.optim.AdamW(model.parameters()),
        use_cached_spectrograms=True,
        normalization_stats=loader.dataset.normalization_stats,
    )
    assert np.isfinite(means["loss"])
    return len(loader.dataset)


def main() -> None:
    work, packs = Path(sys.argv[1]), int(sys.argv[2])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
    root, taken = work / "dataset", {}

    def timed(name: str, call: Callable[[], object]) -> object:
        start = time.monotonic()
        result = call()
        taken[name] = round(time.monotonic() - start, 2)
        return result

    cache_dir = timed("make", lambda: make(root, packs))
    assert len(load_cache_manifest(cache_dir)["packs"]) == packs
    assert packs > timed("train", lambda: train(cache_dir)) > 0.9 * packs
    assert timed("export", lambda: export(cache_dir, work / "out", "npy")) == packs
    found = timed("verify", lambda: verify(root))
    assert (found.packs, found.damaged) == (packs, [])
    status = timed("status", lambda: dataset_status(root))
    assert (status["rows"], status["unchanged"]) == (packs, FILES)

    # All packs are merged while a reader has them open, or some of them.
    reader = timed("open", lambda: CacheReader(cache_dir))
    mean, scale = np.float32(0), np.float32(1)
    before = timed("read", lambda: reader.read(np.arange(packs), mean, scale))
    timed("clean", lambda: compaction.clean(cache_dir))
    assert len(load_cache_manifest(cache_dir)["packs"]) == 1
    assert np.array_equal(reader.read(np.arange(packs), mean, scale), before)
    assert np.array_equal(CacheReader(cache_dir).read(np.arange(packs)), before)
    opened = sum(1 for _ in Path("/dev/fd").iterdir())
    sys.stdout.write(json.dumps({"rows": packs, "open": opened, "seconds": taken}))


if __name__ == "__main__":
    main()
