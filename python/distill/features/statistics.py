"""Mean and standard deviation of each channel, from sums. Imports neither numpy nor torch: ``distill status`` does not.

Statistics are a dict with ``mag_mean`` and ``mag_std`` for channel 0, ``if_mean`` and ``if_std`` for channel 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

CHANNELS = ("mag", "if")
"""The channels, by the first part of the names of their figures."""


def normalization_stats(sums: Sequence[float]) -> dict[str, float]:
    """Compute mean and standard deviation of both channels from [n, sum, sum of squares, sum, sum of squares]."""
    n, *moments = sums
    stats = {}
    for name, total, squares in zip(CHANNELS, moments[::2], moments[1::2], strict=True):
        mean = total / n if n else 0.0
        variance = squares / n - mean * mean if n else 0.0
        stats[f"{name}_mean"] = mean
        # A constant channel keeps its scale: divided by its rounding errors, it would explode.
        stats[f"{name}_std"] = math.sqrt(variance) if variance > 1e-12 else 1.0
    return stats
