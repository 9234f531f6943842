"""Mel power to the power of single bins, never negative, and where in a band its energy lies.

With channel 1, the power of a frame is taken for a sum of sines ("atoms") with powers ``E[f] >= 0``, on a grid of half
bins at the bottom, where bands are narrower than a bin, and of whole bins above. Under a Hann window a sine gives each
bin ``k`` the power ``lobe(k - f)``, so what the features hold is linear in ``E``::

    S[m]      = sum_f a[m, f] · E[f]                    a = fb · lobe      the mel power
    S[m]·u[m] = sum_f a[m, f] · (f - c[m])/h[m] · E[f]                     times channel 1

Both sides of the second line can be negative, so the two are taken together as ``S·(w ± u)/2w`` with ``|u| < w``, and E
is fitted to them by multiplicative updates [1]_ [2]_, which cannot leave the positive. Magnitude alone does not say
where in a band a line would be: there E is the power of the bins, and the first line, with ``a = fb``, all there is.

References
----------
.. [1] L. B. Lucy, "An iterative technique for the rectification of observed distributions", The Astronomical Journal
       79, 1974.
.. [2] D. D. Lee, H. S. Seung, "Algorithms for non-negative matrix factorization", NIPS 13, 2000.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from distill.features.reference import Numbers

# On a second of each of 28 sounds, 8, 10 and 16 updates differ by no more than the noise of such a measurement, 0.01
# in spectral convergence; plain updates, with an exponent of 1, need twice as many; half bins everywhere gain nothing.
_UPDATES = 10
_EXPONENT = 1.8
# Part of the energy that starts at the frequency that channel 1 says; the rest is spread over the band.
_AT_FREQUENCY = 0.5
# `w`: channel 1 beyond it, 0.3 % of real sound, is cut to just below.
_WIDEST = 1.5
_CUT = 0.95 * _WIDEST
# Bins to either side of a sine that its lobe reaches.
_LOBE = 2
# And from how far it is told what frequency is near it. Atoms of one sine lie on both sides of it: told by its lobe
# alone, a bin hears more of those on its own side, and 61 Hz comes back 25 cents off. From farther, other sines count.
_NEAR = 1.0
# Of the loudest band's power, which is 1 here: nothing is divided by less.
_TINY = 1e-12
# Power is spread as integers of 2^-40, because sums of floats depend on their order, which a GPU does not keep.
_UNIT = float(1 << 40)


class Bags(NamedTuple):
    """A matrix that is nearly all 0 as a bag of its columns for each row, see :mod:`distill.features.reference`."""

    columns: torch.Tensor
    """Column of each weight, row after row, int32."""
    offsets: torch.Tensor
    """Where each row starts, then the end, int32."""
    weights: torch.Tensor
    """What is not 0, float32."""

    @classmethod
    def of(cls, matrix: np.ndarray, device: torch.device) -> Bags:
        """A dense matrix."""
        rows, columns = matrix.nonzero()
        return cls.of_entries(rows, columns, matrix[rows, columns], len(matrix), device)

    @classmethod
    def of_entries(
        cls, rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, count: int, device: torch.device
    ) -> Bags:
        """A matrix of `count` rows by what in it is not 0."""
        order = np.lexsort((columns, rows))
        offsets = np.searchsorted(rows[order], np.arange(count + 1))
        return cls(
            torch.tensor(columns[order], dtype=torch.int32).to(device),
            torch.tensor(offsets, dtype=torch.int32).to(device),
            torch.tensor(weights[order], dtype=torch.float32).to(device),
        )

    def times(self, right: torch.Tensor) -> torch.Tensor:
        """Product with a matrix on the right, the same bits every time."""
        options = {"mode": "sum", "per_sample_weights": self.weights, "include_last_offset": True}
        return F.embedding_bag(self.columns, right, self.offsets, **options)


class AtomTables(NamedTuple):
    """What does not depend on the features; see :func:`atom_tables`. F atoms, M bands, K bins."""

    atoms: torch.Tensor
    """Frequency of each atom, bins, (F,)."""
    to_targets: Bags
    """(M, F), or (2M, F) with frequency: two rows a band, one band after the other."""
    from_targets: Bags
    """Its transpose, each atom's row divided by its sum."""
    spread: Bags
    """(F, M): a band's power over the atoms in it."""
    near: Bags | None
    """(K, F): 1 where an atom is near a bin. None without frequency."""
    lobes: Bags | None
    """(K, F): power in each bin of an atom of power 1. None without frequency, where atoms are bins."""


