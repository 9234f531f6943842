"""The instructions that a program of a compiled kernel executes, read from the listing of nvdisasm."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

_LABEL = re.compile(r"^(\.L\w+):")
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*([^;]*);")
_TARGET = re.compile(r"\.L\w+")
_WIDTH = re.compile(r"\.(64|128)\b")
_MATRICES = re.compile(r"\.([24])$")

# By the pipe that executes them: the FP32 pipe also multiplies integers; the ALU adds, compares and selects.
_KINDS = {
    "fp32": "FFMA FADD FMUL FFMA2 FADD2 FMUL2 IMAD HFMA2 FSWZADD",
    "alu": "IADD IADD3 LEA LOP3 SHF SEL FSEL ISETP FSETP FMNMX FMNMX3 IMNMX VIMNMX VIADDMNMX VIADD PRMT IABS SGXT BMSK "
    "MOV PLOP3 P2R R2P I2FP LOP SHL SHR",
    "shared": "LDS STS LDSM STSM",
    "shuffle": "SHFL",
    "global": "LDG STG",
    "spill": "LDL STL",
    "barrier": "BAR",
    "special": "MUFU I2F F2I S2R CS2R S2UR R2UR",
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}
KINDS = (*_KINDS, "uniform", "other")
"""All kinds of instructions."""


class Instruction(NamedTuple):
    """One line of a listing."""

    guard: str
    """Predicate, or ""."""
    name: str
    """Name with suffixes: "LDS.64"."""
    operands: str

    @property
    def base(self) -> str:
        """Name without suffixes."""
        return self.name.partition(".")[0]


def kind(instruction: Instruction) -> str:
    """Return the kind of an instruction, one of `KINDS`."""
    if instruction.base in _KIND_OF:
        return _KIND_OF[instruction.base]
    return "uniform" if instruction.base.startswith("U") else "other"


def mix(path: list[Instruction]) -> dict[str, int]:
    """Count the instructions of each kind in a path."""
    counts = Counter(map(kind, path))
    return {name: counts[name] for name in KINDS}


def parse(listing: str) -> list[Instruction]:
    """Return all instructions of a listing, in order."""
    return [instruction for _, block in _blocks(listing) for instruction in block]


def paths(listing: str) -> tuple[list[Instruction], list[Instruction]]:
    """Return the shortest and the longest path from entry to exit: a program inside a clip, and one at its edge.

    Raises
    ------
    ValueError
        If there is a loop, whose iterations a listing does not show, or if a path omits a store.
    """
    blocks = _blocks(listing)
    successors = _successors(blocks)
    shortest: dict[int, list[Instruction]] = {}
    longest: dict[int, list[Instruction]] = {}
    for index in sorted(_reachable(successors), reverse=True):
        block, after = blocks[index][1], successors[index]
        if any(follower <= index for follower in after):
            raise ValueError(f"a loop at {blocks[index][0] or 'the entry'}: a listing does not show its iterations")
        shortest[index] = block + min((shortest[follower] for follower in after), key=len, default=[])
        longest[index] = block + max((longest[follower] for follower in after), key=len, default=[])
    stores = [sum(one.base == "STG" for one in path) for path in (shortest[0], longest[0])]
    if stores[0] != stores[1]:
        raise ValueError(f"paths with {stores[0]} and {stores[1]} stores: no program takes the shorter one")
    return shortest[0], longest[0]


def wavefronts(instruction: Instruction, *, store_lines: int = 1) -> int:
    """Return the cycles of 128 bytes in shared memory or L1 of a warp's instruction, without bank conflicts.

    `store_lines` is the number of 128-byte lines that one store to global memory touches.
    """
    name = instruction.name
    if instruction.base in ("LDSM", "STSM"):
        found = _MATRICES.search(name)
        return int(found[1]) if found else 1
    if instruction.base == "STG":
        return store_lines
    if kind(instruction) in ("shared", "global", "spill"):
        found = _WIDTH.search(name)
        return int(found[1]) // 32 if found else 1
    return int(kind(instruction) == "shuffle")


def _blocks(listing: str) -> list[tuple[str, list[Instruction]]]:
    """Return the basic blocks, each with its label or ""."""
    blocks: list[tuple[str, list[Instruction]]] = [("", [])]
    for line in listing.splitlines():
        if label := _LABEL.match(line):
            blocks.append((label[1], []))
        elif found := _INSTRUCTION.match(line):
            instruction = Instruction(found[1] or "", found[2], found[3].strip())
            blocks[-1][1].append(instruction)
            if instruction.base in ("BRA", "EXIT"):
                blocks.append(("", []))
    return blocks


def _successors(blocks: list[tuple[str, list[Instruction]]]) -> list[list[int]]:
    at = {label: index for index, (label, _) in enumerate(blocks) if label}
    successors = []
    for index, (_, block) in enumerate(blocks):
        last = block[-1] if block else Instruction("", "NOP", "")
        after = []
        if last.base == "BRA":
            target = _TARGET.search(last.operands)
            if target is None:
                raise ValueError(f"a branch whose target is not a label: {last.name} {last.operands}")
            after.append(at[target[0]])
        # A branch may be conditional without a guard: BRA.U UP0, or BRA P0.
        is_conditional = bool(last.guard) or re.search(r"\bU?P\d", last.operands) is not None
        if (last.base not in ("BRA", "EXIT") or is_conditional) and index + 1 < len(blocks):
            after.append(index + 1)
        successors.append(after)
    return successors


def _reachable(successors: list[list[int]]) -> set[int]:
    seen, todo = set(), [0]
    while todo:
        index = todo.pop()
        if index not in seen:
            seen.add(index)
            todo += successors[index]
    return seen
