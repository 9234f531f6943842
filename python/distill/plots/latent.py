"""Pictures of a latent space: variance of the axes (scree), positions of sounds (map), and moves along axes (sweep)."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from distill.plots.features import FeatureRow, draw_grid
from distill.plots.figure import hertz_ticks, mark_hertz, name_fonts, save_figure
from distill.text import printable

_SHOWN_AXES = 32
_LABELLED_GROUPS = 16
_LEAST_GROUP = 3
_LABEL_CHARACTERS = 18
_NAMED_SOUNDS = 40
# Of labels, for each that may be written: in a dense map few find a place.
_TRIES = 5
# Where a label may be, in half heights and widths of its own from the place that it names; the first that is free.
_SOUND_OFFSETS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_GROUP_OFFSETS = ((0, 0), *((0, y) for step in range(1, 9) for y in (2 * step, -2 * step)))
_TICKS_HZ = (50, 200, 1_000, 5_000, 20_000)


def save_scree_picture(share: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Draw the variance that each axis explains, and the cumulative variance.

    Parameters
    ----------
    share : ndarray of shape [K]
        Share of the variance, in decreasing order.
    names : sequence of str
        Names of the K axes.
    path : Path
        The picture.
    """
    shown = min(len(share), _SHOWN_AXES)
    total = np.cumsum(share) * 100
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    axes = figure.subplots()
    number = np.arange(1, shown + 1)
    axes.bar(number, share[:shown] * 100, color="#4c72b0", label="this axis")
    axes.plot(number, total[:shown], color="#c44e52", marker=".", label="cumulative")
    for axis in range(shown):
        if names[axis] != f"axis{axis + 1}":
            # Above and to the right of the bar, clear of the bars and the line.
            place, offset = (axis + 1, share[axis] * 100), (12, 12)
            arrow = {"arrowstyle": "-", "color": "grey", "linewidth": 0.6}
            name = names[axis].replace("_", " ")
            axes.annotate(name, place, offset, textcoords="offset points", va="center", arrowprops=arrow)
    for level in (50, 90):
        needed = int(np.searchsorted(total, level)) + 1
        axes.axhline(level, color="grey", linewidth=0.6, linestyle=":")
        word = "axis" if needed == 1 else "axes"
        axes.text(shown + 0.3, level - 1, f"{level} %: {needed} {word}", ha="right", va="top", color="grey")
    more = f", the first {shown} of {len(share)}" if shown < len(share) else ""
    axes.set(xlabel=f"principal axis of the latent vectors{more}", ylabel="variance explained, %")
    axes.set(ylim=(0, 104), xlim=(0.4, shown + 0.6))
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.15))
    save_figure(figure, path)


def save_map_picture(
    coordinates: np.ndarray,
    files: Sequence[str],
    path: Path,
    *,
    labels: Sequence[str],
    values: np.ndarray,
    value_name: str,
    unit: str,
) -> None:
    """Draw the sounds along the first two axes, coloured by a feature, with the names of groups and of some sounds.

    Parameters
    ----------
    coordinates : ndarray of shape [n, 2]
        Coordinates along the axes, in standard deviations.
    files : sequence of str
        The file of each sound. The files of a folder are a group; if there is only one folder, the files whose names
        begin alike are a group.
    path : Path
        The picture.
    labels : sequence of str
        Labels of the two axes.
    values : ndarray of shape [n]
        The feature of each sound.
    value_name, unit : str
        Name and unit of the feature. Values in "log2 Hz" are shown in Hz.
    """
    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots()
    is_log_hertz = unit == "log2 Hz"
    shown = 2.0**values if is_log_hertz else values
    low, high = np.quantile(shown, [0.02, 0.98])
    if low == high:
        high = low + 1.0
    norm = LogNorm(low, high) if is_log_hertz else Normalize(low, high)
    size = float(np.clip(6_000 / len(values), 4, 36))
    points = axes.scatter(
        coordinates[:, 0], coordinates[:, 1], c=shown, norm=norm, cmap="viridis", s=size, alpha=0.85, linewidths=0
    )
    bar = figure.colorbar(points, ax=axes, pad=0.01, extend="both")
    bar.set_label(f"{value_name.replace('_', ' ')}, {'Hz' if is_log_hertz else unit}")
    if is_log_hertz:
        ticks = hertz_ticks(low, high, _TICKS_HZ)
        mark_hertz(bar.ax.yaxis, ticks, ticks)
    axes.set(xlabel=f"{labels[0]}, standard deviations", ylabel=f"{labels[1]}, standard deviations")
    axes.axhline(0, color="grey", linewidth=0.5, zorder=0)
    axes.axvline(0, color="grey", linewidth=0.5, zorder=0)
    _write_labels(axes, _group_positions(files, coordinates), _file_positions(files, coordinates))
    save_figure(figure, path)


