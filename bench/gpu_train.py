"""Time training: a step, the loader, and what share of a step waits for rows.

    python bench/gpu_train.py [CACHE] [--device cuda] [--batch-size 64] [--model-size small] [--steps 100] [--rows 2048]
    torchrun --nproc-per-node 2 bench/gpu_train.py [CACHE] ...

CACHE is a slot, as `distill preprocess` prints it; without one, noise is preprocessed to as many rows as --rows says.
It prints a table and writes `bench/results/train-<device>.json`, or the same to `$OUT`. It runs on a CPU, too; those
times say what a CPU does, and nothing about a GPU.

- "step": forward, backward, reduction of gradients and update, on a batch that is on the device already.
- "loader": a batch of the loader, with nothing else to do.
- "training": both, as training does it. "waits for rows" is the share of this time in which the next batch is awaited.
- "held": rows are on the device. "read": they are read from the packs, one batch ahead. Their pages are in the page
  cache of the system, unless CACHE was not read since the machine started.

Unlike bench/gpu.py it needs the built extension, because the extension reads the cache: `make install`, or a copy of
python/distill/_native.abi3.so from a machine with the same operating system and kind of processor; and the packages
numpy, safetensors, soundfile and soxr.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

import numpy as np
import torch

try:
    from distill.audio import preprocess_complex_spectrograms
    from distill.audio.sound_file import write_sound
    from distill.audio.sound_format import SoundFormat
    from distill.config import TrainingConfig
    from distill.device import resolve_device
    from distill.training.data import TrainingData, model_batches
    from distill.training.epochs import Means, train_step
    from distill.training.trainer import new_model
    from distill.training.world import World, joined
except ImportError as error:
    sys.exit(f"{error}\nit needs the built extension and the packages of distill; {__file__} says how to get them")

ROOT = Path(__file__).resolve().parent.parent
_WARM_UP = 5
_WEIGHTS = {"if_weight": 0.5, "kl_weight": 2e-3, "free_bits": 0.05, "loud_share": 0.5, "gradient_clip": 1.0}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time training: a step, the loader, and what waits for rows.")
    parser.add_argument("cache", type=Path, nargs="?", help="slot of a cache; default: noise is preprocessed")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=64, help="rows of a batch, over all processes")
    parser.add_argument("--model-size", default="small", choices=("small", "medium", "large"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rows", type=int, default=2048)
    return parser.parse_args()


def cache_of_noise(folder: Path, rows: int, config: TrainingConfig) -> Path:
    """Preprocess noise to about this many rows."""
    rng = np.random.default_rng(0)
    rate = config.complex_spectrogram.sample_rate
    chunks = math.ceil(rows / 16)
    for number in range(16):
        samples = rng.uniform(-0.5, 0.5, chunks * config.chunk_samples).astype(np.float32)
        write_sound(folder / f"{number:02d}.wav", [samples], rate, SoundFormat(sample_format="pcm16"))
    return preprocess_complex_spectrograms(None, folder, config.complex_spectrogram)[0]


class Bench:
    """The model and the data of one process."""

    def __init__(self, world: World, cache: Path, config: TrainingConfig, steps: int) -> None:
        self.world, self.config, self.steps = world, config, steps
        self.device = resolve_device(config.device)
        self.cache = cache
        self.data = self.open(0)
        shape = next(self.data.features(self.data.val)).shape[1:]
        torch.manual_seed(0)
        model = new_model(config, shape).to(self.device)
        self.model = world.wrap(model, config.batch_size).train()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def open(self, budget_mb: int) -> TrainingData:
        return TrainingData.from_cache(self.cache, replace(self.config, device_budget_mb=budget_mb))

    def batches(self, data: TrainingData) -> Iterator[torch.Tensor]:
        """Yield this process's part of batches, epoch after epoch."""
        while True:
            data.sampler.share = self.world.share
            yield from data.train

    def parts(self, data: TrainingData) -> Iterator[Any]:
        while True:
            epoch = self.world.parts(len(data.train.dataset), self.config.batch_size)
            yield from itertools.islice(epoch, len(data.sampler))

    def prepared(self, data: TrainingData, batches: Iterator[torch.Tensor]) -> Iterator[Any]:
        parts = self.parts(data)
        return model_batches(batches, None, data.stats, self.device, cached=True, shifted_share=0.5, parts=parts)

    def step(self, target: torch.Tensor, energy: torch.Tensor, part: Any) -> None:
        losses = train_step(self.model, self.optimizer, target, energy, **_WEIGHTS, part=part)
        # Waits for the device, as training does.
        Means().add(losses, len(target))

    def median(self, call: Callable[[], Any]) -> float:
        """Return the median of the seconds of a call."""
        taken = []
        for number in range(_WARM_UP + self.steps):
            start = time.perf_counter()
            call()
            if number >= _WARM_UP:
                taken.append(time.perf_counter() - start)
        return statistics.median(taken)

    def training(self, budget_mb: int) -> dict[str, float]:
        """Time the loader alone, and training with it."""
        data = self.open(budget_mb)
        batches = self.batches(data)
        loader = self.median(lambda: next(batches))
        batches.close()
        waited = 0.0

        def timed() -> Iterator[torch.Tensor]:
            nonlocal waited
            batches = self.batches(data)
            while True:
                start = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - start
                yield batch

        prepared = self.prepared(data, timed())
        for _ in range(_WARM_UP):
            self.step(*next(prepared))
        waited, start = 0.0, time.perf_counter()
        for _ in range(self.steps):
            self.step(*next(prepared))
        whole = time.perf_counter() - start
        return {
            "loader_ms": 1e3 * loader,
            "training_ms": 1e3 * whole / self.steps,
            "waits_for_rows": waited / whole,
            "rows_per_s": self.config.batch_size * self.steps / whole,
        }


