"""Timing of calls on a GPU, and the bandwidth of its memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

Call = Callable[[torch.Tensor], torch.Tensor]

WARM_UP_US = 100_000
"""Warm-up before a measurement: clocks rise, plans are made, kernels are compiled."""
SAMPLE_US = 2_000
"""Least duration of a sample, so that the cost of its two events is negligible."""
MAX_CALLS = 100
MIN_SAMPLES, MAX_SAMPLES = 10, 200
MAX_BUFFERS = 1024


class Timer(Protocol):
    """What measures times: a GPU's events, or a fake in the tests."""

    def __call__(self, call: Call, buffers: Sequence[torch.Tensor]) -> list[float]:
        """Return times of a call, µs; consecutive calls take consecutive `buffers`."""

    def graph(self, call: Call, buffers: Sequence[torch.Tensor]) -> list[float]:
        """Return times of a call in a CUDA graph, which excludes the time of the host."""

    def free(self) -> None:
        """Free cached memory before the next method."""


class CudaTimer:
    """Times by CUDA events.

    Parameters
    ----------
    budget_s : float
        Duration of all samples of one measurement, after the warm-up.
    """

    def __init__(self, budget_s: float) -> None:
        self._budget_us = 1e6 * budget_s

    def __call__(self, call: Call, buffers: Sequence[torch.Tensor]) -> list[float]:
        """Return times of a call, µs: of several calls between two events, divided by their number."""
        position = 0

        def calls(count: int) -> None:
            nonlocal position
            for _ in range(count):
                call(buffers[position % len(buffers)])
                position += 1

        calls(1)
        warm, count, each_us = 0.0, 1, math.inf
        while warm < WARM_UP_US:
            elapsed = _elapsed_us(lambda count=count: calls(count))
            warm, each_us, count = warm + elapsed, elapsed / count, min(2 * count, MAX_CALLS)
        per_sample = min(max(1, math.ceil(SAMPLE_US / each_us)), MAX_CALLS)
        return self._samples(lambda: calls(per_sample), per_sample, each_us)

    def graph(self, call: Call, buffers: Sequence[torch.Tensor]) -> list[float]:
        """Return times of a call, µs, from a graph of calls on different buffers."""
        some = list(buffers)[:MAX_CALLS]
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            call(some[0])
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for buffer in some:
                call(buffer)
        graph.replay()
        each_us = _elapsed_us(graph.replay) / len(some)
        return self._samples(graph.replay, len(some), each_us)

    def free(self) -> None:
        """Free cached memory, so that a method has the same memory whatever ran before it."""
        torch.cuda.empty_cache()

    def _samples(self, work: Callable[[], None], calls: int, each_us: float) -> list[float]:
        count = round(self._budget_us / (calls * each_us))
        events = []
        for _ in range(min(max(MIN_SAMPLES, count), MAX_SAMPLES)):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            work()
            end.record()
            events.append((start, end))
        torch.cuda.synchronize()
        return [1e3 * start.elapsed_time(end) / calls for start, end in events]


class HostTimer:
    """Times by the clock of the host, for a dry run on a CPU."""

    def __call__(self, call: Call, buffers: Sequence[torch.Tensor]) -> list[float]:
        """Return the time of a call on each of some buffers, µs."""
        samples = []
        for buffer in buffers[:3]:
            start = time.perf_counter()
            call(buffer)
            samples.append(1e6 * (time.perf_counter() - start))
        return samples

    def graph(self, call: Call, buffers: Sequence[torch.Tensor]) -> list[float]:
        """Raise, as a capture may: there are no graphs on a CPU."""
        raise RuntimeError("a CPU has no graphs")

    def free(self) -> None:
        """Nothing is cached."""


def _elapsed_us(work: Callable[[], None]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    work()
    end.record()
    end.synchronize()
    return 1e3 * start.elapsed_time(end)


def rotating(shape: tuple[int, int], l2_bytes: int, device: torch.device) -> list[torch.Tensor]:
    """Return at least two waveforms (B, S) of noise, and as many as take twice the L2 cache together."""
    n_bytes = 4 * math.prod(shape)
    count = min(max(2, math.ceil(2 * l2_bytes / n_bytes)), MAX_BUFFERS)
    return list(torch.empty((count, *shape), device=device).normal_(std=0.1).unbind())


def copy_bandwidth(timer: Timer, device: torch.device) -> float:
    """Measure the bandwidth of a device-to-device copy, GB/s, reads plus writes."""
    n_bytes = 2**20
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        n_bytes = min(2**30, free // 8)
    source = torch.ones(n_bytes // 4, device=device)
    copy = torch.empty_like(source)
    times = sorted(timer(copy.copy_, [source]))
    return 2 * 4 * source.numel() / times[len(times) // 2] / 1e3
