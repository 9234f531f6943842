"""The constants that a kernel is compiled with, and its tables: twiddles, and the bins and weights of each band.

A *group* is 32 bands, one per lane. Each lane reads the bins of its band, one per step, so a group takes as many steps
as its widest band has bins. Steps come in *blocks* of `depth` steps, which are distributed over the warps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch

from .schedule import schedule

N_FFTS = (512, 1024, 2048, 4096)
"""Frame lengths that the kernel supports."""
MAX_STEPS = 512
"""Largest number of steps times frames per warp; all of them are unrolled."""

ROWS = 8
"""Warps of 32 lanes per program. Eight warps need 32 kB of shared memory, which fits every card twice; they load each
weight once for eight frames, and write eight frames of a band at once, a sector of 32 bytes."""
MAX_REGISTERS = {2048: 128}
"""Registers per thread on CUDA, by n_fft; otherwise 255. At 2048 everything fits into 128, so that a multiprocessor
holds two programs and one computes while the other waits. More frames per warp need more registers."""

_LANES = 32
_SCALE = 1.0 / 16.0  # the stencil computes 16·|X|² and 16·C


class Bands(Protocol):
    """The mel bands, as float64 arrays or tensors; K bins, M bands."""

    @property
    def filterbank(self) -> Any:
        """Weights (K, M)."""

    @property
    def first(self) -> Any:
        """First bin of each band (M,)."""

    @property
    def width(self) -> Any:
        """Bins of each band (M,)."""

    @property
    def centre(self) -> Any:
        """Centre of each band, bins (M,)."""

    @property
    def half_support(self) -> Any:
        """Half the support of each band, bins (M,)."""


class Tables(NamedTuple):
    """The tables that the kernel reads, on one device."""

    twiddles: torch.Tensor
    """A 1 that misaligns the rest, so that no lane loads four consecutive values where it needs every 32nd. Then rows
    of 32, real and imaginary part: exp(-2πi·lane/64), and exp(-2πi·lane·k/n_fft) for k from 1. Then 32 ones."""
    bins: torch.Tensor
    """Position of each weight's bin in the frame's square, int16."""
    weights: torch.Tensor
    """Weights fb/16, then fb·(k - c)/16, then 1/h of each band, float32."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The shape of a program and its tables, as made by :func:`make_plan`."""

    n_fft: int
    n_mels: int
    rows: int
    """Squares of 32 variables by 32 lanes per program."""
    options: dict[str, int]
    """Options of the compiler: num_warps and others."""
    blocks: int
    """Blocks of steps per program."""
    depth: int
    """Steps per block."""
    owners: tuple[int, ...]
    """Group of each block; -1 for none."""
    tables: Tables
    compiled: dict[Any, Any] = field(default_factory=dict, init=False)
    """What the launcher keeps for each kind of waveform."""
    _moved: dict[torch.device, Tables] = field(default_factory=dict)

    @cached_property
    def frames_per_program(self) -> int:
        """Number of frames that one program computes."""
        return self.rows * max(1, 2048 // self.n_fft)

    def on(self, device: torch.device) -> Tables:
        """Return the tables on `device`; they are copied once."""
        tables = self._moved.get(device)
        if tables is None:
            tables = self._moved[device] = Tables(*(table.to(device) for table in self.tables))
        return tables


def make_plan(bands: Bands, *, n_fft: int, backend: str = "cuda", wave: int = 32) -> Plan | str:
    """Return the plan for a set of bands, or the reason why the kernel does not support them.

    Parameters
    ----------
    bands : Bands
        The mel bands.
    n_fft : int
        Frame length, samples.
    backend : {"cuda", "hip"}, default "cuda"
        Triton's name of the backend to compile for.
    wave : int, default 32
        Lanes of a warp or wavefront: 32, or 64 on AMD's gfx9.

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
    # Fused multiply-adds, which are no longer the default from Triton 3.10 on.
    options = {"num_warps": ROWS * _LANES // wave, "enable_fp_fusion": True}
    if backend == "cuda":
        options["maxnreg"] = MAX_REGISTERS.get(n_fft, 255)
    bins, weights = _bands(bands, owners, depth, n_fft)
    return Plan(n_fft, len(width), ROWS, options, blocks, depth, tuple(owners), Tables(_twiddles(n_fft), bins, weights))


def _blocks_and_depth(widths: list[int]) -> tuple[int, int] | None:
    """Return the number of blocks and their depth with the fewest steps: 8, 16 or 32 blocks, the depth a power of two.

    None if no combination fits.
    """
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
    """Return the position of each bin of a frame, variable · 32 + lane within its square: int64 (n_fft/2,)."""
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
            # Idle lanes read a word that another lane reads, which takes no extra cycle.
            idle = weights[0, step] == 0
            if not idle.all():
                bins[step, idle] = bins[step, ~idle][0]
    # In the order in which the warps read them: block b belongs to warp b mod ROWS.
    shape = (len(owners) // ROWS, ROWS, depth, _LANES)
    bins = bins.reshape(shape).transpose(1, 2).reshape(-1)
    weights = weights.reshape(2, *shape).transpose(2, 3).reshape(-1) * _SCALE
    inverse = torch.ones((max(owners) + 1) * _LANES, dtype=torch.float64)
    inverse[: len(width)] = 1 / torch.tensor([float(h) for h in bands.half_support], dtype=torch.float64)
    return bins.contiguous(), torch.cat([weights, inverse]).float()
