"""How long a call takes on a GPU, and what the card's memory can do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

Call = Callable[[torch.Tensor], torch.Tensor]

WARM_UP_US = 100_000
"""Before anything counts: clocks rise, plans are made, kernels are compiled."""
SAMPLE_US = 2_000
"""What a sample takes at least, so that two events do not weigh in it."""
MAX_CALLS = 100
MIN_SAMPLES, MAX_SAMPLES = 10, 200
MAX_BUFFERS = 1024


class Timer(Protocol):
    """What measures: a GPU's events, or a stand-in for them in the tests."""

    def __call__(self, call: Call, buffers: Sequence[torch.Tensor]) -> list[float]:
        """Times of a call, µs, each on the next of `buffers`."""

    def graph(self, call: Call, buffers: Sequence[torch.Tensor]) -> list[float]:
        """The same from a CUDA graph, so without what the host takes."""

    def free(self) -> None:
        """Give memory back before the next method."""


class CudaTimer:
    """Times by CUDA events.

    Parameters
    ----------
    budget_s : float
        What the samples of one measurement are to take together, once warm.
    """

    def __init__(self, budget_s: float) -> None:
        self._budget_us = 1e6 * budget_s

    def __call__(self, call: Call, buffers: Sequence[torch.Tensor]) -> list[float]:
        """Times of a call, µs: of several calls between two events, shared out."""
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
        """Times of a call, µs, from a graph of calls on different buffers."""
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
        """Give cached memory back, so that one method's does not count against the next."""
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


def _elapsed_us(work: Callable[[], None]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    work()
    end.record()
    end.synchronize()
    return 1e3 * start.elapsed_time(end)


def rotating(shape: tuple[int, int], l2_bytes: int, device: torch.device) -> list[torch.Tensor]:
    """Noise in so many waveforms (B, S) that together they take twice the L2 cache, and two at least."""
    n_bytes = 4 * math.prod(shape)
    count = min(max(2, math.ceil(2 * l2_bytes / n_bytes)), MAX_BUFFERS)
    return list(torch.empty((count, *shape), device=device).normal_(std=0.1).unbind())


def copy_bandwidth(timer: Timer, device: torch.device) -> float:
    """GB/s of a copy from memory to memory, what is read and what is written counted together."""
    n_bytes = 2**20
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        n_bytes = min(2**30, free // 8)
    source = torch.ones(n_bytes // 4, device=device)
    copy = torch.empty_like(source)
    times = sorted(timer(copy.copy_, [source]))
    return 2 * 4 * source.numel() / times[len(times) // 2] / 1e3
