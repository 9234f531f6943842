"""A phase from its derivatives, summed along the loudest path between any two points of the spectrogram.

Between neighbouring frames the phase of a bin advances by its frequency. Between neighbouring bins it changes by the
distance of the energy from the middle of the frame, which follows from the slope of the magnitude [1]_. Where there is
little power the derivatives are errors, so the paths avoid such points. [1]_ takes points from a heap, loudest first.
Here the same maximum spanning tree is built for all points at once by Boruvka's algorithm [2]_: each tree takes its
heaviest edge to another tree until one is left, which takes about six rounds for a second of sound.

References
----------
.. [1] Z. Prusa, P. Balazs, P. L. Sondergaard, "A noniterative method for reconstruction of phase from STFT magnitude",
       IEEE/ACM Transactions on Audio, Speech, and Language Processing 25, 2017.
.. [2] O. Boruvka, "O jistem problemu minimalnim", 1926.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

_TURN = 2 * math.pi
# The Gaussian window closest to Hann's is exp(-pi n²/(0.25645 n_fft²)); [1], table 1.
_GAUSSIAN = 0.25645
# Magnitude, relative to the loudest, below which its slope is rounding errors.
_FLOOR = 1e-6


class _Edges(NamedTuple):
    """Edges between neighbours in different trees."""

    start: torch.Tensor
    """Tree at one end; at first each point is a tree."""
    end: torch.Tensor
    """Tree at the other end."""
    step: torch.Tensor
    """Phase of `end` minus phase of `start`."""
    weight: torch.Tensor
    """Weight as sortable bits, see :func:`_sortable`."""

    def take(self, index: torch.Tensor) -> _Edges:
        return _Edges(*(values[index] for values in self))


def initial_phase(magnitude: torch.Tensor, frequency: torch.Tensor | None, hop_length: int) -> torch.Tensor:
    """Compute the phase of an STFT. As in torch, the phase refers to the first sample of each frame.

    Parameters
    ----------
    magnitude : torch.Tensor
        Shape (B, K, T), K = n_fft / 2 + 1, float32, from 0 to about 1.
    frequency : torch.Tensor or None
        Frequency at each point, in bins, same shape; None to derive it from the slope of the magnitude [1]_.
    hop_length : int
        Step between frames, samples.

    Returns
    -------
    torch.Tensor
        Radians, same shape; deterministic, bit for bit. At a clip's loudest point it is 0 or pi.
    """
    n_fft = 2 * (magnitude.shape[1] - 1)
    bins = torch.arange(magnitude.shape[1], device=magnitude.device)[:, None]
    level = torch.log(magnitude + _FLOOR)
    if frequency is None:
        frequency = bins + _slope(level.mT).mT / (_TURN * _GAUSSIAN)
    # Relative to the middle of the frame, by the trapezoidal rule: 2·pi·hop/n_fft times the mean of two frames.
    advance = (frequency[..., 1:] + frequency[..., :-1]) * (math.pi * hop_length / n_fft)
    delay = _slope(level) * (_GAUSSIAN * n_fft / hop_length)
    delay = delay.clamp_(-math.pi, math.pi)  # at most half a frame from the middle
    rise = (delay[:, 1:] + delay[:, :-1]) * -0.5
    phase = _sum_along_loudest(magnitude.square(), advance, rise)
    # Which point of a tree has phase 0 is an accident of how it was built; here it is the loudest.
    loudest = magnitude.flatten(1).argmax(dim=1)
    phase = phase - phase.flatten(1).gather(1, loudest[:, None])[..., None]
    return phase + math.pi * (bins % 2).to(phase.dtype)


def _slope(level: torch.Tensor) -> torch.Tensor:
    """Compute central differences along the last dimension."""
    level = torch.cat([level[..., :1], level, level[..., -1:]], dim=-1)
    return (level[..., 2:] - level[..., :-2]) * 0.5


def _sum_along_loudest(power: torch.Tensor, advance: torch.Tensor, rise: torch.Tensor) -> torch.Tensor:
    """Sum steps between frames (B, K, T - 1) and between bins (B, K - 1, T) to a phase (B, K, T)."""
    nodes = torch.arange(power.numel(), device=power.device).view(power.shape)
    edges = _Edges(
        torch.cat([nodes[..., :-1].flatten(), nodes[:, :-1].flatten()]),
        torch.cat([nodes[..., 1:].flatten(), nodes[:, 1:].flatten()]),
        torch.cat([advance.flatten(), rise.flatten()]),
        _sortable(torch.cat([_weight(power[..., :-1], power[..., 1:]), _weight(power[:, :-1], power[:, 1:])])),
    )
    count, rounds = power.numel(), []
    while len(edges.start):
        tree, offset, count = _join(edges, count)
        rounds.append((tree, offset))
        step = edges.step + offset[edges.start] - offset[edges.end]
        edges = _Edges(tree[edges.start], tree[edges.end], step, edges.weight)
        edges = edges.take((edges.start != edges.end).nonzero()[:, 0])
    phase = power.new_zeros(count)
    for tree, offset in reversed(rounds):
        phase = (phase[tree] + offset).remainder_(_TURN)
    return phase.view(power.shape)


def _weight(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the weight of edges: the power of the weaker end, with the stronger end as tie-breaker.

    All edges uphill from a point have the same weaker end.
    """
    return (torch.minimum(one, other) + _FLOOR * torch.maximum(one, other)).flatten()


def _sortable(weight: torch.Tensor) -> torch.Tensor:
    """Return the bits of non-negative floats in the upper half of int64, where they sort like the floats.

    The lower half takes the number of the edge, which makes each key unique. The sign is removed, so that every edge
    can be chosen and the rounds end, whatever the weights are.
    """
    return (weight.view(torch.int32).long() & 0x7FFFFFFF) << 32


def _join(edges: _Edges, count: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Join each of `count` trees to another; return the new trees, the phases relative to them, and the new count."""
    own = torch.arange(count, device=edges.start.device)
    key = edges.weight | torch.arange(len(edges.start), device=own.device)
    best = torch.full_like(own, -1)
    best.scatter_reduce_(0, edges.start, key, "amax").scatter_reduce_(0, edges.end, key, "amax")
    isolated = best < 0
    chosen = edges.take((best & 0xFFFFFFFF).masked_fill_(isolated, 0))
    parent = torch.where(isolated, own, chosen.start + chosen.end - own)
    # Keys are unique, so the only cycles are two trees that chose the same edge: the first of them is the root.
    root = isolated | ((parent[parent] == own) & (own < parent))
    parent = torch.where(root, own, parent)
    offset = torch.where(chosen.end == own, chosen.step, -chosen.step).masked_fill_(root, 0.0)
    while not torch.equal(grandparent := parent[parent], parent):
        offset = (offset + offset[parent]).remainder_(_TURN)
        parent = grandparent
    number = root.cumsum(0) - 1
    return number[parent], offset, int(number[-1]) + 1
