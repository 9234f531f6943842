"""Check the fused kernel on a GPU, then time it and its baselines.

    python bench/gpu.py [--quick] [--sweep] [--without NAME ...]

Run it from the source tree; it needs torch, triton and numpy, and nothing has to be built. It prints a table and writes
`bench/results/<gpu>.json`, or `$OUT/<gpu>.json` if OUT is set. If the kernel disagrees with the float64 reference,
nothing is timed.

Each call takes a waveform that is no longer in the L2 cache. A time is that of several consecutive calls between two
CUDA events, divided by their number. At batch 1 it includes the time of the host to launch; "graph" excludes that. The
tests of the kernel are run by ``pytest tests/kernels -m gpu``, which needs pytest and no plugins.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

import torch
import triton
from triton.errors import TritonError

from distill.features.mel import mel_bands
from distill.features.spectrogram import ComplexSpectrogram
from distill.kernels import complex_mel as launch
from distill.kernels import make_plan
from gpu_baselines import Method, baselines
from gpu_check import GATES, SPEC, check, disagreement, signals
from gpu_report import OURS, add_ratios, io_bytes, left_out, row, slug, summarise, table, targets
from gpu_timing import CudaTimer, Timer, copy_bandwidth, rotating

ROOT = Path(__file__).resolve().parent.parent

SIZES = (1, 64, 512, 4096)
MODULE = "ComplexSpectrogram"
"""Our kernel as users call it: with its checks and the dispatch of the operator."""

SWEEP_CLIPS = 512
SHAPES = [
    {"rows": 8, "maxnreg": 80},
    {"rows": 8, "maxnreg": 96},
    {"rows": 8, "maxnreg": 168},
    {"rows": 4, "maxnreg": None},
]
"""Shapes of the kernel for --sweep: warps per program, and maximum registers per thread (None: up to the compiler)."""


class Setup(NamedTuple):
    """The settings of a run: on a GPU, or in the tests on a CPU with interpreted kernels."""

    device: torch.device
    timer: Timer
    sizes: tuple[int, ...] = SIZES
    """Clips per call."""
    clip_samples: int = SPEC.sample_rate
    parity_shape: tuple[int, int] = (16, 96_001)
    l2_bytes: int = 0
    without: tuple[str, ...] = ()
    """Names of methods that are not measured."""


def plan_for(device: torch.device) -> Any:
    """Return the kernel's plan for a device, at the defaults."""
    if torch.version.hip:
        wave = torch.cuda.get_device_properties(device).warp_size
        return make_plan(mel_bands(SPEC), n_fft=SPEC.n_fft, backend="hip", wave=wave)
    return make_plan(mel_bands(SPEC), n_fft=SPEC.n_fft)


def method_of(plan: Any) -> Method:
    """Return the kernel with a plan."""
    hop_length, threshold = SPEC.hop_length, SPEC.if_masking_threshold
    return Method(lambda x: launch(x, plan, hop_length=hop_length, threshold=threshold), channels=2)


def checked_methods(setup: Setup, plan: Any) -> tuple[dict[str, Method | str], dict[str, Any]]:
    """Return our methods and the baselines that agree with the reference, the others' reasons, and our errors."""
    waveforms = signals(setup.parity_shape, setup.device)
    ours = method_of(plan)
    parity = check(ours, waveforms)
    for name, errors in parity.items():
        reason = disagreement(errors)
        if reason:
            raise SystemExit(f"the kernel, {name} waveforms: {reason}; nothing was timed")
    module = ComplexSpectrogram(backend="fused")
    found = {OURS: ours, MODULE: Method(lambda x: module(x[:, None]), channels=2)}
    found.update(baselines(SPEC, setup.device))
    for name in list(found)[1:]:
        if name in setup.without:
            found[name] = "not requested"
        elif isinstance(found[name], Method):
            found[name] = _reason(found[name], waveforms) or found[name]
    return found, parity


