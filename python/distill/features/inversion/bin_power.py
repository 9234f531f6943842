"""Power and frequency of single bins from the power and frequency of mel bands.

With channel 1, a frame is modelled as a sum of sines ("atoms") with powers ``E[f] >= 0``. Their frequencies are a grid
of half bins at the bottom, where bands are narrower than a bin, and of whole bins above. Under a Hann window a sine
gives each bin ``k`` the power ``lobe(k - f)``, so the features are linear in ``E``::

    S[m]      = sum_f a[m, f] · E[f]                    a = fb · lobe      the mel power
    S[m]·u[m] = sum_f a[m, f] · (f - c[m])/h[m] · E[f]                     times channel 1

Both sides of the second line can be negative. The two lines are therefore combined into the non-negative targets
``S·(w ± u)/2w`` with ``|u| < w``, to which E is fitted by multiplicative updates [1]_ [2]_, which keep it non-negative.
Magnitude alone does not say where in a band a sine would be: E is then the power of the bins, and the first line, with
``a = fb``, is the only target.

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

from distill.features.mel import MelSpec, mel_bands

# The numbers are measured: see docs/notes/inversion.md.
_UPDATES = 10
_EXPONENT = 1.8
# Share of a band's power that starts at the frequency of channel 1; the rest is spread over the band.
_AT_FREQUENCY = 0.5
# `w`. Channel 1 is clamped to slightly less, which affects 0.3 % of real sound.
_WIDEST = 1.5
_CLAMPED = 0.95 * _WIDEST
# Bins on either side of a sine that its lobe reaches.
_LOBE = 2
# Distance in bins up to which atoms count, all equally, towards a bin's frequency. Weighted by their lobes, atoms on
# the bin's side of a sine would count more and detune it; atoms farther away belong to other sines.
_NEAR = 1.0
# Smallest divisor, relative to the loudest band's power, which is 1 here.
_TINY = 1e-12
# Power is added as integers in units of 2^-40: sums of floats depend on their order, which a GPU does not keep.
_UNIT = float(1 << 40)


class Bags(NamedTuple):
    """A sparse matrix, stored for embedding_bag: for each row its non-zero columns and their weights."""

    columns: torch.Tensor
    """Column of each weight, int32; row after row."""
    offsets: torch.Tensor
    """Start of each row in `columns`, then the end, int32."""
    weights: torch.Tensor
    """Non-zero weights, float32."""

    @classmethod
    def of(cls, matrix: np.ndarray, device: torch.device) -> Bags:
        """Return a dense matrix as bags."""
        rows, columns = matrix.nonzero()
        return cls.of_entries(rows, columns, matrix[rows, columns], len(matrix), device)

    @classmethod
    def of_entries(
        cls, rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, count: int, device: torch.device
    ) -> Bags:
        """Return a matrix of `count` rows from the rows, columns and weights of its non-zero entries."""
        order = np.lexsort((columns, rows))
        offsets = np.searchsorted(rows[order], np.arange(count + 1))
        return cls(
            torch.tensor(columns[order], dtype=torch.int32).to(device),
            torch.tensor(offsets, dtype=torch.int32).to(device),
            torch.tensor(weights[order], dtype=torch.float32).to(device),
        )

    def times(self, right: torch.Tensor) -> torch.Tensor:
        """Compute the product with a dense matrix on the right; deterministic, bit for bit."""
        options = {"mode": "sum", "per_sample_weights": self.weights, "include_last_offset": True}
        return F.embedding_bag(self.columns, right, self.offsets, **options)


class AtomTables(NamedTuple):
    """The constant matrices of the fit, for F atoms, M bands and K bins; see :func:`atom_tables`."""

    atoms: torch.Tensor
    """Frequency of each atom, bins, (F,)."""
    to_targets: Bags
    """Atoms to targets: (M, F), or (2M, F) with frequency, two consecutive rows per band."""
    from_targets: Bags
    """The transpose of `to_targets`, each row divided by its sum."""
    spread: Bags
    """Bands to atoms, (F, M): a band's power spread over the atoms in it."""
    near: Bags | None
    """Atoms to bins, (K, F): 1 where an atom is near a bin. None without frequency."""
    lobes: Bags | None
    """Atoms to bins, (K, F): power in each bin of an atom of power 1. None without frequency, where atoms are bins."""


