"""Report the kernel's resources and instructions for each target, and its least time on each card, without a GPU.

python bench/kernel_report.py [--json PATH] [--targets sm_90a ...]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

from kernel_cost import (
    CARDS,
    DEFAULTS,
    TARGETS,
    Bound,
    Card,
    Compiled,
    Program,
    bound,
    compile_for,
    io_bytes,
    programs,
)

DEFAULT_JSON = Path("target/kernel-report.json")
_FRAMES = DEFAULTS["sample_rate"] // DEFAULTS["hop_length"] + 1

# Alternative algorithms, for a second of audio at the defaults: bytes of memory traffic, tensor-core operations (three
# half-precision products each, for the precision of float32), or warp instructions per frame.
ALTERNATIVES = {
    "eager torch, without its 20 launches": ("bytes", 12.7e6),
    "cuFFT, all pointwise work fused around it": ("bytes", 5.1e6),
    "dense DFT by matmul, fp16x3": ("tensor", 3 * 0.84e9),
    "two-stage FFT by tl.dot, twice + dense mel": ("tensor", 3 * 197e6),
    "the same, both halvings + banded mel": ("tensor", 3 * 107e6),
    "the same, once, with the stencil": ("tensor", 3 * 123e6),
    "real FFT as 32 x 32 by tl.dot, banded mel": ("tensor", 3 * 56e6),
    "radix-16 FFT in registers, two windows": ("issue", 9_000),
    "samples in, features out": ("bytes", io_bytes(**DEFAULTS)),
}
"""Unit and amount, by name."""


def alternative_us(card: Card, unit: str, amount: float) -> float:
    """Return the least time of an alternative on a card, µs."""
    rates = {
        "bytes": card.bandwidth,
        "tensor": card.tensor,
        "issue": card.processors * card.clock * 4 / _FRAMES,
    }
    return amount / rates[unit] * 1e6


def report(compiled: dict[str, Compiled]) -> dict:
    """Return all printed figures, in the form that is written to JSON."""
    cards = {name: bound(compiled[card.target], card) for name, card in CARDS.items() if card.target in compiled}
    return {
        "feature": DEFAULTS,
        "targets": {
            name: {**asdict(one), "shared_limit": TARGETS[name].shared_limit} for name, one in compiled.items()
        },
        "cards": {
            name: {
                "target": CARDS[name].target,
                "bound_us": found.us,
                "limit": found.limit,
                "units_us": found.units,
                "floor_us": found.units["DRAM"],
                "other_ways_us": {way: alternative_us(CARDS[name], *work) for way, work in ALTERNATIVES.items()},
            }
            for name, found in cards.items()
        },
    }


def _table(head: list[str], rows: list[list[object]]) -> str:
    cells = [head, *([f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        first, *others = (cell.ljust(widths[0]) if not i else cell.rjust(widths[i]) for i, cell in enumerate(row))
        lines.append("  ".join([first, *others]).rstrip())
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def _resources(compiled: dict[str, Compiled]) -> str:
    head = ["target", "frames", "warps", "registers", "spilled", "shared", "of", "occupancy"]
    return _table(
        head,
        [
            [
                *(name, one.frames, one.warps, one.registers, one.spill_bytes, one.shared_bytes),
                *(TARGETS[name].shared_limit, f"{one.occupancy:.0%}"),
            ]
            for name, one in compiled.items()
        ],
    )


def _per_frame(compiled: dict[str, Compiled], counts: Callable[[Program], dict[str, int]]) -> str:
    rows, names = [], []
    for name, one in compiled.items():
        for place, program in (("interior", one.interior), ("edge", one.edge)):
            if program:
                found = counts(program)
                names = list(found)
                rows.append(
                    [f"{name} {place}", *(round(n / one.frames) for n in (sum(found.values()), *found.values()))]
                )
    return _table(["per frame", "all", *names], rows)


def _bounds(cards: dict[str, Bound]) -> str:
    units = list(next(iter(cards.values())).units)
    rows = [[name, found.us, found.limit, *found.units.values()] for name, found in cards.items()]
    return _table(["µs per second of audio", "bound", "limit", *units], rows)


def show(compiled: dict[str, Compiled]) -> None:
    """Print the tables."""
    print("Resources: registers and spilled bytes per thread, bytes of shared memory per program\n")
    print(_resources(compiled))
    if any(one.interior for one in compiled.values()):
        print("\nExecuted warp instructions, inside a clip and at its edge\n")
        print(_per_frame(compiled, lambda program: program.mix))
        print("\nCycles of 128 bytes in shared memory and L1\n")
        print(_per_frame(compiled, lambda program: program.wavefronts))
    cards = {name: card for name, card in CARDS.items() if card.target in compiled}
    if cards:
        found = {name: bound(compiled[card.target], card) for name, card in cards.items()}
        inside, at_edge = programs(compiled[next(iter(cards.values())).target].frames, **DEFAULTS)
        print(
            f"\nLeast time for a second of audio ({_FRAMES} frames; {inside} programs inside, {at_edge} at an edge)\n"
        )
        print(_bounds(found))
        print("\nLower bounds of alternatives, µs, each by its most important rate\n")
        rows = [
            [name, *(alternative_us(card, *work) for card in cards.values())] for name, work in ALTERNATIVES.items()
        ]
        print(_table(["", *cards], [["this kernel", *(one.us for one in found.values())], *rows]))


def main() -> None:
    """Compile the kernel, print the tables and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=DEFAULT_JSON, help=f"where to write (default: {DEFAULT_JSON})")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), help="default: all")
    options = parser.parse_args()
    # Processes, because compilation holds the GIL; spawned, because torch has already started threads.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        compiled = dict(zip(options.targets, pool.map(compile_for, options.targets), strict=True))
    show(compiled)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report(compiled), indent=2, ensure_ascii=False) + "\n")
    print(f"\n{options.json}")


if __name__ == "__main__":
    main()