def _reason(method: Method, waveforms: dict[str, torch.Tensor]) -> str | None:
    # A baseline that fails (out of memory, a compiler or launch error) must not end the run.
    try:
        return next(filter(None, map(disagreement, check(method, waveforms).values())), None)
    except (RuntimeError, TritonError) as error:
        return f"{type(error).__name__}: {error}"


def measure(setup: Setup, methods: dict[str, Method | str], copy_gb_per_s: float) -> list[dict[str, Any]]:
    """Time every method at every size, and finally, at the smallest size, in a CUDA graph."""
    rows = []
    for n_clips in setup.sizes:
        rows += measure_size(setup, methods, n_clips, copy_gb_per_s)
        print(f"timed {n_clips} clips per call", file=sys.stderr, flush=True)
    smallest = min(setup.sizes)
    buffers = rotating((smallest, setup.clip_samples), setup.l2_bytes, setup.device)
    for item in rows:
        if item["clips"] == smallest and "us" in item:
            # At the end, because a failed capture may leave the device unusable.
            try:
                item["graph_us"] = summarise(setup.timer.graph(methods[item["method"]].call, buffers))
            except (RuntimeError, TritonError) as error:
                item["graph_left_out"] = f"{type(error).__name__}: {error}"[:200]
    add_ratios(rows)
    return rows


def measure_size(
    setup: Setup, methods: dict[str, Method | str], n_clips: int, copy_gb_per_s: float
) -> list[dict[str, Any]]:
    """Time every method at one size."""
    rows = []
    seconds = n_clips * setup.clip_samples / SPEC.sample_rate
    try:
        buffers = rotating((n_clips, setup.clip_samples), setup.l2_bytes, setup.device)
    except torch.OutOfMemoryError as error:
        return [left_out(name, n_clips=n_clips, seconds=seconds, reason=str(error)) for name in methods]
    for name, method in methods.items():
        if isinstance(method, str):
            rows.append(left_out(name, n_clips=n_clips, seconds=seconds, reason=method))
            continue
        try:
            samples = setup.timer(method.call, buffers)
        except (RuntimeError, TritonError) as error:
            reason = "does not fit the memory" if isinstance(error, torch.OutOfMemoryError) else str(error)
            rows.append(left_out(name, n_clips=n_clips, seconds=seconds, reason=reason))
        else:
            n_bytes = floor_bytes(n_clips, setup.clip_samples, method.channels)
            rows.append(
                row(
                    name, seconds=seconds, n_clips=n_clips, channels=method.channels, n_bytes=n_bytes,
                    samples_us=samples, copy_gb_per_s=copy_gb_per_s,
                )
            )  # fmt: skip
        setup.timer.free()
    return rows


def floor_bytes(n_clips: int, n_samples: int, channels: int) -> int:
    """Return :func:`io_bytes` at the defaults."""
    n_frames = SPEC.n_frames(n_samples)
    return io_bytes(n_clips=n_clips, n_samples=n_samples, n_mels=SPEC.n_mels, n_frames=n_frames, channels=channels)


@torch.inference_mode()
def sweep(setup: Setup, shapes: Sequence[dict[str, int | None]]) -> list[dict[str, Any]]:
    """Time the kernel in other shapes, at one size."""
    found = []
    n_clips = min(SWEEP_CLIPS, max(setup.sizes))
    seconds = n_clips * setup.clip_samples / SPEC.sample_rate
    buffers = rotating((n_clips, setup.clip_samples), setup.l2_bytes, setup.device)
    waveforms = signals(setup.parity_shape, setup.device)
    for shape in shapes:
        method = method_of(plan_of_shape(shape, setup.device))
        reason = _reason(method, waveforms)
        if reason:
            found.append({"shape": shape, "left_out": reason})
        else:
            us = summarise(setup.timer(method.call, buffers))
            found.append({"shape": shape, "us": us, "us_per_audio_second": us["median"] / seconds})
    return found


