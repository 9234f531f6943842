"""The figures of `make kernel-report` against hand-computed and brute-force ones; test_compiled.py compiles kernels."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", "3.6")

import kernel_report
import sass
from kernel_cost import CARDS, DEFAULTS, TARGETS, Card, Compiled, Program, bound, gather_wavefronts, occupancy, programs

# In the format of nvdisasm. The path inside a clip has fewer instructions than the one at its edge. What follows EXIT
# is padding.
LISTING = """\
        .global         complex_mel_kernel
complex_mel_kernel:
.text.complex_mel_kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   ISETP.GT.U32.AND P0, PT, R0, UR4, PT ;
        /*0020*/               @P0 BRA `(.L_x_0) ;
        /*0030*/                   LDG.E R2, desc[UR8][R4.64] ;
        /*0040*/                   BRA `(.L_x_1) ;
.L_x_0:
        /*0050*/                   IADD3 R4, R4, 0x1, RZ ;
        /*0060*/                   IABS R4, R4 ;
        /*0070*/                   LDG.E R2, desc[UR8][R4.64] ;
.L_x_1:
        /*0080*/                   FFMA R2, R2, R2, R3.reuse ;
        /*0090*/                   IMAD.MOV.U32 R5, RZ, RZ, R2 ;
        /*00a0*/                   STS.128 [R6+UR5], R8 ;
        /*00b0*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*00c0*/                   LDSM.16.M88.4 R8, [R6] ;
        /*00d0*/                   SHFL.IDX PT, R2, R2, R7, 0x1f ;
        /*00e0*/               @P0 EXIT ;
        /*00f0*/              @!P1 STG.E desc[UR8][R2.64], R5 ;
        /*1000*/                   EXIT ;
.L_x_2:
        /*1010*/                   BRA `(.L_x_2);
        /*1020*/                   NOP;
"""


def names(path):
    return [instruction.base for instruction in path]


def test_paths_of_a_listing():
    inside, at_edge = sass.paths(LISTING)
    tail = ["FFMA", "IMAD", "STS", "BAR", "LDSM", "SHFL", "EXIT", "STG", "EXIT"]
    assert names(inside) == ["LDC", "ISETP", "BRA", "LDG", "BRA", *tail]
    assert names(at_edge) == ["LDC", "ISETP", "BRA", "IADD3", "IABS", "LDG", *tail]
    assert len(sass.parse(LISTING)) == 19
    assert inside[2] == ("P0", "BRA", "`(.L_x_0)")


def test_mix_of_a_path():
    inside, at_edge = map(sass.mix, sass.paths(LISTING))
    expected = {"fp32": 2, "alu": 1, "shared": 2, "shuffle": 1, "global": 2, "barrier": 1, "other": 5}
    assert inside == dict.fromkeys(sass.KINDS, 0) | expected
    assert at_edge == inside | {"alu": 3, "other": 4}
    assert tuple(inside) == sass.KINDS


def test_a_loop_is_refused():
    with pytest.raises(ValueError, match=r"a loop at \.L_x_1"):
        sass.paths(LISTING.replace("@P0 EXIT ;", "@P0 BRA `(.L_x_1) ;"))


def test_a_path_that_stores_nothing_is_refused():
    listing = LISTING.replace("@P0 EXIT ;", "@P0 BRA `(.L_x_3) ;").replace(
        "        /*1000*/", ".L_x_3:\n        /*1000*/"
    )
    with pytest.raises(ValueError, match="paths with 0 and 1 stores"):
        sass.paths(listing)


@pytest.mark.parametrize(
    ("name", "cycles"),
    {
        "LDS": 1,
        "LDS.64": 2,
        "LDS.128": 4,
        "STS": 1,
        "STS.U16": 1,
        "STS.64": 2,
        "STS.128": 4,
        "LDSM.16.M88": 1,
        "LDSM.16.M88.2": 2,
        "LDSM.16.MT88.4": 4,
        "STSM.16.M88.4": 4,
        "SHFL.IDX": 1,
        "LDG.E": 1,
        "LDG.E.U16.CONSTANT": 1,
        "LDG.E.64": 2,
        "LDG.E.128.CONSTANT": 4,
        "LDL.LU": 1,
        "STL.128": 4,
        "STG.E": 8,
        "FFMA": 0,
        "BAR.SYNC": 0,
        "LDC.64": 0,
    }.items(),
)
def test_wavefronts(name, cycles):
    assert sass.wavefronts(sass.Instruction("", name, ""), store_lines=8) == cycles


def served(words):
    """Count the cycles of a warp's read by simulation: in each cycle a bank serves one word to all lanes."""
    waiting, cycles = list(words), 0
    while waiting:
        given = {word % 32: word for word in waiting}
        waiting = [word for word in waiting if given[word % 32] != word]
        cycles += 1
    return cycles


