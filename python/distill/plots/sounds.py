"""Pictures of sounds: what went into a model and what came out, and previews."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imsave

from distill.plots.features import FeatureRow, draw_grid, input_and_output_rows, name_columns
from distill.plots.figure import missing_glyphs_ignored, name_fonts, save_figure, title_of
from distill.storage import write_atomically

_COLUMNS = 1500
# The upper end of the colour scale for silence.
_LEAST_MAGNITUDE = 1e-3


class TimeAverage:
    """Average over time that reduces the features of a sound of any length to the columns that a picture can show.

    Parameters
    ----------
    n_frames : int
        Frames of the sound.
    """

    def __init__(self, n_frames: int) -> None:
        self._n_frames = n_frames
        self._frames_per_column = math.ceil(n_frames / _COLUMNS)
        self._incomplete: np.ndarray | None = None
        self._columns: list[np.ndarray] = []

    def add(self, features: np.ndarray) -> None:
        """Add the next frames, [C, M, n]; frames after the last one of the sound are ignored."""
        width = self._frames_per_column
        frames = features if self._incomplete is None else np.concatenate([self._incomplete, features], axis=-1)
        frames = frames[..., : self._n_frames - width * sum(part.shape[-1] for part in self._columns)]
        complete = frames.shape[-1] // width * width
        self._columns.append(frames[..., :complete].reshape(*frames.shape[:2], -1, width).mean(axis=-1))
        self._incomplete = frames[..., complete:]

    def columns(self) -> np.ndarray:
        """Return the average of all frames that were added, [C, M, columns].

        Raises
        ------
        ValueError
            If none were added.
        """
        if self._incomplete is None:
            raise ValueError("no features were added")
        last = [self._incomplete.mean(axis=-1, keepdims=True)] if self._incomplete.shape[-1] else []
        return np.concatenate([*self._columns, *last], axis=-1)


def save_sound_picture(
    inputs: np.ndarray, outputs: np.ndarray, path: Path, *, centres: np.ndarray, duration_s: float, title: str
) -> None:
    """Draw the features of a sound above those of its reconstruction.

    Parameters
    ----------
    inputs, outputs : ndarray of shape [C, M, n]
        Features before normalisation, of the whole sound.
    path : Path
        The picture.
    centres : ndarray of shape [M]
        Centres of the mel bands, Hz.
    duration_s : float
        Length of the sound, seconds.
    title : str
        Name of the sound.
    """
    rows = input_and_output_rows(inputs[None], outputs[None])
    figure, grid = draw_grid(
        rows,
        size=(11, 1.9 * len(rows) + 0.6),
        loudest=max(float(inputs[0].max()), _LEAST_MAGNITUDE),
        centres=centres,
        duration_s=duration_s,
    )
    grid[0][0].set_title(title_of(title), fontsize=10, fontfamily=name_fonts())
    save_figure(figure, path)


def save_preview_picture(
    rows: Sequence[tuple[str, np.ndarray]],
    path: Path,
    *,
    centres: np.ndarray,
    duration_s: float,
    titles: Sequence[str],
) -> np.ndarray:
    """Draw the magnitude of chunks, a row for each kind, all on one colour scale.

    Parameters
    ----------
    rows : sequence of (str, ndarray of shape [N, C, M, T])
        The label of a row, and the features of its chunks before normalisation.
    path : Path
        The picture.
    centres : ndarray of shape [M]
        Centres of the mel bands, Hz.
    duration_s : float
        Length of a chunk, seconds.
    titles : sequence of str
        What the chunks of the first columns are from.

    Returns
    -------
    ndarray of shape [height, width, 3], uint8
        The pixels of the picture.
    """
    columns = max(len(features) for _, features in rows)
    figure, grid = draw_grid(
        [FeatureRow(label, 0, features[:, 0]) for label, features in rows],
        size=(2.7 * columns + 0.9, 1.9 * len(rows) + 0.6),
        loudest=max(float(rows[0][1][:, 0].max()), _LEAST_MAGNITUDE),
        centres=centres,
        duration_s=duration_s,
    )
    name_columns(grid, titles)
    canvas = FigureCanvasAgg(figure)
    with missing_glyphs_ignored():
        canvas.draw()
    picture = np.array(canvas.buffer_rgba())[..., :3]
    content = io.BytesIO()
    imsave(content, picture, format="png")
    write_atomically(path, content.getvalue())
    return picture