def plan_of_shape(shape: dict[str, int | None], device: torch.device) -> Any:
    """Return a plan of another shape than the default."""
    with mock.patch.object(importlib.import_module("distill.kernels.plan"), "ROWS", shape["rows"]):
        plan = plan_for(device)
    options = {**plan.options, "maxnreg": shape["maxnreg"]}
    return dataclasses.replace(plan, options={name: value for name, value in options.items() if value is not None})


def compiled_kernels(device: torch.device) -> list[dict[str, int]]:
    """Return the resources of the kernels that were compiled so far."""
    kernel = importlib.import_module("distill.kernels.complex_mel").complex_mel_kernel
    return [
        {
            "registers": binary.n_regs,
            "spills": binary.n_spills,
            "shared_bytes": binary.metadata.shared,
            "num_warps": binary.metadata.num_warps,
        }
        for binary in kernel.device_caches[device.index][0].values()
    ]


def nvidia_smi(device: torch.device) -> dict[str, str]:
    """Return driver, clocks and power limit from nvidia-smi; empty if it is missing or fails."""
    program = shutil.which("nvidia-smi")
    if device.type != "cuda" or program is None:
        return {}
    names = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.limit")
    uuid = torch.cuda.get_device_properties(device).uuid
    command = [program, f"--id=GPU-{uuid}", f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return {}
    values = [value.strip() for value in done.stdout.split(",")]
    return dict(zip(names, values, strict=True)) if done.returncode == 0 and len(values) == len(names) else {}


def run(setup: Setup) -> dict[str, Any]:
    """Check, measure, and return the report that is written as JSON."""
    with torch.inference_mode():
        methods, parity = checked_methods(setup, plan_for(setup.device))
        copy_gb_per_s = copy_bandwidth(setup.timer, setup.device)
        rows = measure(setup, methods, copy_gb_per_s)
        # Right after the load, so that clocks are close to those under load.
        clocks = nvidia_smi(setup.device)
    second = floor_bytes(1, SPEC.sample_rate, channels=2)
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "gpu": torch.cuda.get_device_name(setup.device) if setup.device.type == "cuda" else str(setup.device),
        "versions": {
            "torch": torch.__version__,
            "triton": triton.__version__,
            "cuda": torch.version.cuda or torch.version.hip,
            "driver": clocks.pop("driver_version", None),
        },
        "clocks": clocks,
        "config": {**SPEC._asdict(), "clip_samples": setup.clip_samples},
        "sizes": list(setup.sizes),
        "parity": parity,
        "gates": GATES,
        "copy_gb_per_s": copy_gb_per_s,
        "io_floor_us_per_audio_second": second / copy_gb_per_s / 1e3,
        "kernels": [],
        "results": rows,
        "targets": targets(rows),
        "sweep": [],
    }


def write(report: dict[str, Any]) -> Path:
    """Write a report and return its path."""
    folder = Path(os.environ["OUT"]) if os.environ.get("OUT") else ROOT / "bench" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{slug(report['gpu'])}.json"
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return path


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark on the current CUDA device."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer samples per measurement")
    parser.add_argument("--sweep", action="store_true", help=f"also time the kernel in {len(SHAPES)} other shapes")
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="leave out a baseline")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device to measure on; tests/kernels test everything but the timings")
    device = torch.device("cuda", torch.cuda.current_device())
    setup = Setup(
        device,
        CudaTimer(0.1 if options.quick else 0.5),
        l2_bytes=torch.cuda.get_device_properties(device).L2_cache_size,
        without=tuple(options.without),
    )
    report = run(setup)
    # Written now, before anything else can fail.
    path = write(report)
    report["kernels"] = compiled_kernels(device)
    if options.sweep:
        report["sweep"] = sweep(setup, SHAPES)
    write(report)
    print(table(report))
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
