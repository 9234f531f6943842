"""The kernel compiled for GPUs that are not present: resources and executed instructions stay within budgets.

By default for three targets; with `--soak`, as `make kernel-report` runs it, for all.
"""

from __future__ import annotations

import functools
import re

import pytest

pytest.importorskip("triton", "3.6")

import triton
from triton.backends.compiler import GPUTarget

import kernel_cost
from distill import kernels
from distill.features.mel import MelSpec, mel_bands
from kernel_cost import DEFAULTS, TARGETS

FEW = ("sm_89", "sm_90a", "gfx1100")

# Spilled bytes per thread; the goal is 0 everywhere.
SPILLS = {"sm_100": 32}
# On NVIDIA cards, per frame: warp instructions inside a clip and at its edge, and cycles of shared memory and L1. The
# budgets are a few per cent above the figures when they were set: lower them when the kernel improves.
EXECUTED = {
    "sm_80": (3_000, 3_450, 980),
    "sm_86": (3_000, 3_450, 980),
    "sm_89": (3_000, 3_450, 980),
    "sm_90a": (3_050, 3_500, 980),
    "sm_100": (3_000, 3_800, 990),
    "sm_120": (3_200, 3_700, 980),
}
# On AMD cards: instructions in the listing, which includes the loads for both inside and edge.
LISTED = {"gfx942": 4_300, "gfx1100": 4_100}
# Other frame lengths, for one target: spilled bytes, and instructions per frame inside a clip.
LENGTHS = {
    512: ({"hop_length": 128, "n_mels": 64}, 144, 860),
    1024: ({"hop_length": 256, "n_mels": 80}, 0, 1_800),
    4096: ({"hop_length": 1024, "n_mels": 128}, 128, 5_900),
}


def pytest_generate_tests(metafunc):
    is_soak = metafunc.config.getoption("soak")
    if "target" in metafunc.fixturenames:
        metafunc.parametrize("target", TARGETS if is_soak else FEW)
    if "n_fft" in metafunc.fixturenames:
        metafunc.parametrize("n_fft", LENGTHS if is_soak else (1024,))


compile_for = functools.cache(kernel_cost.compile_for)
# The budgets hold for the code of these compilers.
BUDGETED = pytest.mark.needs("triton>=3.6,!=3.7.*,!=3.8.*,<3.10")
# Of a program. More of them are exchanges that the compiler has added.
BARRIERS = 13


def test_every_target_has_a_budget():
    assert EXECUTED.keys() | LISTED.keys() == TARGETS.keys()


@BUDGETED
def test_resources_fit_the_target(target):
    compiled = compile_for(target)
    assert 0 < compiled.registers <= 512
    assert compiled.spill_bytes <= SPILLS.get(target, 0)
    # The frames of a program share shared memory: at least 4 bytes for each of 1024 bins.
    assert 4_096 <= compiled.shared_bytes <= TARGETS[target].shared_limit
    assert compiled.occupancy > 0


@BUDGETED
def test_executed_instructions_are_within_the_budget(target):
    compiled = compile_for(target)
    if target in LISTED:
        assert 1_000 < sum(compiled.listed.values()) <= LISTED[target]
        return
    inside, at_edge, cycles = EXECUTED[target]
    assert compiled.interior.instructions / compiled.frames <= inside
    assert compiled.interior.instructions < compiled.edge.instructions <= at_edge * compiled.frames
    assert sum(compiled.interior.wavefronts.values()) / compiled.frames <= cycles
    assert compiled.interior.mix["barrier"] <= BARRIERS * compiled.warps
    # A real FFT of 2048 points takes N·log2(N) fused operations, on 32 lanes. With fewer, or with fewer loads and
    # stores than samples and features, the listing was parsed wrongly.
    assert compiled.interior.mix["fp32"] / compiled.frames > 2048 * 11 / 32
    assert compiled.interior.mix["global"] / compiled.frames >= (2048 + 2 * 128) / 32


@BUDGETED
def test_other_frame_lengths_are_within_their_budgets(n_fft):
    feature, spilled, inside = LENGTHS[n_fft]
    compiled = compile_for("sm_90a", n_fft=n_fft, **feature)
    assert compiled.spill_bytes <= spilled
    assert compiled.shared_bytes <= min(target.shared_limit for target in TARGETS.values())
    assert compiled.interior.instructions / compiled.frames <= inside


def test_warps_read_the_bins_that_the_cost_model_assumes():
    # The model counts bank conflicts as if a warp read 32 consecutive entries of the table at once.
    plan = kernels.make_plan(mel_bands(MelSpec(**DEFAULTS)), n_fft=DEFAULTS["n_fft"])
    source, options = kernels.source(plan, hop_length=DEFAULTS["hop_length"])
    text = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ttgir"]
    layouts = dict(re.findall(r"^(#\w+) = (.*)$", text, re.MULTILINE))
    read = re.findall(r"tt\.gather .*\{axis = 0 : i32\} : \(tensor<\d+xf32, #\w+>, tensor<\d+xi32, (#\w+)>\)", text)
    assert len(read) == 2
    for name in read:
        assert "sizePerThread = [1], threadsPerWarp = [32]" in layouts[name]
