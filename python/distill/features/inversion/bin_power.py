"""Power and frequency of single bins from the power and frequency of mel bands.

With channel 1, a frame is modelled as a sum of sines. Under a Hann window a sine of power 1 at ``f`` gives each bin
``k`` the power ``lobe(k - f)``. The power of the bins is found in three steps:

1. **Tones.** Bands that share a sine have the same frequency; in noise and in clicks, frequencies are as far apart as
   the bands are. The more a band agrees with a neighbour, the larger the share of its power that becomes one sine, at
   exactly its frequency.
2. **The rest** is a sum of sines ("atoms") with powers ``E[f] >= 0``. Their frequencies are a grid of half bins at the
   bottom, where bands are narrower than a bin, and of whole bins above. The features are linear in ``E``::

       S[m]      = sum_f a[m, f] · E[f]                    a = fb · lobe      the mel power
       S[m]·u[m] = sum_f a[m, f] · (f - c[m])/h[m] · E[f]                     times channel 1

   Both sides of the second line can be negative. The two lines are therefore combined into the non-negative targets
   ``S·(w ± u)/2w`` with ``|u| < w``, to which E is fitted by multiplicative updates [1]_ [2]_, which keep it
   non-negative.
3. **Correction.** The sum of both is fitted to the mel power alone, by the same updates on single bins. Where bands are
   as narrow as bins, the mel power alone determines it, even where it is not a sum of lobes.

Without channel 1, only the last step is left, from power that is spread evenly over each band.

The frequency at a bin follows from the power of its neighbours: of two bins in the lobe of one sine, the ratio gives
the sine's frequency exactly. So an error of channel 1 counts only where bands are too wide to tell.

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
# Updates of power that is spread over bands, of atoms, and of bins that are nearly right.
_UPDATES, _ATOM_UPDATES, _CORRECTIONS = 10, 6, 8
_EXPONENT = 1.8
# Difference between the frequencies of neighbouring bands, relative to that of their centres, up to which all of their
# power is one sine, and from which none is.
_AGREEING, _APART = 0.1, 0.7
# `w`. Channel 1 is clamped to slightly less, which affects 0.3 % of real sound.
_WIDEST = 1.5
_CLAMPED = 0.95 * _WIDEST
# Bins on either side of a sine that its lobe reaches.
_LOBE = 2
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
        return F.embedding_bag(
            self.columns, right, self.offsets, mode="sum", per_sample_weights=self.weights, include_last_offset=True
        )


class AtomTables(NamedTuple):
    """The constant matrices of the fit, for F atoms, M bands and K bins; see :func:`atom_tables`."""

    to_targets: Bags
    """Atoms to targets: (M, F), or (2M, F) with frequency, two consecutive rows per band."""
    from_targets: Bags
    """The transpose of `to_targets`, each row divided by its sum."""
    spread: Bags
    """Bands to atoms, (F, M): a band's power spread over the atoms in it."""
    lobes: Bags | None
    """Atoms to bins, (K, F): power in each bin of an atom of power 1. None without frequency, where atoms are bins."""


