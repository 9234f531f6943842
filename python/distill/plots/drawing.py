"""What all pictures share: how features are drawn, frequencies marked, and files written."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from distill.storage import write_atomically

DPI = 100
CHANNELS = ("magnitude", "IF")
SCALES = ("log1p of the mel power", "offset, half bandwidths")
"""What the colours of each channel say."""
_STYLES: tuple[dict[str, Any], ...] = (
    {"cmap": "magma", "vmin": 0.0},
    {"cmap": "RdBu_r", "vmin": -1.0, "vmax": 1.0},
)
# Of mel bands, which are close together at the bottom.
_BAND_TICKS_HZ = (200, 1_000, 5_000, 20_000)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, dpi=DPI, format="png")
    write_atomically(path, content.getvalue())


def draw_features(axes: Axes, features: np.ndarray, channel: int, *, top: float, duration_s: float) -> AxesImage:
    """Draw one channel, [M, n] over `duration_s` seconds, a unit of height a band; the magnitude from 0 to `top`."""
    style = {"vmax": top} | _STYLES[channel]
    extent = (0.0, duration_s, 0.0, float(len(features)))
    return axes.imshow(features, origin="lower", aspect="auto", extent=extent, interpolation="none", **style)


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