@lru_cache(maxsize=8)
def atom_tables(numbers: Numbers, device: torch.device) -> AtomTables:
    """Tables of the fit for a feature, on `device`; cached."""
    bands = numbers.bands()
    with_frequency = numbers.if_masking_threshold is not None
    atoms, lobes, near, reach = np.arange(numbers.n_fft // 2 + 1.0), None, None, bands.filterbank.T
    if with_frequency:
        atoms, bins, powers, is_near = _sines(numbers.n_fft)
        reach = np.einsum("fjm,fj->mf", bands.filterbank[bins], powers)
        atom = np.broadcast_to(np.arange(len(atoms))[:, None], bins.shape)
        lobes, near = (
            Bags.of_entries(bins[used], atom[used], values[used], numbers.n_fft // 2 + 1, device)
            for used, values in ((powers > 0, powers), (is_near, np.ones_like(powers)))
        )
    total = np.maximum(reach.sum(axis=0), _TINY)
    spread = (reach / np.maximum(reach.sum(axis=1, keepdims=True), _TINY)).T / total[:, None]
    targets = reach
    if with_frequency:
        offset = (atoms - bands.centre[:, None]) / bands.half_support[:, None]
        offset = offset.clip(-_WIDEST, _WIDEST) / (2 * _WIDEST)
        targets = np.stack([reach * (0.5 + offset), reach * (0.5 - offset)], axis=1).reshape(-1, len(atoms))
    # Cached tensors must be ordinary ones, also when the first call comes from inference mode.
    with torch.inference_mode(mode=False):
        return AtomTables(
            torch.tensor(atoms, dtype=torch.float32).to(device),
            Bags.of(targets, device),
            Bags.of(targets.T / total[:, None], device),
            Bags.of(spread, device),
            near,
            lobes,
        )


def _sines(n_fft: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Frequencies of the atoms in bins, (F,); and of the bins within each one's lobe, (F, 5), which, power, if near."""
    atoms = np.concatenate([np.arange(0, n_fft // 8, 0.5), np.arange(n_fft // 8, n_fft // 2 + 1)])
    bins = np.floor(atoms).astype(np.int64)[:, None] + np.arange(-_LOBE, _LOBE + 1)
    inside = (bins >= 0) & (bins <= n_fft // 2)
    distance = bins - atoms[:, None]
    powers = (np.sinc(distance) + 0.5 * (np.sinc(distance - 1) + np.sinc(distance + 1))) ** 2
    # The sum over bins is 1.5; at the distance of a lobe it is 0, but for rounding.
    powers = np.where(inside & (np.abs(distance) < _LOBE), powers / 1.5, 0.0)
    # Atoms below the first bin stand for the mirror image of a low sine as well: its pitch would be pulled down.
    near = inside & (np.abs(distance) <= _NEAR) & (atoms >= 1)[:, None]
    return atoms, bins.clip(0, n_fft // 2), powers, near


def bin_power(
    power: torch.Tensor, frequency: torch.Tensor | None, numbers: Numbers
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Power and frequency of single bins from those of bands.

    Parameters
    ----------
    power : torch.Tensor
        Mel power, shape (M, C) with C frames of any clips, float32, from 0 to 1.
    frequency : torch.Tensor, optional
        Channel 1, shape (M, C). Default: not known.
    numbers : Numbers
        The feature; with a threshold where `frequency` is given.

    Returns
    -------
    power : torch.Tensor
        Shape (K, C).
    frequency : torch.Tensor or None
        Mean frequency of the atoms near a bin, bins, shape (K, C); the bin's own where they have no power. None where
        channel 1 is not known.
    """
    tables = atom_tables(numbers, power.device)
    energy, targets = tables.spread.times(power), power
    if frequency is not None:
        share = frequency.clamp(-_CUT, _CUT) / (2 * _WIDEST)
        targets = torch.stack([power * (0.5 + share), power * (0.5 - share)], dim=1).flatten(0, 1)
        energy.mul_(1 - _AT_FREQUENCY).add_(_placed(power, frequency, numbers, tables.atoms), alpha=_AT_FREQUENCY)
    for _ in range(_UPDATES):
        ratio = targets / tables.to_targets.times(energy).add_(_TINY)
        energy.mul_(tables.from_targets.times(ratio).pow_(_EXPONENT))
    if tables.lobes is None:
        return energy, None
    frequency = tables.near.times(energy * tables.atoms[:, None])
    energy_near = tables.near.times(energy)
    own = torch.arange(len(frequency), device=power.device, dtype=torch.float32)[:, None]
    frequency = torch.where(energy_near > _TINY, frequency / energy_near.clamp(min=_TINY), own)
    return tables.lobes.times(energy), frequency


def _placed(power: torch.Tensor, frequency: torch.Tensor, numbers: Numbers, atoms: torch.Tensor) -> torch.Tensor:
    """Each band's power at its frequency, between the two atoms next to it, (F, C)."""
    bands = numbers.bands()
    centre, half = (
        torch.tensor(values, dtype=torch.float32).to(power.device)[:, None]
        for values in (bands.centre, bands.half_support)
    )
    position = (centre + half * frequency).clamp(float(atoms[0]), float(atoms[-1]))
    above = torch.searchsorted(atoms, position).clamp_(1, len(atoms) - 1)
    part = (position - atoms[above - 1]) / (atoms[above] - atoms[above - 1])
    placed = torch.zeros((len(atoms), power.shape[1]), dtype=torch.int64, device=power.device)
    # A sine lies in two bands, which both place it.
    for index, share in ((above - 1, 1 - part), (above, part)):
        placed.scatter_add_(0, index, (0.5 * _UNIT * power * share).long())
    return placed.float().div_(_UNIT)
