"""The kernel compiled for cards that are not there, and the least time that it can take on them.

A lower bound: each unit of a multiprocessor is taken to be busy in every cycle, and only the busiest counts. Barriers,
latencies, the tail of a launch and bank conflicts of exchanges are left out; those of the gathered bands are counted.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas

import sass
from distill import kernels
from distill.features.mel import mel_bands

DEFAULTS = {"sample_rate": 48_000, "n_fft": 2048, "hop_length": 512, "n_mels": 128}
"""The feature that figures are for."""
LANES = 32


@dataclass(frozen=True)
class Target:
    """What a kernel is compiled for."""

    backend: str
    """Triton's: cuda or hip."""
    arch: int | str
    wave: int
    """Lanes that run together."""
    shared_limit: int
    """Shared memory that one program may have, bytes."""
    shared_total: int = 0
    """Of a multiprocessor, bytes; 0 where the compiler says how many programs fit."""
    warps_limit: int = 0
    """Warps that a multiprocessor holds."""


# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; AMD's instruction set guides.
TARGETS = {
    "sm_80": Target("cuda", 80, 32, 166_912, 167_936, 64),
    "sm_86": Target("cuda", 86, 32, 101_376, 102_400, 48),
    "sm_89": Target("cuda", 89, 32, 101_376, 102_400, 48),
    "sm_90a": Target("cuda", 90, 32, 232_448, 233_472, 64),
    "sm_100": Target("cuda", 100, 32, 232_448, 233_472, 64),
    "sm_120": Target("cuda", 120, 32, 101_376, 102_400, 48),
    "gfx942": Target("hip", "gfx942", 64, 65_536),
    "gfx1100": Target("hip", "gfx1100", 32, 65_536),
}
_REGISTERS = 65_536  # of a multiprocessor
_RESERVED = 1_024  # bytes of shared memory that the driver takes of each program
_WAVES_LIMIT = {"gfx942": 8, "gfx1100": 16}  # a SIMD
_AMD_KINDS = {
    "vector": "v_",
    "scalar": "s_(?!nop|code_end)",
    "shared": "ds_",
    "global": "global_|buffer_",
    "spill": "scratch_",
}


@dataclass(frozen=True)
class Card:
    """Data-sheet rates of a card."""

    target: str
    processors: int
    clock: float
    """Boost clock, Hz."""
    fp32_lanes: int
    """FP32 operations a cycle and multiprocessor."""
    bandwidth: float
    """Of its memory, bytes/s."""
    tensor: float
    """Dense fp16 with fp32 sums, FLOP/s."""


CARDS = {
    "RTX 4090": Card("sm_89", 128, 2.520e9, 128, 1.008e12, 165e12),
    "A100": Card("sm_80", 108, 1.410e9, 64, 2.039e12, 312e12),
    "H100": Card("sm_90a", 132, 1.980e9, 128, 3.350e12, 989e12),
    "H200": Card("sm_90a", 132, 1.980e9, 128, 4.800e12, 989e12),
}
_ISSUE = 4  # warp instructions a cycle and multiprocessor
_ALU_LANES = 64  # integers, comparisons, selections: a cycle and multiprocessor


@dataclass(frozen=True)
class Program:
    """What one program executes on an NVIDIA card, all its warps together."""

    mix: dict[str, int]
    """Warp instructions by kind."""
    wavefronts: dict[str, int]
    """Cycles of shared memory and L1, by what takes them."""

    @property
    def instructions(self) -> int:
        """Warp instructions of any kind."""
        return sum(self.mix.values())


@dataclass(frozen=True)
class Compiled:
    """The kernel as it is on one target."""

    registers: int
    """Of a thread."""
    spill_bytes: int
    """Of a thread."""
    shared_bytes: int
    """Of a program."""
    occupancy: float
    """Warps that a multiprocessor holds, of those that it could."""
    warps: int
    """Of a program."""
    frames: int
    """That a program computes."""
    listed: dict[str, int]
    """Instructions of the whole listing by kind, executed or not."""
    interior: Program | None = None
    """A program whose frames touch no edge of the clip; NVIDIA only."""
    edge: Program | None = None
    """A program that mirrors samples at an edge."""


def compile_for(name: str, **feature: float) -> Compiled:
    """Compile the kernel for one of `TARGETS`, or take it from Triton's cache, and measure what came out.

    `feature`: what differs from `DEFAULTS`.
    """
    target, feature = TARGETS[name], {**DEFAULTS, **feature}
    plan = kernels.make_plan(mel_bands(**feature), n_fft=feature["n_fft"], backend=target.backend, wave=target.wave)
    if plan is None:
        raise ValueError(f"{feature} has no plan for {name}: the kernel does not take it")
    source, options = kernels.source(plan, hop_length=feature["hop_length"])
    gpu = GPUTarget(target.backend, target.arch, target.wave)
    kernel = triton.compile(source, target=gpu, options=options)
    warps = options["num_warps"]
    shape = {"warps": warps, "frames": plan.frames_per_program}
    if target.backend == "hip":
        return Compiled(**_amd(kernel.asm["amdgcn"], target), shared_bytes=kernel.metadata.shared, **shape)
    usage, listing = disassemble(kernel.asm["cubin"])
    registers = int(re.search(r"REG:(\d+)", usage)[1])
    spilled = int(re.search(r"STACK:(\d+)", usage)[1])
    shared = kernel.metadata.shared
    interior, edge = (_program(path, plan, warps) for path in sass.paths(listing))
    return Compiled(
        registers, spilled, shared, occupancy(registers, shared, warps, target), **shape,
        listed=sass.mix(sass.parse(listing)), interior=interior, edge=edge,
    )  # fmt: skip


