"""A phase from its derivatives: along the loudest path between any two points of the spectrogram.

Between neighbouring frames the phase of a bin advances by its frequency, and between neighbouring bins by how far the
energy lies from the middle of the frame, which the growth of the magnitude tells [1]_. The derivatives are errors where
there is little power, so they are summed along paths that avoid such points: [1]_ takes points from a heap, loudest
first. Here the same tree, of largest weights between neighbours, is made for all points at once as by Boruvka [2]_:
each tree takes its heaviest edge to another, until there is one; about six rounds for a second of sound.

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
# The Gaussian window nearest to Hann's: exp(-pi n²/(0.25645 n_fft²)); [1], table 1.
_GAUSSIAN = 0.25645
# Magnitude, of the loudest, below which its growth is rounding.
_FLOOR = 1e-6


class _Edges(NamedTuple):
    """Neighbours that are not joined yet: node or tree at either end, phase of `end` less `start`, weight's bits."""

    start: torch.Tensor
    end: torch.Tensor
    step: torch.Tensor
    weight: torch.Tensor

    def take(self, index: torch.Tensor) -> _Edges:
        return _Edges(*(values[index] for values in self))


def start_phase(magnitude: torch.Tensor, frequency: torch.Tensor | None, hop_length: int) -> torch.Tensor:
    """Phase of an STFT whose frames begin at their first sample, as torch's.

    Parameters
    ----------
    magnitude : torch.Tensor
        Shape (B, K, T), K = n_fft / 2 + 1, float32, from 0 to about 1.
    frequency : torch.Tensor or None
        Frequency at each point, bins, same shape; None to read it off the slope of the magnitude [1]_.
    hop_length : int
        Samples between frames.

    Returns
    -------
    torch.Tensor
        Radians, same shape; the same for the same input, bit for bit.
    """
    n_fft = 2 * (magnitude.shape[1] - 1)
    bins = torch.arange(magnitude.shape[1], device=magnitude.device)[:, None]
    level = torch.log(magnitude + _FLOOR)
    if frequency is None:
        frequency = bins + _slope(level.mT).mT / (_TURN * _GAUSSIAN)
    # Of a frame that is seen from its middle; the sum over two frames is their mean: the trapezoid.
    advance = (frequency[..., 1:] + frequency[..., :-1]) * (math.pi * hop_length / n_fft)
    delay = _slope(level) * (_GAUSSIAN * n_fft / hop_length)
    delay = delay.clamp_(-math.pi, math.pi)  # no further than half a frame from its middle
    rise = (delay[:, 1:] + delay[:, :-1]) * -0.5
    phase = _sum_along_loudest(magnitude.square(), advance, rise)
    return phase + math.pi * (bins % 2)


def _slope(level: torch.Tensor) -> torch.Tensor:
    """Central difference along the last dimension."""
    level = torch.cat([level[..., :1], level, level[..., -1:]], dim=-1)
    return (level[..., 2:] - level[..., :-2]) * 0.5


def _sum_along_loudest(power: torch.Tensor, advance: torch.Tensor, rise: torch.Tensor) -> torch.Tensor:
    """Phase (B, K, T) from its steps between frames (B, K, T - 1) and between bins (B, K - 1, T)."""
    nodes = torch.arange(power.numel(), device=power.device).view(power.shape)
    edges = _Edges(
        torch.cat([nodes[..., :-1].flatten(), nodes[:, :-1].flatten()]),
        torch.cat([nodes[..., 1:].flatten(), nodes[:, 1:].flatten()]),
        torch.cat([advance.flatten(), rise.flatten()]),
        _order(torch.cat([_weight(power[..., :-1], power[..., 1:]), _weight(power[:, :-1], power[:, 1:])])),
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
    """An edge is as good as its weaker end; among equals, which all edges uphill from a point are, the louder wins."""
    return (torch.minimum(one, other) + _FLOOR * torch.maximum(one, other)).flatten()


def _order(weight: torch.Tensor) -> torch.Tensor:
    # The bits of floats that are not negative sort as they do, and leave room for a number that makes each unique. With
    # the sign cut off every edge can be taken, so that whatever the weights are, the rounds end.
    return (weight.view(torch.int32).long() & 0x7FFFFFFF) << 32


def _join(edges: _Edges, count: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Join every one of `count` trees to another: new tree of each, its phase less that of the new one, how many."""
    one = torch.arange(count, device=edges.start.device)
    key = edges.weight | torch.arange(len(edges.start), device=one.device)
    best = torch.full_like(one, -1)
    best.scatter_reduce_(0, edges.start, key, "amax").scatter_reduce_(0, edges.end, key, "amax")
    alone = best < 0
    chosen = edges.take((best & 0xFFFFFFFF).masked_fill_(alone, 0))
    parent = torch.where(alone, one, chosen.start + chosen.end - one)
    # Weights are unique, so the only cycles are pairs that chose each other: the first of them is the root.
    root = alone | ((parent[parent] == one) & (one < parent))
    parent = torch.where(root, one, parent)
    offset = torch.where(chosen.end == one, chosen.step, -chosen.step).masked_fill_(root, 0.0)
    while not torch.equal(above := parent[parent], parent):
        offset = (offset + offset[parent]).remainder_(_TURN)
        parent = above
    numbered = root.cumsum(0) - 1
    return numbered[parent], offset, int(numbered[-1]) + 1