@lru_cache(maxsize=8)
def atom_tables(spec: MelSpec, device: torch.device) -> AtomTables:
    """Return the matrices of the fit for a feature, on `device`; cached."""
    bands = mel_bands(spec)
    with_frequency = spec.if_masking_threshold is not None
    atoms, lobes, reach = np.arange(spec.n_fft // 2 + 1.0), None, bands.filterbank.T
    if with_frequency:
        atoms, bins, powers = _sines(spec.n_fft)
        reach = np.einsum("fjm,fj->mf", bands.filterbank[bins], powers)
        atom, used = np.broadcast_to(np.arange(len(atoms))[:, None], bins.shape), powers > 0
        lobes = Bags.of_entries(bins[used], atom[used], powers[used], spec.n_fft // 2 + 1, device)
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
            Bags.of(targets, device),
            Bags.of(targets.T / total[:, None], device),
            Bags.of(spread, device),
            lobes,
        )


def _sines(n_fft: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the atoms' frequencies in bins, (F,), and the bins and powers of each lobe, (F, 5)."""
    atoms = np.concatenate([np.arange(0, n_fft // 8, 0.5), np.arange(n_fft // 8, n_fft // 2 + 1)])
    bins = np.floor(atoms).astype(np.int64)[:, None] + np.arange(-_LOBE, _LOBE + 1)
    inside = (bins >= 0) & (bins <= n_fft // 2)
    distance = bins - atoms[:, None]
    powers = _lobe(torch.from_numpy(distance)).numpy()
    # At the edge of the lobe only rounding errors are left.
    powers = np.where(inside & (np.abs(distance) < _LOBE), powers, 0.0)
    return atoms, bins.clip(0, n_fft // 2), powers


def _lobe(distance: torch.Tensor) -> torch.Tensor:
    """Return the power of bins at a distance from a sine of power 1; over all bins, it adds up to 1."""
    amplitude = torch.sinc(distance) + 0.5 * (torch.sinc(distance - 1) + torch.sinc(distance + 1))
    return amplitude.square() / 1.5


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
        Frequency of the sine at each bin, in bins, shape (K, C); the bin itself where there is no power. None for a
        feature of one channel.
    """
    plain = atom_tables(spec._replace(if_masking_threshold=None), power.device)
    if frequency is None:
        return _fit(plain.spread.times(power), power, plain, _UPDATES), None
    tables = atom_tables(spec, power.device)
    tones, share = _tones(power, frequency, spec)
    rest = power * (1 - share)
    part = frequency.clamp(-_CLAMPED, _CLAMPED) / (2 * _WIDEST)
    targets = torch.stack([rest * (0.5 + part), rest * (0.5 - part)], dim=1).flatten(0, 1)
    energy = _fit(tables.spread.times(rest), targets, tables, _ATOM_UPDATES)
    assert tables.lobes is not None  # with frequency, there are some
    bins = tones + tables.lobes.times(energy)
    # No band has weight at DC and Nyquist, so nothing says what they should be corrected to.
    outermost = bins[[0, -1]]
    bins = _fit(bins, power, plain, _CORRECTIONS)
    bins[[0, -1]] = outermost
    return bins, _frequency(bins)


def _fit(energy: torch.Tensor, targets: torch.Tensor, tables: AtomTables, updates: int) -> torch.Tensor:
    """Fit atoms to targets by multiplicative updates of `energy`, in place."""
    for _ in range(updates):
        ratio = targets / tables.to_targets.times(energy).add_(_TINY)
        energy.mul_(tables.from_targets.times(ratio).pow_(_EXPONENT))
    return energy


def _tones(power: torch.Tensor, frequency: torch.Tensor, spec: MelSpec) -> tuple[torch.Tensor, torch.Tensor]:
    """Return bins (K, C) with a sine for each band, and the share of each band's power in it, (M, C)."""
    bands, last = mel_bands(spec), spec.n_fft // 2
    centre, half = (
        torch.tensor(values, dtype=torch.float32).to(power.device)[:, None]
        for values in (bands.centre, bands.half_support)
    )
    position = (centre + half * frequency).clamp(0.5, last - 1.0)
    # Bands closer than a bin share it, whatever the sound is.
    apart = position.diff(dim=0).abs() / centre.diff(dim=0).clamp(min=1.0)
    agreement = ((_APART - apart) / (_APART - _AGREEING)).clamp(0, 1)
    share = torch.maximum(F.pad(agreement, (0, 0, 1, 0)), F.pad(agreement, (0, 0, 0, 1)))
    below, strength = position.floor(), power * share
    bins = torch.zeros((last + 1, power.shape[1]), dtype=torch.int64, device=power.device)
    for step in range(1 - _LOBE, _LOBE + 1):
        index = below + step
        added = _UNIT * strength * _lobe(index - position) * ((index >= 0) & (index <= last))
        bins.scatter_add_(0, index.clamp(0, last).long(), added.long())
    return bins.float().div_(_UNIT), share


def _frequency(power: torch.Tensor) -> torch.Tensor:
    """Return the frequency of the sine at each bin, (K, C), in bins.

    Under a Hann window, the amplitudes of two neighbouring bins, ``k`` and ``k + 1``, that a sine at ``k + d`` reaches
    are as ``2 - d`` to ``1 + d``. Each bin belongs to two such pairs, which count by the product of their amplitudes.
    """
    amplitude = power.sqrt()
    low, high = amplitude[:-1], amplitude[1:]
    bins = torch.arange(len(power), dtype=power.dtype, device=power.device)[:, None]
    found = bins[:-1] + (2 * high - low) / (low + high).clamp(min=_TINY)
    weight = low * high
    above, below = ((0, 0, 0, 1), (0, 0, 1, 0))
    total = F.pad(weight, above) + F.pad(weight, below)
    mean = (F.pad(weight * found, above) + F.pad(weight * found, below)) / total.clamp(min=_TINY)
    return torch.where(total > _TINY, mean, bins)