def disassemble(cubin: bytes) -> tuple[str, str]:
    """What the cuobjdump and nvdisasm that come with Triton say of a binary: its resources, and its listing."""
    tools = Path(get_ptxas(80).path).parent
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        commands = [[tools / "cuobjdump", "-res-usage", file.name], [tools / "nvdisasm", "-c", file.name]]
        done = [subprocess.run(command, capture_output=True, text=True, check=True) for command in commands]
    return done[0].stdout, done[1].stdout


def _amd(assembly: str, target: Target) -> dict[str, float]:
    """Resources as the compiler wrote them under its assembly."""

    def number(key: str) -> int:
        return int(re.search(rf"{re.escape(key)}:?\s+(\d+)", assembly)[1])

    waves = number("; Occupancy")
    return {
        "registers": number(".vgpr_count"),
        "spill_bytes": 4 * number(".vgpr_spill_count"),
        "occupancy": waves / _WAVES_LIMIT[target.arch],
        "listed": {kind: len(re.findall(rf"^\s+(?:{start})", assembly, re.M)) for kind, start in _AMD_KINDS.items()},
    }


def occupancy(registers: int, shared: int, warps: int, target: Target) -> float:
    """Warps that a multiprocessor holds, of those that it could: registers of a thread, shared memory of a program."""
    a_warp = -(-registers // 8) * 8 * LANES
    programs = min(
        _REGISTERS // a_warp // warps, target.shared_total // (shared + _RESERVED), target.warps_limit // warps
    )
    return programs * warps / target.warps_limit


def gather_wavefronts(plan: kernels.Plan) -> Iterator[int]:
    """Cycles of each read of a warp from a frame's square.

    Word w is in bank w mod 32, and lanes that want the same word get it together. The frame only adds a constant.
    """
    for words in plan.tables.bins.reshape(-1, LANES).tolist():
        banks = [word % LANES for word in set(words)]
        yield max(map(banks.count, banks))


def gather_conflicts(plan: kernels.Plan) -> int:
    """Cycles a program, beyond one a read, that its gathers of both channels take."""
    return 2 * plan.frames_per_program * sum(cycles - 1 for cycles in gather_wavefronts(plan))


def _program(path: list[sass.Instruction], plan: kernels.Plan, warps: int) -> Program:
    gathers = 2 * plan.frames_per_program * len(plan.tables.bins) // LANES
    reads = warps * sum(one.name == "LDS" for one in path)
    if reads < gathers:
        raise ValueError(f"{reads} reads of a word from shared memory, yet {gathers} gathers: not as it was")
    # Lanes of a warp's store are its frames, and bands, which are T apart.
    lines = LANES // min(LANES, plan.frames_per_program)
    cycles: Counter[str] = Counter()
    for one in path:
        cycles[sass.kind(one)] += warps * sass.wavefronts(one, store_lines=lines)
    wavefronts = {
        "gathers": gathers,
        "conflicts": gather_conflicts(plan),
        "exchanges": cycles["shared"] + cycles["shuffle"] - gathers,
        "L1": cycles["global"] + cycles["spill"],
    }
    return Program({kind: count * warps for kind, count in sass.mix(path).items()}, wavefronts)


@dataclass(frozen=True)
class Bound:
    """The least time for a second of audio on one card, µs, by unit."""

    units: dict[str, float]

    @property
    def us(self) -> float:
        """The time of the busiest unit."""
        return max(self.units.values())

    @property
    def limit(self) -> str:
        """The busiest unit."""
        return max(self.units, key=self.units.get)


def bound(compiled: Compiled, card: Card, **feature: float) -> Bound:
    """The least time for a clip of one second among many, its edges and what fills its last program included."""
    feature = {**DEFAULTS, **feature}
    interior, edge = programs(compiled.frames, **feature)
    rate = card.processors * card.clock

    def both(work) -> float:
        return interior * work(compiled.interior) + edge * work(compiled.edge)

    return Bound(
        {
            "issue": both(lambda p: p.instructions) / _ISSUE / rate * 1e6,
            "FP32": both(lambda p: p.mix["fp32"]) * LANES / card.fp32_lanes / rate * 1e6,
            "ALU": both(lambda p: p.mix["alu"]) * LANES / _ALU_LANES / rate * 1e6,
            "shared/L1": both(lambda p: sum(p.wavefronts.values())) / rate * 1e6,
            "DRAM": io_bytes(**feature) / card.bandwidth * 1e6,
        }
    )


def programs(frames: int, *, sample_rate: int, n_fft: int, hop_length: int, **_: float) -> tuple[int, int]:
    """Programs for one second: those whose frames touch no edge, and the others."""
    n_frames = sample_rate // hop_length + 1
    starts = range(0, n_frames, frames)
    inside = [
        start * hop_length >= n_fft // 2 and (start + frames - 1) * hop_length + n_fft // 2 <= sample_rate
        for start in starts
    ]
    return sum(inside), len(inside) - sum(inside)


def io_bytes(*, sample_rate: int, hop_length: int, n_mels: int, **_: float) -> int:
    """Samples read and features written for one second."""
    return 4 * (sample_rate + 2 * n_mels * (sample_rate // hop_length + 1))