def test_bank_conflicts_by_brute_force():
    draw = random.Random(1)
    reads = [[draw.randrange(top) for _ in range(32)] for top in (8, 64, 1024, 4096) for _ in range(50)]
    reads += [[5] * 32, list(range(32)), [32 * i for i in range(32)], [2 * i for i in range(32)]]
    plan = SimpleNamespace(tables=SimpleNamespace(bins=torch.tensor(reads, dtype=torch.int16).reshape(-1)))
    found = list(gather_wavefronts(plan))
    assert found == [served(read) for read in reads]
    assert found[-4:] == [1, 1, 32, 2]
    assert len(set(found)) > 5


def test_programs_of_a_second_at_the_defaults():
    # Frame t spans samples 512·t - 1024 to 512·t + 1023 of 48 000: of 94 frames, 2 to 91 touch no edge.
    assert programs(8, **DEFAULTS) == (10, 2)  # 8 to 87
    assert programs(4, **DEFAULTS) == (22, 2)  # 4 to 91
    assert programs(1, **DEFAULTS) == (90, 4)
    assert programs(128, **DEFAULTS) == (0, 1)


NOTHING = dict.fromkeys(sass.KINDS, 0)
INSIDE = Program(NOTHING | {"fp32": 8_000, "alu": 1_000, "other": 600}, {"gathers": 1_000, "conflicts": 500, "L1": 300})
AT_EDGE = Program(
    NOTHING | {"fp32": 9_000, "alu": 5_000, "other": 600}, {"gathers": 1_000, "conflicts": 500, "L1": 400}
)
COMPILED = Compiled(128, 0, 32_768, 0.25, 8, 8, INSIDE.mix, INSIDE, AT_EDGE)


def test_a_bound_by_hand():
    card = Card("sm_90a", processors=10, clock=1e9, fp32_lanes=64, bandwidth=1e12, tensor=1e15)
    found = bound(COMPILED, card)
    # 10 programs inside and 2 at an edge; 10 processors of 1000 cycles a µs.
    assert found.units == pytest.approx(
        {
            "issue": (10 * 9_600 + 2 * 14_600) / 4 / 10_000,
            "FP32": (10 * 8_000 + 2 * 9_000) / 2 / 10_000,
            "ALU": (10 * 1_000 + 2 * 5_000) / 2 / 10_000,
            "shared/L1": (10 * 1_800 + 2 * 1_900) / 10_000,
            "DRAM": 0.288256,
        }
    )
    assert (found.us, found.limit) == (pytest.approx(4.9), "FP32")


def test_occupancy_by_hand():
    # A warp gets registers in units of 256: 129 per thread become 136.
    assert occupancy(128, 32_768, 8, TARGETS["sm_90a"]) == 16 / 64
    assert occupancy(129, 32_768, 8, TARGETS["sm_90a"]) == 8 / 64
    assert occupancy(32, 32_768, 8, TARGETS["sm_90a"]) == 48 / 64
    assert occupancy(32, 32_768, 8, TARGETS["sm_89"]) == 24 / 48
    assert occupancy(16, 0, 8, TARGETS["sm_89"]) == 1


def test_bounds_of_alternatives_are_those_of_the_design():
    # Computed for an H200 when the kernel was designed, with 4.3 TB/s of the data sheet's 4.8.
    found = {
        name: kernel_report.alternative_us(CARDS["H200"], *work) for name, work in kernel_report.ALTERNATIVES.items()
    }
    assert found["samples in, features out"] == pytest.approx(0.060, abs=5e-4)
    assert found["cuFFT, all pointwise work fused around it"] == pytest.approx(1.19 * 4.3 / 4.8, rel=0.02)
    assert found["real FFT as 32 x 32 by tl.dot, banded mel"] == pytest.approx(0.17, abs=5e-3)
    assert found["radix-16 FFT in registers, two windows"] == pytest.approx(0.81, abs=0.02)


def test_report_is_json_and_tables(capsys):
    compiled = {"sm_90a": COMPILED, "gfx942": Compiled(268, 8, 32_768, 0.125, 4, 8, {"vector": 3_000})}
    report = json.loads(json.dumps(kernel_report.report(compiled)))
    assert {"registers": 268, "spill_bytes": 8, "shared_bytes": 32_768}.items() <= report["targets"]["gfx942"].items()
    assert report["targets"]["sm_90a"]["interior"]["mix"]["fp32"] == 8_000
    assert report["cards"].keys() == {"H100", "H200"}
    expected = bound(COMPILED, CARDS["H200"])
    assert report["cards"]["H200"]["bound_us"] == expected.us
    assert report["cards"]["H200"]["limit"] == expected.limit
    kernel_report.show(compiled)
    lines = capsys.readouterr().out.splitlines()
    row = next(line.split() for line in lines if line.startswith("H200"))
    assert row[1:3] == [f"{expected.us:.3f}", expected.limit]
    assert any(line.split()[:6] == ["gfx942", "8", "4", "268", "8", "32768"] for line in lines)
