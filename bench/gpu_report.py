"""The figures of `bench/gpu.py`: summaries, ratios, targets, a table. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

OURS = "distill"
TORCH_BASELINES = ("eager reference", "compiled reference", "cuFFT + pointwise", "torchaudio")
"""Baselines of the target "3 times faster"; torchaudio computes one of the two channels."""
FLASHMEL = "flashmel"

Row = dict[str, Any]


def quantile(values: Sequence[float], q: float) -> float:
    """Return the quantile `q` of `values`, from 0 to 1, with linear interpolation."""
    ordered = sorted(values)
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def summarise(samples_us: Sequence[float]) -> dict[str, float]:
    """Return median and spread of the time of a call, µs."""
    return {
        "median": quantile(samples_us, 0.5),
        "p10": quantile(samples_us, 0.1),
        "p90": quantile(samples_us, 0.9),
        "samples": len(samples_us),
    }


def io_bytes(*, n_clips: int, n_samples: int, n_mels: int, n_frames: int, channels: int) -> int:
    """Return the least memory traffic in bytes: float32 samples read once, features written once."""
    return 4 * n_clips * (n_samples + channels * n_mels * n_frames)


def row(
    method: str, *, seconds: float, n_clips: int, channels: int, n_bytes: int, samples_us: Sequence[float],
    copy_gb_per_s: float,
) -> Row:  # fmt: skip
    """Return the result of one method at one size.

    Parameters
    ----------
    method : str
        Name of the method.
    seconds : float
        Seconds of audio per call.
    n_clips : int
        Clips per call.
    channels : int
        Channels that the method computes.
    n_bytes : int
        Least memory traffic, from :func:`io_bytes`.
    samples_us : sequence of float
        Times of a call, µs.
    copy_gb_per_s : float
        Bandwidth of a plain copy on the same card, GB/s, reads plus writes.
    """
    us = summarise(samples_us)
    floor_us = n_bytes / copy_gb_per_s / 1e3
    return {
        "method": method,
        "clips": n_clips,
        "seconds": seconds,
        "channels": channels,
        "us": us,
        "us_per_audio_second": us["median"] / seconds,
        "gb_per_s": n_bytes / us["median"] / 1e3,
        "share_of_io_floor": floor_us / us["median"],
    }


def left_out(method: str, *, n_clips: int, seconds: float, reason: str) -> Row:
    """Return the result of a method that was not timed at a size: the reason, in one line."""
    return {"method": method, "clips": n_clips, "seconds": seconds, "left_out": _shortened(reason)}


def one_line(error: BaseException) -> str:
    """Return type and message of an error."""
    return _shortened(f"{type(error).__name__}: {error}")


def _shortened(text: str) -> str:
    return " ".join(text.split())[:200]


def finite(value: Any) -> Any:
    """Return a value with None for each number that is none, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def add_ratios(rows: list[Row]) -> None:
    """Add to each row the ratio of its time to our kernel's at the same size."""
    ours = {row["clips"]: row["us"]["median"] for row in rows if row["method"] == OURS and "us" in row}
    for item in rows:
        if "us" in item and item["clips"] in ours:
            item["ratio_to_distill"] = item["us"]["median"] / ours[item["clips"]]


def targets(rows: list[Row]) -> list[Row]:
    """Return the performance targets of the kernel, each with the measured value; `met` is None if there is none.

    Throughput is that of the largest batch at which both methods ran; batch 1 includes the time of the host.
    """
    timed = [item for item in rows if "us" in item]
    ours = sorted((item for item in timed if item["method"] == OURS), key=lambda item: item["clips"])
    throughput = ours[-1]["us_per_audio_second"] if ours else None
    single = next((item["us"]["median"] for item in ours if item["clips"] == 1), None)
    best_torch = _ratio_at_largest(timed, TORCH_BASELINES)
    flashmel = _ratio_at_largest(timed, (FLASHMEL,))
    return [
        _target("µs per audio-second", throughput, at_most=1.0),
        _target("µs per audio-second, in the end", throughput, at_most=0.3),
        _target("batch 1, µs a call", single, at_most=15.0),
        _target("best torch baseline, times ours", best_torch, at_least=3.0),
        _target("ours, times flashmel", None if flashmel is None else 1 / flashmel, at_most=2.0),
    ]


