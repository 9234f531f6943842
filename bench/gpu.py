"""Check the fused kernel on a GPU, then time it and its baselines.

    python bench/gpu.py [--quick] [--sweep] [--without NAME ...]
    python bench/gpu.py --once        # only compute features and check them: for profilers and sanitizers
    python bench/gpu.py --dry-run     # every step on a CPU, with launches that do nothing

Run it from the source tree; it needs torch, triton and numpy, and nothing has to be built. It prints a table and writes
`bench/results/<gpu>.json`, or `$OUT/<gpu>.json` if OUT is set, and then also the features that were checked. The report
is written again after each step, and a step that fails is noted in it, so that nothing is lost. A method that disagrees
with the float64 reference is not timed. The exit status is 1 if the kernel disagrees or a step failed.

Each call takes a waveform that is no longer in the L2 cache. A time is that of several consecutive calls between two
CUDA events, divided by their number. At batch 1 it includes the time of the host to launch; "graph" excludes that.
`gpu_session.py` runs this, the tests of the kernel, and tools that look into it.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

import numpy as np
import torch

from distill.features.mel import mel_bands
from distill.features.reference import complex_mel
from distill.features.spectrogram import ComplexSpectrogram
from distill.kernels import complex_mel as launch
from distill.kernels import make_plan
from gpu_baselines import Method, baselines
from gpu_check import GATES, SPEC, check, disagreement, errors_of, signals
from gpu_machine import compiled_kernels, nvidia_smi, versions
from gpu_report import (
    OURS,
    add_ratios,
    finite,
    io_bytes,
    left_out,
    one_line,
    row,
    slug,
    summarise,
    table,
    targets,
)
from gpu_timing import CudaTimer, HostTimer, Timer, copy_bandwidth, rotating
from no_gpu import no_gpu

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
    shapes: Sequence[dict[str, int | None]] = ()
    """Other shapes of the kernel that are timed, too."""


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


def run(setup: Setup) -> dict[str, Any]:
    """Check, measure, and return the report, which is written as JSON after every step.

    What may leave the device unusable comes last.
    """
    report = empty_report(setup)
    methods: dict[str, Method | str] = {}

    def step(name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the other steps are wanted all the more
            report["failed"][name] = one_line(error)
        write(report)
        print(f"{name}: {report['failed'].get(name, 'done')}", file=sys.stderr, flush=True)

    with torch.inference_mode():
        step("check", lambda: check_ours(setup, report))
        step("baselines", lambda: methods.update(checked_methods(setup)))
        step("copies", lambda: report.update(measure_copies(setup)))
        for n_clips in setup.sizes:
            step(f"{n_clips} clips a call", lambda n_clips=n_clips: measure_size(setup, methods, n_clips, report))
        # Right after the load, so that clocks are close to those under load.
        step("clocks", lambda: note_clocks(setup, report))
        step("kernels", lambda: report.update(kernels=compiled_kernels(setup.device)))
        step("other shapes", lambda: sweep(setup, report))
        step("graphs", lambda: capture(setup, methods, report))
    return report


def empty_report(setup: Setup) -> dict[str, Any]:
    """Return a report without results."""
    return {
        **versions(setup.device),
        "config": {**SPEC._asdict(), "clip_samples": setup.clip_samples},
        "sizes": list(setup.sizes),
        "failed": {},
        "parity": {},
        "disagrees": {},
        "gates": GATES,
        "copy_gb_per_s": None,
        "io_floor_us_per_audio_second": None,
        "clocks": {},
        "kernels": [],
        "results": [],
        "targets": [],
        "sweep": [],
    }


def check_ours(setup: Setup, report: dict[str, Any]) -> None:
    """Compute features, keep them if there is a place, and add their errors to the report."""
    method, waveforms = method_of(plan_for(setup.device)), signals(setup.parity_shape, setup.device)
    features = {name: method.call(waveform) for name, waveform in waveforms.items()}
    if os.environ.get("OUT"):
        arrays = {name: value.cpu().numpy() for name, value in features.items()}
        np.savez(result_path(report).with_suffix(".npz"), **arrays)
    for name, waveform in waveforms.items():
        report["parity"][name] = errors = errors_of(features[name], complex_mel(waveform.double(), SPEC))
        if reason := disagreement(errors):
            report["disagrees"][name] = reason


def checked_methods(setup: Setup) -> dict[str, Method | str]:
    """Return our methods and the baselines that agree with the reference, and the reasons of the others."""
    waveforms = signals(setup.parity_shape, setup.device)
    module = ComplexSpectrogram(backend="fused")
    found: dict[str, Method | str] = {
        OURS: method_of(plan_for(setup.device)),
        MODULE: Method(lambda x: module(x[:, None]), channels=2),
        **baselines(SPEC, setup.device),
    }
    for name, method in found.items():
        if name in setup.without:
            found[name] = "not requested"
        elif isinstance(method, Method):
            found[name] = _reason(method, waveforms) or method
    return found


def _reason(method: Method, waveforms: dict[str, torch.Tensor]) -> str | None:
    try:
        return next(filter(None, map(disagreement, check(method, waveforms).values())), None)
    except Exception as error:  # noqa: BLE001 - out of memory, a compiler or launch error: the others are timed
        return one_line(error)


def measure_copies(setup: Setup) -> dict[str, float]:
    """Return the bandwidth of copies, and the time in which it moves the samples and features of a second."""
    copy_gb_per_s = copy_bandwidth(setup.timer, setup.device)
    second = floor_bytes(1, SPEC.sample_rate, channels=2)
    return {"copy_gb_per_s": copy_gb_per_s, "io_floor_us_per_audio_second": second / copy_gb_per_s / 1e3}


def measure_size(setup: Setup, methods: dict[str, Method | str], n_clips: int, report: dict[str, Any]) -> None:
    """Time every method at one size."""
    seconds = n_clips * setup.clip_samples / SPEC.sample_rate
    rows = report["results"]
    try:
        buffers = rotating((n_clips, setup.clip_samples), setup.l2_bytes, setup.device)
    except torch.OutOfMemoryError as error:
        rows += [left_out(name, n_clips=n_clips, seconds=seconds, reason=str(error)) for name in methods]
        return
    for name, method in methods.items():
        if isinstance(method, str):
            rows.append(left_out(name, n_clips=n_clips, seconds=seconds, reason=method))
            continue
        try:
            samples = setup.timer(method.call, buffers)
        except Exception as error:  # noqa: BLE001 - as in _reason
            reason = "does not fit the memory" if isinstance(error, torch.OutOfMemoryError) else one_line(error)
            rows.append(left_out(name, n_clips=n_clips, seconds=seconds, reason=reason))
        else:
            n_bytes = floor_bytes(n_clips, setup.clip_samples, method.channels)
            rows.append(
                row(
                    name, seconds=seconds, n_clips=n_clips, channels=method.channels, n_bytes=n_bytes,
                    samples_us=samples, copy_gb_per_s=report["copy_gb_per_s"],
                )
            )  # fmt: skip
        setup.timer.free()
    add_ratios(rows)
    report["targets"] = targets(rows)


def note_clocks(setup: Setup, report: dict[str, Any]) -> None:
    """Add the clocks, and the version of the driver."""
    report["clocks"] = nvidia_smi(setup.device)
    report["versions"]["driver"] = report["clocks"].pop("driver_version", None)


def capture(setup: Setup, methods: dict[str, Method | str], report: dict[str, Any]) -> None:
    """Time every method at the smallest size in a CUDA graph; a failed capture may leave the device unusable."""
    smallest = min(setup.sizes)
    buffers = rotating((smallest, setup.clip_samples), setup.l2_bytes, setup.device)
    for item in report["results"]:
        if item["clips"] == smallest and "us" in item:
            try:
                item["graph_us"] = summarise(setup.timer.graph(methods[item["method"]].call, buffers))
            except Exception as error:  # noqa: BLE001 - as in _reason
                item["graph_left_out"] = one_line(error)


def floor_bytes(n_clips: int, n_samples: int, channels: int) -> int:
    """Return :func:`io_bytes` at the defaults."""
    n_frames = SPEC.n_frames(n_samples)
    return io_bytes(n_clips=n_clips, n_samples=n_samples, n_mels=SPEC.n_mels, n_frames=n_frames, channels=channels)


def sweep(setup: Setup, report: dict[str, Any]) -> None:
    """Time the kernel in other shapes, at one size."""
    if not setup.shapes:
        return
    n_clips = min(SWEEP_CLIPS, max(setup.sizes))
    seconds = n_clips * setup.clip_samples / SPEC.sample_rate
    buffers = rotating((n_clips, setup.clip_samples), setup.l2_bytes, setup.device)
    waveforms = signals(setup.parity_shape, setup.device)
    for shape in setup.shapes:
        method = method_of(plan_of_shape(shape, setup.device))
        reason = _reason(method, waveforms)
        if reason:
            report["sweep"].append({"shape": shape, "left_out": reason})
        else:
            us = summarise(setup.timer(method.call, buffers))
            report["sweep"].append({"shape": shape, "us": us, "us_per_audio_second": us["median"] / seconds})


def plan_of_shape(shape: dict[str, int | None], device: torch.device) -> Any:
    """Return a plan of another shape than the default."""
    with mock.patch.object(importlib.import_module("distill.kernels.plan"), "ROWS", shape["rows"]):
        plan = plan_for(device)
    options = {**plan.options, "maxnreg": shape["maxnreg"]}
    return dataclasses.replace(plan, options={name: value for name, value in options.items() if value is not None})


def result_path(report: dict[str, Any]) -> Path:
    """Return where a report is written."""
    folder = Path(os.environ["OUT"]) if os.environ.get("OUT") else ROOT / "bench" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{slug(report['gpu'])}.json"


def write(report: dict[str, Any]) -> Path:
    """Write a report and return its path."""
    path = result_path(report)
    path.write_text(json.dumps(finite(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer samples per measurement")
    parser.add_argument("--sweep", action="store_true", help=f"also time the kernel in {len(SHAPES)} other shapes")
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="leave out a baseline")
    parser.add_argument("--once", action="store_true", help="only compute features, and check them")
    parser.add_argument("--dry-run", action="store_true", help="every step on a CPU, with launches that do nothing")
    return parser.parse_args(argv)


def setup_for(options: argparse.Namespace) -> Setup:
    """Return the settings that the command line asks for."""
    shapes = SHAPES if options.sweep else ()
    if options.dry_run:
        without = ("compiled reference", *options.without)
        cpu = torch.device("cpu")
        return Setup(cpu, HostTimer(), (1, 2), 4_800, (2, 6_001), without=without, shapes=shapes)
    device = torch.device("cuda", torch.cuda.current_device())
    return Setup(
        device,
        CudaTimer(0.1 if options.quick else 0.5),
        l2_bytes=torch.cuda.get_device_properties(device).L2_cache_size,
        without=tuple(options.without),
        shapes=shapes,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark on the current CUDA device, and return the exit status."""
    options = arguments(argv)
    if not (options.dry_run or torch.cuda.is_available()):
        raise SystemExit("torch finds no CUDA device to measure on; tests/kernels test everything but the timings")
    # Newer versions of Python and numpy deprecate what torch or triton use.
    warnings.simplefilter("default")
    setup = setup_for(options)
    with no_gpu() if options.dry_run else nullcontext():
        if options.once:
            report = empty_report(setup)
            with torch.inference_mode():
                check_ours(setup._replace(parity_shape=(2, 24_001)), report)
            print(json.dumps(finite(report["parity"])))
        else:
            report = run(setup)
            print(table(report))
            print(f"\nwritten to {result_path(report)}")
    return 1 if report["disagrees"] or report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
