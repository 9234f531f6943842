"""Peak and constant offset (DC) of a file, found in one pass over its blocks."""

from __future__ import annotations

import math
import statistics

import numpy as np

from distill import _native
from distill.audio.decode import Block
from distill.types import Reason

SILENCE_PEAK = 1e-3
"""A chunk whose peak, after normalisation, is below this is silent: -60 dBFS."""
NO_SIGNAL_PEAK = 1e-4
"""A file or chunk whose peak is below this is not normalised but counts as silent: -80 dBFS.

Dither of 16 bits, also that of two channels that cancel out, peaks at 1 or 2 steps: -90 or -84 dBFS."""
FAINT = "mixed to mono, nothing in it is above -60 dBFS"
"""Message for a file that does not reach `SILENCE_PEAK`."""
SILENT = Reason(f"silent throughout: {FAINT}", "silent")
"""Reason for skipping a file all of whose chunks are silent; see `Levels.silence`."""
CANCELLED = Reason("its channels cancel out when they are mixed to mono: use one of them alone", "channels-cancel")
"""Reason for skipping a file whose channels are not silent, and whose mix is: such as left = -right."""

_PIECE_SAMPLES = 64
_PIECES = 8
# Standard errors that the mean has to be away from 0; the figures are in docs/notes/data.md.
_CERTAIN = 4.0


class Levels:
    """Levels of a file whose blocks are added in order. Memory does not grow with its length.

    Attributes
    ----------
    samples : int
        Number of samples.
    """

    def __init__(self) -> None:
        self.samples = 0
        self._low, self._high, self._total = math.inf, -math.inf, 0.0
        # Sums of 8 to 15 consecutive pieces of equal length, and of the piece that is not complete yet.
        self._sums: list[float] = []
        self._length = _PIECE_SAMPLES
        self._begun, self._filled = 0.0, 0

    def add(self, block: Block) -> None:
        """Add the next block."""
        samples, start = block.samples, 0
        self._low, self._high = min(self._low, block.low), max(self._high, block.high)
        self.samples += samples.size
        while start < samples.size:
            taken = min(self._length - self._filled, samples.size - start)
            self._begun += _native.sample_sum(samples[start : start + taken])
            self._filled, start = self._filled + taken, start + taken
            if self._filled == self._length:
                self._end_piece()

    def _end_piece(self) -> None:
        self._sums.append(self._begun)
        self._total += self._begun
        self._begun, self._filled = 0.0, 0
        if len(self._sums) == 2 * _PIECES:
            self._sums = [first + second for first, second in zip(self._sums[::2], self._sums[1::2], strict=True)]
            self._length *= 2

    @property
    def offset(self) -> float:
        """The constant offset (DC) that is to be removed; 0 if there is none.

        It is the mean, if that is at least -60 dB of the peak about it, no chance result of low frequencies, and there
        throughout the file: the mean of a sound that decays is no offset. A file of less than 512 samples has none.
        """
        mean = (self._total + self._begun) / max(1, self.samples)
        if len(self._sums) < _PIECES or mean == 0 or abs(mean) < SILENCE_PEAK * self._peak_about(mean):
            return 0.0
        means = np.divide(self._sums, self._length)
        is_throughout = statistics.median(means.tolist()) / mean >= 0.5
        is_certain = abs(mean) >= _CERTAIN * means.std() / math.sqrt(len(means))
        return mean if is_throughout and is_certain else 0.0

    @property
    def peak(self) -> float:
        """Largest magnitude, without the offset."""
        return self._peak_about(self.offset)

    def _peak_about(self, offset: float) -> float:
        return max(self._high - offset, offset - self._low) if self.samples else 0.0

    @property
    def silence(self) -> Reason:
        """The reason for skipping the file if all of its chunks are silent."""
        notes = [f"its peak is {decibels(self.peak)}"] if self.peak > 0 else []
        notes += [f"it has a constant offset (DC) of {decibels(self.offset)}"] if self.offset else []
        return Reason(f"{SILENT} ({', '.join(notes)})", SILENT.code) if notes else SILENT


def decibels(level: float) -> str:
    """Return a level other than 0 in words, in dB re full scale."""
    return f"{round(20 * math.log10(abs(level)))} dBFS"


def level_of(samples: np.ndarray) -> float:
    """Return the largest magnitude in contiguous `samples`, or half their range if none of them reaches 0.

    What is left of an offset where a file is silent is then silent, too.
    """
    low, high = _native.sample_range(samples)
    if samples.size >= _PIECES * _PIECE_SAMPLES and (low > 0 or high < 0):
        return (high - low) / 2
    return max(high, -low)
