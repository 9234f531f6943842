"""Pictures of sounds: what went into a model beside what came out of it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from distill.plots.drawing import CHANNELS, DPI, SCALES, draw_features, mark_bands, save_figure
from distill.storage import write_atomically

_COLUMNS = 1500


class Film:
    """Features of a sound of any length, averaged over time as they come, to as many columns as a picture shows.

    Parameters
    ----------
    n_frames : int
        Frames of the sound.
    """

    def __init__(self, n_frames: int) -> None:
        self._frames = n_frames
        self._width = math.ceil(n_frames / _COLUMNS)
        self._held: np.ndarray | None = None
        self._columns: list[np.ndarray] = []

    def add(self, features: np.ndarray) -> None:
        """Take the next frames, [C, M, n]; those behind the last one of the sound are left out."""
        held = features if self._held is None else np.concatenate([self._held, features], axis=-1)
        left = self._frames - self._width * sum(part.shape[-1] for part in self._columns)
        held = held[..., :left]
        whole = held.shape[-1] // self._width * self._width
        self._columns.append(held[..., :whole].reshape(*held.shape[:2], -1, self._width).mean(axis=-1))
        self._held = held[..., whole:]

    def develop(self) -> np.ndarray:
        """All columns, [C, M, n]."""
        if self._held is None:
            raise ValueError("no features were added")
        last = [self._held.mean(axis=-1, keepdims=True)] if self._held.shape[-1] else []
        return np.concatenate([*self._columns, *last], axis=-1)


def save_sound_picture(
    inputs: np.ndarray, outputs: np.ndarray, path: Path, *, centres: np.ndarray, duration_s: float, title: str
) -> None:
    """Draw the features of one sound above those of its reconstruction.

    Parameters
    ----------
    inputs, outputs : ndarray [C, M, n]
        Features before normalisation, over the whole sound.
    path : Path
        The picture.
    centres : ndarray of shape [M]
        Centres of the mel bands, Hz.
    duration_s : float
        Of the sound, s.
    title : str
        What the sound is called.
    """
    channels = len(inputs)
    figure = Figure(figsize=(11, 1.9 * 2 * channels + 0.6), layout="constrained")
    grid = figure.subplots(2 * channels, 1, squeeze=False, sharex=True)[:, 0]
    top = max(float(inputs[0].max()), 1e-3)
    for channel in range(channels):
        pair = grid[2 * channel : 2 * channel + 2]
        for axes, source, features in zip(pair, ("input", "output"), (inputs, outputs), strict=True):
            image = draw_features(axes, features[channel], channel, top=top, duration_s=duration_s)
            axes.set_ylabel(f"{CHANNELS[channel]}, {source}\nHz")
            mark_bands(axes.yaxis, centres)
        figure.colorbar(image, ax=pair.tolist(), pad=0.01, fraction=0.02, label=SCALES[channel])
    grid[0].set_title(title.encode("utf-8", "backslashreplace").decode().replace("$", r"\$"), fontsize=10)
    grid[-1].set_xlabel("time, s")
    save_figure(figure, path)


def save_preview_picture(
    rows: Sequence[tuple[str, np.ndarray]], path: Path, *, centres: np.ndarray, duration_s: float
) -> np.ndarray:
    """Draw chunks, a row a kind, their magnitude at one scale.

    Parameters
    ----------
    rows : sequence of (str, ndarray [N, C, M, T])
        What a row is called, and the features of its chunks before normalisation.
    path : Path
        The picture.
    centres : ndarray of shape [M]
        Centres of the mel bands, Hz.
    duration_s : float
        Of a chunk, s.

    Returns
    -------
    ndarray [height, width, 3], uint8
        The picture.
    """
    columns = max(len(features) for _, features in rows)
    figure = Figure(figsize=(2.7 * columns + 0.9, 1.9 * len(rows) + 0.4), layout="constrained", dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), columns, squeeze=False, sharex=True, sharey=True)
    top = max(float(rows[0][1][:, 0].max()), 1e-3)
    for line, (name, features) in zip(grid, rows, strict=True):
        for axes, feature in zip(line, features, strict=False):
            image = draw_features(axes, feature[0], 0, top=top, duration_s=duration_s)
        for axes in line[len(features) :]:
            axes.set_axis_off()
        line[0].set_ylabel(f"{name}\nHz")
    for axes in grid[-1]:
        axes.set_xlabel("time, s")
    mark_bands(grid[0][0].yaxis, centres)
    figure.colorbar(image, ax=grid.ravel().tolist(), pad=0.01, fraction=0.02, label=SCALES[0])
    canvas.draw()
    picture = np.array(canvas.buffer_rgba())[..., :3]
    content = io.BytesIO()
    imsave(content, picture, format="png")
    write_atomically(path, content.getvalue())
    return picture
