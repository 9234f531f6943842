"""What the kernel is compiled for and what it reads beside samples: twiddles, and the bins and weights of each band.

A *group* is 32 bands, one a lane. Each lane reads the bins of its band, one a step; so a group takes as many steps as
its widest band has bins, in *blocks* of `depth` steps, and the warps share out the blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch

from .schedule import schedule

N_FFTS = (512, 1024, 2048, 4096)
"""Frame lengths that the kernel is written for."""
MAX_STEPS = 512
"""Steps over the bins of bands, times frames a warp: all of them are unrolled."""

ROWS = 8
"""Warps of 32 lanes a program. Eight meet in 32 kB of shared memory, which any card has room for twice, read each
weight once for eight frames, and write eight frames of a band at once, a sector of 32 bytes."""
MAX_REGISTERS = {2048: 128}
"""Registers a thread on CUDA, by n_fft; else 255. At 2048 all fits into 128, and a multiprocessor holds two programs,
one of which computes while the other waits; more frames a warp need more."""

_LANES = 32
_SCALE = 1.0 / 16.0  # the stencil forms 16·|X|² and 16·C


class Bands(Protocol):
    """The mel bands, as float64 arrays or tensors."""

    filterbank: object
    """Weights (K, M)."""
    first: object
    """First bin of each band (M,)."""
    width: object
    """Bins of each band (M,)."""
    centre: object
    """Centre of each band, bins (M,)."""
    half_support: object
    """Half the support of each band, bins (M,)."""


class Tables(NamedTuple):
    """What the kernel reads, on one device."""

    twiddles: torch.Tensor
    """1, which keeps what follows from being loaded four at a time, by a lane that wants every 32nd; then rows (re, im)
    of 32: exp(-2πi·lane/64), exp(-2πi·lane·k/n_fft) for k from 1; then ones."""
    bins: torch.Tensor
    """Where in a frame's square each weight's bin is, int16."""
    weights: torch.Tensor
    """Weights fb/16, then fb·(k - c)/16, then 1/h of each band."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The shape of a program, and its tables; of :func:`make_plan`."""

    n_fft: int
    n_mels: int
    rows: int
    """Squares of 32 variables by 32 lanes a program."""
    options: dict[str, int]
    """Of the compiler: num_warps and others."""
    blocks: int
    depth: int
    owners: tuple[int, ...]
    """Group of each block; -1 for none."""
    tables: Tables
    _moved: dict[torch.device, Tables] = field(default_factory=dict)

    @property
    def frames_per_program(self) -> int:
        """Frames that one program computes."""
        return self.rows * max(1, 2048 // self.n_fft)

    def on(self, device: torch.device) -> Tables:
        """The tables on `device`, moved once."""
        if device not in self._moved:
            self._moved[device] = Tables(*(table.to(device) for table in self.tables))
        return self._moved[device]


def make_plan(bands: Bands, *, n_fft: int, backend: str = "cuda", wave: int = 32) -> Plan | str:
    """The plan for some bands, or why the kernel does not take them.

    Parameters
    ----------
    bands : Bands
        The mel bands.
    n_fft : int
        Frame length, samples.
    backend : {"cuda", "hip"}
        Triton's name of what it is for.
    wave : int
        Lanes that the device runs together: 32, and 64 on AMD's gfx9.

    Returns
    -------
    Plan or str
    """
    if n_fft not in N_FFTS:
        return f"n_fft={n_fft} is none of {', '.join(map(str, N_FFTS))}"
    width = list(map(int, bands.width))
    groups = [width[start : start + _LANES] for start in range(0, len(width), _LANES)]
    shape = _blocks_and_depth([max(1, *group) for group in groups])
    if shape is None or shape[0] * shape[1] * max(1, 2048 // n_fft) > MAX_STEPS:
        return f"some of n_mels={len(width)} bands are too wide, at n_fft={n_fft}, for a kernel that unrolls them"
    blocks, depth = shape
    owners: list[int] = []
    for index, group in enumerate(groups):
        owners += [index] * math.ceil(max(1, *group) / depth)
    owners += [-1] * (blocks - len(owners))
    options = {"num_warps": ROWS * _LANES // wave}
    if backend == "cuda":
        options["maxnreg"] = MAX_REGISTERS.get(n_fft, 255)
    bins, weights = _bands(bands, owners, depth, n_fft)
    return Plan(n_fft, len(width), ROWS, options, blocks, depth, tuple(owners), Tables(_twiddles(n_fft), bins, weights))


def _blocks_and_depth(widths: list[int]) -> tuple[int, int] | None:
    """The fewest steps in all: 8, 16 or 32 blocks of a power of two steps."""
    found = []
    for blocks in (8, 16, 32):
        depth = 1
        while sum(math.ceil(width / depth) for width in widths) > blocks and depth <= MAX_STEPS:
            depth *= 2
        if depth <= MAX_STEPS:
            found.append((blocks * depth, blocks, depth))
    return min(found)[1:] if found else None


def _twiddles(n_fft: int) -> torch.Tensor:
    lane = torch.arange(_LANES, dtype=torch.float64)
    k = torch.arange(n_fft // 64, dtype=torch.float64)[:, None]
    angle = -2 * math.pi * lane * k / n_fft
    angle[0] = -2 * math.pi * lane / 64
    rows = torch.stack([angle.cos(), angle.sin()], dim=1).reshape(-1)
    ones = torch.ones(1 + _LANES, dtype=torch.float64)
    return torch.cat([ones[:1], rows, ones[1:]]).float()


def place(n_fft: int) -> torch.Tensor:
    """Where each bin of a frame is among variable · 32 + lane, square by square: int64 (n_fft/2,)."""
    per_lane, columns = n_fft // 32, n_fft // 64
    bins = torch.arange(n_fft // 2)
    up, down = bins // per_lane, 32 - -(-bins // per_lane)
    k = bins % per_lane
    rising = up * _LANES + k % _LANES + k // _LANES * 1024
    back = per_lane - k
    falling = down * _LANES + back % _LANES + back // _LANES * 1024
    middle = down * _LANES  # k = n_fft/64: variable 0 of an upper lane
    return torch.where(k < columns, rising, torch.where(k == columns, middle, falling))


def _bands(bands: Bands, owners: list[int], depth: int, n_fft: int) -> tuple[torch.Tensor, torch.Tensor]:
    first, width = list(map(int, bands.first)), list(map(int, bands.width))
    at = place(n_fft).tolist()
    steps = len(owners) * depth
    bins = torch.zeros((steps, _LANES), dtype=torch.int16)
    weights = torch.zeros((2, steps, _LANES), dtype=torch.float64)
    for group in range(max(owners) + 1):
        members = range(group * _LANES, min((group + 1) * _LANES, len(width)))
        start, count = owners.index(group) * depth, owners.count(group) * depth
        order = schedule([at[first[m] : first[m] + width[m]] for m in members], count)
        for step, row in enumerate(order, start):
            for lane, choice in enumerate(row):
                if choice is not None:
                    band, k = members[lane], first[members[lane]] + choice
                    bins[step, lane] = at[k]
                    weights[0, step, lane] = float(bands.filterbank[k, band])
                    weights[1, step, lane] = float(bands.filterbank[k, band] * (k - bands.centre[band]))
            # What is read for nothing is what another lane reads, which costs nothing.
            idle = weights[0, step] == 0
            if not idle.all():
                bins[step, idle] = bins[step, ~idle][0]
    # As the warps read them: block b belongs to warp b mod ROWS.
    shape = (len(owners) // ROWS, ROWS, depth, _LANES)
    bins = bins.reshape(shape).transpose(1, 2).reshape(-1)
    weights = weights.reshape(2, *shape).transpose(2, 3).reshape(-1) * _SCALE
    inverse = torch.ones((max(owners) + 1) * _LANES, dtype=torch.float64)
    inverse[: len(width)] = 1 / torch.tensor([float(h) for h in bands.half_support], dtype=torch.float64)
    return bins.contiguous(), torch.cat([weights, inverse]).float()
