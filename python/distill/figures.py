"""Pictures as files."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from distill.files import write_atomically

DPI = 100
# Of mel bands, which are close together at the bottom.
_BAND_TICKS_HZ = (200, 1_000, 5_000, 20_000)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, dpi=DPI, format="png")
    write_atomically(path, content.getvalue())


def mark_bands(axis: Axis, centres: np.ndarray) -> None:
    """Mark frequencies on an axis of mel bands, whose centres [M] are in Hz and whose edges are at 0, 1, ... M."""
    ticks = hertz_ticks(centres[0], centres[-1], _BAND_TICKS_HZ)
    mark_hertz(axis, np.interp(np.log(ticks), np.log(centres), np.arange(len(centres)) + 0.5).tolist(), ticks)


def hertz_ticks(low: float, high: float, among: Sequence[int]) -> list[int]:
    """Those of the frequencies `among` that lie from `low` to `high`, Hz; where none does, one in the middle."""
    return [value for value in among if low <= value <= high] or [max(1, round(math.sqrt(low * high)))]


def mark_hertz(axis: Axis, places: Sequence[float], hertz: Sequence[int]) -> None:
    """Have frequencies as an axis' only ticks."""
    axis.set_ticks(places, labels=[f"{value // 1000}k" if value >= 1_000 else str(value) for value in hertz])
    axis.set_ticks([], minor=True)
