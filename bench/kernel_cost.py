"""Compile the kernel for GPUs that are not present, and compute lower bounds of its time on them.

The bound assumes that the busiest unit of a multiprocessor is busy in every cycle. Bank conflicts of the gathered bands
are counted; those of exchanges, barriers, latencies and the tail of a launch are not.
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
from distill.features.mel import MelSpec, mel_bands

DEFAULTS = {"sample_rate": 48_000, "n_fft": 2048, "hop_length": 512, "n_mels": 128}
"""The feature that the figures are for."""
LANES = 32


@dataclass(frozen=True)
class Target:
    """A target that kernels are compiled for."""

    backend: str
    """Triton's name: cuda or hip."""
    arch: int | str
    wave: int
    """Lanes of a warp or wavefront."""
    shared_limit: int
    """Most shared memory of a program, bytes."""
    shared_total: int = 0
    """Shared memory of a multiprocessor, bytes; 0 where the compiler reports the occupancy."""
    warps_limit: int = 0
    """Most warps of a multiprocessor."""


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
_REGISTERS = 65_536  # per multiprocessor
_RESERVED = 1_024  # bytes of shared memory per program that the driver takes
_WAVES_LIMIT = {"gfx942": 8, "gfx1100": 16}  # per SIMD
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
    """FP32 operations per cycle and multiprocessor."""
    bandwidth: float
    """Bandwidth of its memory, bytes/s."""
    tensor: float
    """Dense fp16 with fp32 accumulation, FLOP/s."""


CARDS = {
    "RTX 4090": Card("sm_89", 128, 2.520e9, 128, 1.008e12, 165e12),
    "A100": Card("sm_80", 108, 1.410e9, 64, 2.039e12, 312e12),
    "H100": Card("sm_90a", 132, 1.980e9, 128, 3.350e12, 989e12),
    "H200": Card("sm_90a", 132, 1.980e9, 128, 4.800e12, 989e12),
}
_ISSUE = 4  # warp instructions per cycle and multiprocessor
_ALU_LANES = 64  # integer operations, comparisons and selections per cycle and multiprocessor


@dataclass(frozen=True)
class Program:
    """The instructions that one program executes on an NVIDIA card, all its warps together."""

    mix: dict[str, int]
    """Warp instructions by kind."""
    wavefronts: dict[str, int]
    """Cycles of shared memory and L1 by cause."""

    @property
    def instructions(self) -> int:
        """Number of warp instructions."""
        return sum(self.mix.values())


@dataclass(frozen=True)
class Compiled:
    """The kernel compiled for one target."""

    registers: int
    """Registers per thread."""
    spill_bytes: int
    """Spilled bytes per thread."""
    shared_bytes: int
    """Shared memory per program."""
    occupancy: float
    """Share of a multiprocessor's warps that are resident."""
    warps: int
    """Warps per program."""
    frames: int
    """Frames per program."""
    listed: dict[str, int]
    """Instructions of the whole listing by kind, executed or not."""
    interior: Program | None = None
    """A program whose frames touch no edge of the clip; NVIDIA only."""
    edge: Program | None = None
    """A program that reflects samples at an edge; NVIDIA only."""


def compile_for(name: str, **feature: float) -> Compiled:
    """Compile the kernel for one of `TARGETS`, or take it from Triton's cache, and analyse the result.

    `feature` holds the differences from `DEFAULTS`.
    """
    target, feature = TARGETS[name], {**DEFAULTS, **feature}
    spec = MelSpec(**feature)
    plan = kernels.make_plan(mel_bands(spec), n_fft=spec.n_fft, backend=target.backend, wave=target.wave)
    if isinstance(plan, str):
        raise ValueError(f"{spec} has no plan for {name}: {plan}")  # noqa: TRY004 - a string is a reason
    source, options = kernels.source(plan, hop_length=spec.hop_length)
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
    """Return resources and listing of a binary, from the cuobjdump and nvdisasm that come with Triton."""
    tools = Path(get_ptxas(80).path).parent
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        commands = [[tools / "cuobjdump", "-res-usage", file.name], [tools / "nvdisasm", "-c", file.name]]
        done = [subprocess.run(command, capture_output=True, text=True, check=True) for command in commands]
    return done[0].stdout, done[1].stdout


def _amd(assembly: str, target: Target) -> dict[str, float]:
    """Read the resources that the compiler wrote below its assembly."""

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
    """Return the share of a multiprocessor's warps that are resident.

    `registers` are per thread, `shared` is the shared memory of a program in bytes.
    """
    registers_per_warp = -(-registers // 8) * 8 * LANES
    programs = min(
        _REGISTERS // registers_per_warp // warps,
        target.shared_total // (shared + _RESERVED),
        target.warps_limit // warps,
    )
    return programs * warps / target.warps_limit


def gather_wavefronts(plan: kernels.Plan) -> Iterator[int]:
    """Yield the cycles of each read of a warp from a frame's square.

    Word w is in bank w mod 32, and lanes that read the same word are served together. The frame only adds a constant.
    """
    for words in plan.tables.bins.reshape(-1, LANES).tolist():
        banks = [word % LANES for word in set(words)]
        yield max(map(banks.count, banks))


def gather_conflicts(plan: kernels.Plan) -> int:
    """Return the cycles that bank conflicts add to the gathers of a program, both channels."""
    return 2 * plan.frames_per_program * sum(cycles - 1 for cycles in gather_wavefronts(plan))


def _program(path: list[sass.Instruction], plan: kernels.Plan, warps: int) -> Program:
    gathers = 2 * plan.frames_per_program * len(plan.tables.bins) // LANES
    reads = warps * sum(one.name == "LDS" for one in path)
    if reads < gathers:
        raise ValueError(f"{reads} reads of a word from shared memory, but {gathers} gathers: the model no longer fits")
    # The lanes of a store are frames, which are adjacent, and bands, which are T apart.
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
    """The lower bound of the time for a second of audio on one card."""

    units: dict[str, float]
    """Time of each unit, µs."""

    @property
    def us(self) -> float:
        """The time of the busiest unit."""
        return max(self.units.values())

    @property
    def limit(self) -> str:
        """The busiest unit."""
        return max(self.units, key=self.units.get)


def bound(compiled: Compiled, card: Card, **feature: float) -> Bound:
    """Return the lower bound for one second as a clip of a large batch, including its edges and its last program."""
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
    """Return the number of programs for one second: those whose frames touch no edge, and the others."""
    n_frames = sample_rate // hop_length + 1
    starts = range(0, n_frames, frames)
    inside = [
        start * hop_length >= n_fft // 2 and (start + frames - 1) * hop_length + n_fft // 2 <= sample_rate
        for start in starts
    ]
    return sum(inside), len(inside) - sum(inside)


def io_bytes(*, sample_rate: int, hop_length: int, n_mels: int, **_: float) -> int:
    """Return the bytes of samples read and features written for one second."""
    return 4 * (sample_rate + 2 * n_mels * (sample_rate // hop_length + 1))