def measure(world: World, cache: Path, config: TrainingConfig, steps: int) -> dict[str, Any]:
    bench = Bench(world, cache, config, steps)
    # A whole batch: the last one of an epoch has fewer rows.
    batch = next(bench.prepared(bench.data, bench.batches(bench.data)))
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else bench.device.type
    return {
        "device": name,
        "processes": world.size,
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "batch_size": config.batch_size,
        "model_size": config.model_size,
        "rows": len(bench.data.train.dataset),
        "row_shape": list(batch[0].shape[1:]),
        "step_ms": 1e3 * bench.median(lambda: bench.step(*batch)),
        "held": bench.training(1_000_000),
        "read": bench.training(0),
    }


def show(result: dict[str, Any]) -> None:
    print(f"{result['device']}, {result['processes']} processes, torch {result['torch']}, {result['cores']} cores")
    print(f"{result['model_size']} model, batches of {result['batch_size']} rows {result['row_shape']}")
    print(f"step      {result['step_ms']:9.2f} ms")
    for name in ("held", "read"):
        found = result[name]
        print(
            f"{name:<9} loader {found['loader_ms']:8.2f} ms   training {found['training_ms']:8.2f} ms   "
            f"waits for rows {100 * found['waits_for_rows']:5.1f} %   {found['rows_per_s']:8.0f} rows/s"
        )
    if result["device"] == "cpu":
        print("on a CPU: these times say nothing about a GPU")


def main() -> None:
    arguments = parse()
    config = TrainingConfig(
        device=arguments.device, batch_size=arguments.batch_size, model_size=arguments.model_size, dropout=0.1
    )
    with joined(config.device, threading.Event()) as world, tempfile.TemporaryDirectory() as folder:
        if world.is_first:
            cache = arguments.cache or cache_of_noise(Path(folder), arguments.rows, config)
            world.tell(lambda: cache)
        else:
            cache = world.hear()
        result = measure(world, cache, config, arguments.steps)
        if world.is_first:
            show(result)
            target = Path(os.environ.get("OUT", ROOT / "bench" / "results"))
            name = result["device"].lower().replace(" ", "-")
            (target / f"train-{name}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
