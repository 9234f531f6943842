"""How high the peaks of a waveform are and how many there are: what is left to a limiter, and what is not."""

from __future__ import annotations

import math

import numpy as np

# What a limiter may take off the highest peak, dB, and the share of samples that may be above the ceiling. On drums,
# loops and field recordings through a model, the spectral convergence is best at 9 dB; at 3 dB, sounds are too quiet
# by 2.4 to 2.7 dB on average, at 9 dB by 0.3 to 1.0. A limiter would distort each period of a steady sound: the share
# leaves that to the gain, and costs the others 0.1 dB.
_MOST_LIMITED_DB = 9.0
_MOST_ABOVE = 0.02
# Magnitudes are counted in steps of 0.1 dB, from -20 dBFS up; what is above 80 dBFS counts as that.
_LOWEST_DB, _STEPS_PER_DB, _STEPS = -20, 10, 1000


class Peaks:
    """Counts the samples of a waveform by level.

    Attributes
    ----------
    samples : int
        Number of samples so far.
    peak : float
        Largest magnitude so far.
    """

    def __init__(self) -> None:
        self.samples, self.peak = 0, 0.0
        self._counts = np.zeros(_STEPS, np.int64)

    def add(self, block: np.ndarray) -> None:
        """Add samples [n]."""
        magnitude = np.abs(block)
        self.samples += block.size
        self.peak = max(self.peak, float(magnitude.max(initial=0.0)))
        loud = magnitude[magnitude > 10 ** (_LOWEST_DB / 20)].astype(np.float64)
        steps = ((20 * np.log10(loud) - _LOWEST_DB) * _STEPS_PER_DB).astype(np.int64)
        self._counts += np.bincount(steps.clip(0, _STEPS - 1), minlength=_STEPS)

    def gain(self, ceiling: float) -> float:
        """Return the factor, at most 1, after which a limiter may be left to bring the waveform to a ceiling.

        It leaves the peak at most 9 dB above the ceiling, and at most 2 % of the samples above it.
        """
        if self.peak <= ceiling:
            return 1.0
        above = np.cumsum(self._counts[::-1])[::-1]
        common = int(np.count_nonzero(above > _MOST_ABOVE * self.samples))
        common_db = _LOWEST_DB + common / _STEPS_PER_DB
        ceiling_db = 20 * math.log10(ceiling)
        highest_db = 20 * math.log10(self.peak) - _MOST_LIMITED_DB
        # Never quieter than what needs no limiter.
        return max(ceiling / self.peak, 10 ** (min(0.0, ceiling_db - common_db, ceiling_db - highest_db) / 20))