def _ratio_at_largest(timed: list[Row], methods: Sequence[str]) -> float | None:
    found = [item for item in timed if item["method"] in methods and "ratio_to_distill" in item]
    largest = max((item["clips"] for item in found), default=0)
    return min((item["ratio_to_distill"] for item in found if item["clips"] == largest), default=None)


def _target(name: str, value: float | None, *, at_most: float | None = None, at_least: float | None = None) -> Row:
    met = None
    if value is not None:
        met = value <= at_most if at_most is not None else value >= at_least
    limit = {"at_most": at_most} if at_most is not None else {"at_least": at_least}
    return {"name": name, **limit, "measured": value, "met": met}


def slug(gpu: str) -> str:
    """Return a card's name as a file name: "NVIDIA H100 80GB HBM3" is nvidia-h100-80gb-hbm3."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")


def table(report: Row) -> str:
    """Format a report as text."""
    lines = [
        _machine(report),
        *(f"FAILED, {step}: {reason}" for step, reason in report["failed"].items()),
        *(f"the kernel, {name} waveforms: {reason}" for name, reason in report["disagrees"].items()),
        *(f"parity, {name}: {_parity(errors)}" for name, errors in report["parity"].items()),
        *(_kernel(kernel) for kernel in report["kernels"]),
        "",
        f"{'clips':>6} {'method':20} {'µs a call':>11} {'p10':>9} {'p90':>9} {'µs/s':>8} {'GB/s':>7} {'of I/O':>7} "
        f"{'ratio':>7} {'graph µs':>9}",
        *map(_line, report["results"]),
        "",
        *(_target_line(target) for target in report["targets"]),
    ]
    if report["sweep"]:
        lines += ["", "other shapes of the kernel, µs per audio-second", *map(_sweep_line, report["sweep"])]
    return "\n".join(lines)


def _machine(report: Row) -> str:
    if report["copy_gb_per_s"] is None:
        return str(report["gpu"])
    floor = report["io_floor_us_per_audio_second"]
    return (
        f"{report['gpu']}, copies {report['copy_gb_per_s']:.0f} GB/s: I/O alone takes {floor:.3f} µs per audio-second"
    )


def _parity(errors: Row) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.1e}" for name, value in errors.items())


def _kernel(kernel: Row) -> str:
    return (
        f"kernel: {kernel['registers']} registers, {kernel['spills']} spills, {kernel['shared_bytes']} bytes of shared "
        f"memory, {kernel['num_warps']} warps"
    )


def _line(item: Row) -> str:
    start = f"{item['clips']:>6} {item['method']:20}"
    if "left_out" in item:
        return f"{start} left out: {item['left_out']}"
    us = item["us"]
    ratio = f"{item['ratio_to_distill']:.2f}" if "ratio_to_distill" in item else ""
    graph = f"{item['graph_us']['median']:.2f}" if "graph_us" in item else ""
    return (
        f"{start} {us['median']:>11.2f} {us['p10']:>9.2f} {us['p90']:>9.2f} {item['us_per_audio_second']:>8.3f} "
        f"{item['gb_per_s']:>7.0f} {item['share_of_io_floor']:>7.1%} {ratio:>7} {graph:>9}"
        f"{'  one channel' if item['channels'] == 1 else ''}"
    ).rstrip()


def _target_line(target: Row) -> str:
    limit = f"at most {target['at_most']:g}" if "at_most" in target else f"at least {target['at_least']:g}"
    verdict = {True: "met", False: "NOT met", None: "not measured"}[target["met"]]
    value = "" if target["measured"] is None else f" ({target['measured']:.3g})"
    return f"{target['name']} {limit}: {verdict}{value}"


def _sweep_line(shape: Row) -> str:
    name = ", ".join(f"{key} {value}" for key, value in shape["shape"].items())
    if "left_out" in shape:
        return f"  {name}: left out: {shape['left_out']}"
    return f"  {name}: {shape['us_per_audio_second']:.3f}"
