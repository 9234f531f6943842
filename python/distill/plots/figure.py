"""What every picture needs: tick marks in Hz, and writing the file."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axis import Axis
from matplotlib.figure import Figure

from distill.storage import write_atomically

DPI = 100


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, atomically."""
    content = io.BytesIO()
    figure.savefig(content, dpi=DPI, format="png")
    write_atomically(path, content.getvalue())


def hertz_ticks(low: float, high: float, among: Sequence[int]) -> list[int]:
    """Return the frequencies of `among` from `low` to `high`, Hz; if there are none, the geometric mean of the two."""
    return [value for value in among if low <= value <= high] or [max(1, round(math.sqrt(low * high)))]


def mark_hertz(axis: Axis, positions: Sequence[float], hertz: Sequence[int]) -> None:
    """Label the `positions` on an axis with frequencies, and remove all other ticks."""
    axis.set_ticks(positions, labels=[f"{value // 1000}k" if value >= 1_000 else str(value) for value in hertz])
    axis.set_ticks([], minor=True)
