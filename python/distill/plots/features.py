"""A grid of features: the one place that says how features look in a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from distill.plots.figure import DPI, hertz_ticks, mark_hertz, name_fonts, title_of

_CHANNELS = ("magnitude", "IF")
_BAR_LABELS = ("log1p of the mel power", "offset, half bandwidths")
_STYLES: tuple[dict[str, Any], ...] = (
    {"cmap": "magma", "vmin": 0.0},
    {"cmap": "RdBu_r", "vmin": -1.0, "vmax": 1.0},
)
# What fits above a panel.
_TITLE_CHARACTERS = 32
# Few, because mel bands are close together at low frequencies.
_TICKS_HZ = (200, 1_000, 5_000, 20_000)


class FeatureRow(NamedTuple):
    """A row of a grid: panels of the same channel, side by side."""

    label: str
    channel: int
    """0: magnitude, 1: instantaneous frequency."""
    panels: Sequence[np.ndarray] | np.ndarray
    """Features before normalisation, [M, T] each. A row may have fewer panels than the first one."""


class Margins(NamedTuple):
    """Fixed margins of a grid, in inches."""

    left: float
    right: float
    bottom: float
    top: float


def input_and_output_rows(inputs: np.ndarray, outputs: np.ndarray) -> list[FeatureRow]:
    """Return rows that show each channel of `inputs` above that of `outputs`.

    Parameters
    ----------
    inputs, outputs : ndarray of shape [N, C, M, T]
        Features before normalisation.

    Returns
    -------
    list of FeatureRow
        2·C rows of N panels.
    """
    return [
        FeatureRow(f"{_CHANNELS[channel]}, {source}", channel, features[:, channel])
        for channel in range(inputs.shape[1])
        for source, features in (("input", inputs), ("output", outputs))
    ]


def draw_grid(
    rows: Sequence[FeatureRow],
    *,
    size: tuple[float, float],
    loudest: float,
    centres: np.ndarray,
    duration_s: float,
    margins: Margins | None = None,
) -> tuple[Figure, np.ndarray]:
    """Draw features over time in seconds and frequency in Hz, with a colour bar for each channel.

    Parameters
    ----------
    rows : sequence of FeatureRow
        From the top down; rows of one channel follow each other.
    size : (float, float)
        Width and height of the figure, inches.
    loudest : float
        Magnitude at the upper end of the colour scale.
    centres : ndarray of shape [M]
        Centres of the mel bands, Hz.
    duration_s : float
        Length of every panel, seconds.
    margins : Margins, optional
        Default: matplotlib computes them, which takes longer than a short epoch.

    Returns
    -------
    figure : Figure
    axes : ndarray of Axes [rows, columns]
    """
    figure = Figure(figsize=size, layout="constrained" if margins is None else None, dpi=DPI)
    grid = figure.subplots(len(rows), max(len(row.panels) for row in rows), squeeze=False, sharex=True, sharey=True)
    if margins is not None:
        width, height = size
        sides = margins.left / width, margins.bottom / height, 1 - margins.right / width, 1 - margins.top / height
        figure.subplots_adjust(*sides, wspace=0.06, hspace=0.1)
    drawn: dict[int, list[np.ndarray]] = {}
    images: dict[int, AxesImage] = {}
    for line, row in zip(grid, rows, strict=True):
        for axes, panel in zip(line, row.panels, strict=False):
            images[row.channel] = _draw_panel(axes, panel, row.channel, loudest, duration_s)
        for axes in line[len(row.panels) :]:
            axes.set_axis_off()
        line[0].set_ylabel(f"{row.label}\nHz")
        drawn.setdefault(row.channel, []).append(line)
    _mark_bands(grid[0][0].yaxis, centres)
    for axes in grid[-1]:
        axes.set_xlabel("time, s")
    for channel, image in images.items():
        _draw_colour_bar(figure, image, channel, np.array(drawn[channel]), margins)
    return figure, grid


def name_columns(grid: np.ndarray, names: Sequence[str]) -> None:
    """Write the names of sounds above the first columns of a grid's axes, [rows, columns]."""
    fonts = name_fonts()
    for axes, name in zip(grid[0], names, strict=False):
        axes.set_title(title_of(name, _TITLE_CHARACTERS), fontsize=8, fontfamily=fonts)


def _draw_panel(axes: Axes, panel: np.ndarray, channel: int, loudest: float, duration_s: float) -> AxesImage:
    style = {"vmax": loudest} | _STYLES[channel]
    extent = (0.0, duration_s, 0.0, float(len(panel)))
    return axes.imshow(panel, origin="lower", aspect="auto", extent=extent, interpolation="none", **style)


def _mark_bands(axis: Axis, centres: np.ndarray) -> None:
    """Label an axis of mel bands, whose edges are at 0, 1, ... M, with frequencies."""
    ticks = hertz_ticks(centres[0], centres[-1], _TICKS_HZ)
    mark_hertz(axis, np.interp(np.log(ticks), np.log(centres), np.arange(len(centres)) + 0.5).tolist(), ticks)


def _draw_colour_bar(
    figure: Figure, image: AxesImage, channel: int, lines: np.ndarray, margins: Margins | None
) -> None:
    """Draw the colour bar of a channel, beside `lines`: its axes, [rows, columns]."""
    if margins is None:
        figure.colorbar(image, ax=lines.ravel().tolist(), pad=0.01, fraction=0.02, label=_BAR_LABELS[channel])
        return
    width = figure.get_figwidth()
    lowest, highest = lines[-1][-1].get_position().y0, lines[0][-1].get_position().y1
    place = (1 - (margins.right - 0.1) / width, lowest, 0.13 / width, highest - lowest)
    figure.colorbar(image, cax=figure.add_axes(place), label=_BAR_LABELS[channel])
