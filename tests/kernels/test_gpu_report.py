"""The figures of bench/gpu.py against hand-computed ones: times of a call, summaries, ratios, targets, the table."""

import itertools
import math

import numpy as np
import pytest
import torch

import gpu_report
from gpu_timing import CudaTimer, rotating

SECOND = {"n_samples": 48_000, "n_mels": 128, "n_frames": 94}


def test_summaries_are_quantiles():
    times = np.random.default_rng(0).gamma(2.0, size=101)
    summary = gpu_report.summarise(list(times))
    expected = np.quantile(times, [0.5, 0.1, 0.9])
    np.testing.assert_allclose([summary["median"], summary["p10"], summary["p90"]], expected)
    assert gpu_report.summarise([3.0]) == {"median": 3.0, "p10": 3.0, "p90": 3.0, "samples": 1}


def test_a_second_of_audio_is_288_kilobytes():
    assert gpu_report.io_bytes(n_clips=1, channels=2, **SECOND) == 48_000 * 4 + 2 * 128 * 94 * 4 == 288_256
    row = gpu_report.row(
        "distill", seconds=10.0, n_clips=10, channels=2, n_bytes=2_882_560, samples_us=[8.0, 8.0], copy_gb_per_s=720.64
    )
    assert row["us_per_audio_second"] == pytest.approx(0.8)
    assert row["gb_per_s"] == pytest.approx(360.32)
    assert row["share_of_io_floor"] == pytest.approx(0.5)


def rows_of(**times):
    """Return rows of methods from their times in µs, at batch 1 and at 4096 clips of a second."""
    names = {"ours": "distill", "cufft": "cuFFT + pointwise", "eager": "eager reference", "flashmel": "flashmel"}
    rows = [
        gpu_report.row(
            names[name], seconds=clips, n_clips=clips, channels=2, n_bytes=1, samples_us=[time], copy_gb_per_s=1.0
        )
        for name, pair in times.items()
        for clips, time in zip((1, 4096), pair, strict=True)
        if time is not None
    ]
    gpu_report.add_ratios(rows)
    return rows


@pytest.mark.parametrize(
    ("times", "met"),
    [
        # µs/s: 0.9, then 0.25; batch 1; the best of torch; flashmel.
        ({"ours": (14, 0.9 * 4096), "cufft": (50, 3.0 * 4096)}, (True, False, True, True, None)),
        ({"ours": (16, 0.25 * 4096), "cufft": (99, 0.7 * 4096)}, (True, True, False, False, None)),
        # The best at the largest size, and not the last; and only sizes at which both ran.
        ({"ours": (16, 4096), "eager": (90, 9 * 4096), "cufft": (90, 2 * 4096)}, (True, False, False, False, None)),
        ({"ours": (16, 4096), "eager": (90, None)}, (True, False, False, True, None)),
        ({"ours": (1, 1.2 * 4096), "flashmel": (1, 0.65 * 4096)}, (False, False, True, None, True)),
        ({"ours": (1, 1.4 * 4096), "flashmel": (1, 0.65 * 4096)}, (False, False, True, None, False)),
        ({}, (None,) * 5),
    ],
)
def test_targets(times, met):
    targets = gpu_report.targets(rows_of(**times))
    assert tuple(target["met"] for target in targets) == met
    assert all((target["measured"] is None) == (target["met"] is None) for target in targets)


def test_a_table_shows_every_part_of_a_report():
    rows = rows_of(ours=(14, 0.9 * 4096), eager=(140, 45_000))
    rows.append(gpu_report.left_out("torchaudio", n_clips=4096, seconds=4096, reason="does not fit\nthe memory"))
    rows[0]["graph_us"] = gpu_report.summarise([4.25])
    kernel = {"registers": 128, "spills": 0, "shared_bytes": 32_768, "num_warps": 8}
    report = {
        "gpu": "Some Card", "copy_gb_per_s": 3000.0, "io_floor_us_per_audio_second": 0.096,
        "parity": {"random": {"channel_0": 1e-6}}, "kernels": [kernel], "results": rows,
        "failed": {"graphs": "RuntimeError: no"}, "disagrees": {"tonal": "disagrees: channel_1"},
        "targets": gpu_report.targets(rows),
        "sweep": [
            {"shape": {"rows": 4}, "us_per_audio_second": 0.8768},
            {"shape": {"rows": 16}, "left_out": "shared memory"},
        ],
    }  # fmt: skip
    table = gpu_report.table(report)
    for text in (
        *("Some Card", "0.096", "random: channel 0 1.0e-06", "128 registers, 0 spills", "4.25", "10.00"),
        *("torchaudio           left out: does not fit the memory", "batch 1, µs a call at most 15: met (14)"),
        *("in the end at most 0.3: NOT met (0.9)", "flashmel at most 2: not measured", "rows 4: 0.877"),
        *("rows 16: left out: shared memory", "FAILED, graphs: RuntimeError: no"),
        "the kernel, tonal waveforms: disagrees: channel_1",
    ):
        assert text in table


def test_numbers_that_json_does_not_have_become_null():
    report = {"parity": {"channel_0": math.nan, "channel_1": 1.0}, "rows": [(1, math.inf)], "gpu": "card"}
    assert gpu_report.finite(report) == {
        "parity": {"channel_0": None, "channel_1": 1.0},
        "rows": [[1, None]],
        "gpu": "card",
    }


def test_a_report_is_named_after_the_card():
    assert gpu_report.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert gpu_report.slug("NVIDIA GeForce RTX 4090") == "nvidia-geforce-rtx-4090"


@pytest.mark.parametrize("call_us", [3.0, 700.0, 40_000.0])
def test_a_time_is_that_of_one_call_and_calls_rotate_through_buffers(monkeypatch, call_us):
    now_us, seen = 0.0, []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at_us = now_us

        def synchronize(self):
            pass

        def elapsed_time(self, end):
            return (end.at_us - self.at_us) / 1e3

    def call(buffer):
        nonlocal now_us
        now_us += call_us
        seen.append(buffer)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    times = CudaTimer(budget_s=0.5)(call, ["a", "b", "c"])
    np.testing.assert_allclose(times, call_us)
    assert 10 <= len(times) <= 200
    assert set(seen) == {"a", "b", "c"}
    assert all(one != other for one, other in itertools.pairwise(seen))
    assert now_us < 2e6


def test_buffers_exceed_the_cache():
    buffers = rotating((2, 1_000), 100_000, torch.device("cpu"))
    assert sum(4 * buffer.numel() for buffer in buffers) >= 2 * 100_000
    assert not torch.equal(buffers[0], buffers[-1])
    assert len(rotating((2, 1_000), 0, torch.device("cpu"))) == 2
