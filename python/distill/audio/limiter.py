"""A look-ahead limiter: it turns down only the peaks that are above a ceiling, smoothly and without delay."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

# The gain starts to fall this long before a peak, and has recovered as long after it.
_LOOK_AHEAD_S = 0.002
# Of one length, because the last bits of the result may depend on where a block begins.
_BLOCK_SAMPLES = 1 << 16


class Limiter:
    """Limits a waveform to a ceiling.

    The reduction that each sample needs is held for half the look-ahead before and after it (a sliding maximum), and
    smoothed by a Hann window of the same length. So it is never less than what is needed, and exactly none where no
    sample within the look-ahead is above the ceiling: such samples stay as they are, bit for bit.

    Parameters
    ----------
    ceiling : float
        Largest magnitude of the result, above 0.
    sample_rate : int
        Hz.

    Attributes
    ----------
    share : float
        Share of the samples so far that were turned down.
    reduction_db : float
        Greatest reduction so far, dB.
    """

    def __init__(self, ceiling: float, sample_rate: int) -> None:
        self._ceiling = np.float32(ceiling)
        self._half = max(1, round(_LOOK_AHEAD_S * sample_rate / 2))
        window = np.hanning(2 * self._half + 3)[1:-1]
        self._window = window / window.sum()
        self._samples, self._limited, self._least_gain = 0, 0, 1.0

    @property
    def share(self) -> float:  # noqa: D102 - see the class
        return self._limited / max(1, self._samples)

    @property
    def reduction_db(self) -> float:  # noqa: D102
        return 20 * math.log10(1 / self._least_gain)

    def process(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the limited samples of blocks [n], float32; as many in all, and none later than it came in.

        The length of the blocks makes no difference to the result. At most two blocks of 65 536 samples are held.
        """
        margin = np.zeros(2 * self._half, np.float32)
        held = margin
        for block in blocks:
            held = np.concatenate([held, block])
            while held.size >= _BLOCK_SAMPLES + 2 * margin.size:
                yield self._limit(held[: _BLOCK_SAMPLES + 2 * margin.size])
                held = held[_BLOCK_SAMPLES:]
        if held.size > margin.size:
            yield self._limit(np.concatenate([held, margin]))

    def _limit(self, samples: np.ndarray) -> np.ndarray:
        """Limit samples [n + 4 · half], of which the first and last 2 · half are only looked at."""
        inner = samples[2 * self._half : len(samples) - 2 * self._half]
        self._samples += inner.size
        magnitude = np.abs(samples)
        if not (magnitude > self._ceiling).any():
            return inner
        needed = 1.0 - self._ceiling / np.maximum(magnitude, self._ceiling).astype(np.float64)
        gain = 1.0 - np.convolve(_sliding_maximum(needed, self._window.size), self._window, "valid")
        self._limited += int(np.count_nonzero(gain < 1.0))
        self._least_gain = min(self._least_gain, float(gain.min()))
        # The product may round to just above the ceiling.
        return np.clip((inner * gain).astype(np.float32), -self._ceiling, self._ceiling)


def _sliding_maximum(values: np.ndarray, width: int) -> np.ndarray:
    """Return the maximum of each `width` neighbouring values, [n - width + 1]."""
    covered = 1
    while covered < width:
        step = min(covered, width - covered)
        values = np.maximum(values[:-step], values[step:])
        covered += step
    return values