def _group_positions(files: Sequence[str], coordinates: np.ndarray) -> dict[str, np.ndarray]:
    """Return the median position of each group; nothing if there are too many groups or only one."""
    paths = [PurePath(file) for file in files]
    names = [path.parent.name for path in paths]
    if len({path.parent for path in paths}) == 1:
        names = [re.split(r"[\d_. -]", path.name, maxsplit=1)[0] for path in paths]
    members = defaultdict(list)
    for row, name in enumerate(names):
        members[name].append(row)
    groups = {name: rows for name, rows in members.items() if name and len(rows) >= _LEAST_GROUP}
    if not 2 <= len(groups) <= _LABELLED_GROUPS:
        return {}
    return {name: np.median(coordinates[rows], axis=0) for name, rows in groups.items()}


def _file_positions(files: Sequence[str], coordinates: np.ndarray) -> dict[str, np.ndarray]:
    """Return the position of the first sound of each file; those far from the centre come first."""
    first: dict[str, np.ndarray] = {}
    for file, place in zip(files, coordinates, strict=True):
        first.setdefault(file, place)
    ranked = sorted(first.items(), key=lambda entry: -float(np.hypot(*(entry[1] - np.median(coordinates, axis=0)))))
    return {PurePath(file).stem: place for file, place in ranked}


def _write_labels(axes: Axes, groups: dict[str, np.ndarray], sounds: dict[str, np.ndarray]) -> None:
    """Write the names of groups, then those of sounds beside their dots, as long as none covers another."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()  # settles the layout, on which places in the picture depend
    halo = [withStroke(linewidth=3, foreground="white", alpha=0.8)]
    taken: list[Bbox] = []
    styles = [
        (groups, 9, "#333333", _GROUP_OFFSETS, len(groups)),
        (sounds, 6, "#666666", _SOUND_OFFSETS, _NAMED_SOUNDS),
    ]
    for names, size, color, offsets, most in styles:
        written = 0
        for name, place in itertools.islice(names.items(), _TRIES * most):
            # matplotlib reads text between dollar signs as a formula.
            text = printable(name)[:_LABEL_CHARACTERS].replace("$", r"\$")
            label = axes.annotate(
                text,
                (place[0], place[1]),
                (0, 0),
                textcoords="offset points",
                fontsize=size,
                color=color,
                path_effects=halo,
                fontfamily=name_fonts(),
                ha="center",
                va="center",
            )
            box = label.get_window_extent()
            for x, y in offsets:
                # Beside the dot: half the text away from it.
                shift = (x * (box.width / 2 + 5), y * (box.height / 2 + 3))
                moved = box.translated(*shift)
                is_inside = axes.bbox.contains(*moved.min) and axes.bbox.contains(*moved.max)
                if is_inside and not moved.count_overlaps(taken):
                    break
            else:
                label.remove()
                continue
            across, up = (72 / figure.dpi * value for value in shift)
            label.xyann = across, up
            taken.append(moved)
            written += 1
            if written == most:
                break


def save_sweep_picture(
    magnitude: np.ndarray,
    values: Sequence[float],
    labels: Sequence[str],
    path: Path,
    *,
    centres: np.ndarray,
    duration_s: float,
) -> None:
    """Draw the sounds that the model decodes along axes: a row for each axis, a column for each position.

    Parameters
    ----------
    magnitude : ndarray of shape [axes, positions, M, T]
        Decoded channel 0 before normalisation, ``log1p`` of the mel power.
    values : sequence of float
        The positions, in standard deviations from the mean.
    labels : sequence of str
        Labels of the axes.
    path : Path
        The picture.
    centres : ndarray of shape [M]
        Centres of the mel bands, Hz.
    duration_s : float
        Length of a row, seconds.
    """
    rows, columns = magnitude.shape[:2]
    figure, grid = draw_grid(
        [FeatureRow(label.replace(" (", "\n("), 0, panels) for label, panels in zip(labels, magnitude, strict=True)],
        size=(2.1 * columns + 1.2, 1.6 * rows + 0.6),
        loudest=float(np.quantile(magnitude, 0.999)) or 1.0,
        centres=centres,
        duration_s=duration_s,
    )
    for axes, value in zip(grid[0], values, strict=True):
        axes.set_title(f"{value:+g} sd" if value else "mean", fontsize=10)
    save_figure(figure, path)