@lru_cache(maxsize=8)
def atom_tables(spec: MelSpec, device: torch.device) -> AtomTables:
    """Return the matrices of the fit for a feature, on `device`; cached."""
    bands = mel_bands(spec)
    with_frequency = spec.if_masking_threshold is not None
    atoms, lobes, near, reach = np.arange(spec.n_fft // 2 + 1.0), None, None, bands.filterbank.T
    if with_frequency:
        atoms, bins, powers, is_near = _sines(spec.n_fft)
        reach = np.einsum("fjm,fj->mf", bands.filterbank[bins], powers)
        atom = np.broadcast_to(np.arange(len(atoms))[:, None], bins.shape)
        lobes, near = (
            Bags.of_entries(bins[used], atom[used], values[used], spec.n_fft // 2 + 1, device)
            for used, values in ((powers > 0, powers), (is_near, np.ones_like(powers)))
        )
    total = np.maximum(reach.sum(axis=0), _TINY)
    spread = (reach / np.maximum(reach.sum(axis=1, keepdims=True), _TINY)).T / total[:, None]
    targets = reach
    if with_frequency:
        offset = (atoms - bands.centre[:, None]) / bands.half_support[:, None]
        offset = offset.clip(-_WIDEST, _WIDEST) / (2 * _WIDEST)
        targets = np.stack([reach * (0.5 + offset), reach * (0.5 - offset)], axis=1).reshape(-1, len(atoms))
    # The first call may come from inference mode, but cached tensors must work outside it, too.
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
    """Return the atoms' frequencies in bins, (F,), and for the five bins of each lobe: bin, power, whether near."""
    atoms = np.concatenate([np.arange(0, n_fft // 8, 0.5), np.arange(n_fft // 8, n_fft // 2 + 1)])
    bins = np.floor(atoms).astype(np.int64)[:, None] + np.arange(-_LOBE, _LOBE + 1)
    inside = (bins >= 0) & (bins <= n_fft // 2)
    distance = bins - atoms[:, None]
    powers = (np.sinc(distance) + 0.5 * (np.sinc(distance - 1) + np.sinc(distance + 1))) ** 2
    # The sum over bins is 1.5. At the edge of the lobe only rounding errors are left.
    powers = np.where(inside & (np.abs(distance) < _LOBE), powers / 1.5, 0.0)
    # Atoms below the first bin also hold the mirror image of a low sine, which would pull its pitch down.
    near = inside & (np.abs(distance) <= _NEAR) & (atoms >= 1)[:, None]
    return atoms, bins.clip(0, n_fft // 2), powers, near


def bin_power(
    power: torch.Tensor, frequency: torch.Tensor | None, spec: MelSpec
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Compute power and frequency of single bins from those of bands.

    Parameters
    ----------
    power : torch.Tensor
        Mel power, shape (M, C) with C frames of any clips, float32, from 0 to 1.
    frequency : torch.Tensor or None
        Channel 1, shape (M, C); None for a feature of one channel.
    spec : MelSpec
        The feature.

    Returns
    -------
    power : torch.Tensor
        Shape (K, C).
    frequency : torch.Tensor or None
        Mean frequency of the atoms near each bin, in bins, shape (K, C); the bin itself where they have no power. None
        for a feature of one channel.
    """
    tables = atom_tables(spec, power.device)
    energy, targets = tables.spread.times(power), power
    if frequency is not None:
        share = frequency.clamp(-_CLAMPED, _CLAMPED) / (2 * _WIDEST)
        targets = torch.stack([power * (0.5 + share), power * (0.5 - share)], dim=1).flatten(0, 1)
        energy.mul_(1 - _AT_FREQUENCY).add_(_placed(power, frequency, spec, tables.atoms), alpha=_AT_FREQUENCY)
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


def _placed(power: torch.Tensor, frequency: torch.Tensor, spec: MelSpec, atoms: torch.Tensor) -> torch.Tensor:
    """Divide each band's power between the two atoms next to its frequency, (F, C)."""
    bands = mel_bands(spec)
    centre, half = (
        torch.tensor(values, dtype=torch.float32).to(power.device)[:, None]
        for values in (bands.centre, bands.half_support)
    )
    position = (centre + half * frequency).clamp(float(atoms[0]), float(atoms[-1]))
    above = torch.searchsorted(atoms, position).clamp_(1, len(atoms) - 1)
    part = (position - atoms[above - 1]) / (atoms[above] - atoms[above - 1])
    placed = torch.zeros((len(atoms), power.shape[1]), dtype=torch.int64, device=power.device)
    # Each band adds half its power: a sine lies in two bands.
    for index, share in ((above - 1, 1 - part), (above, part)):
        placed.scatter_add_(0, index, (0.5 * _UNIT * power * share).long())
    return placed.float().div_(_UNIT)
