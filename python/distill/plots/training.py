"""Pictures of a training run: losses, quality, and reconstructions of validation chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from distill.plots.features import Margins, draw_grid, input_and_output_rows, name_columns
from distill.plots.figure import save_figure
from distill.text import counted


class _Panel(NamedTuple):
    title: str
    ylabel: str
    lines: Mapping[str, str]
    """Field of metrics.jsonl -> label in the legend."""


_RECONSTRUCTION_ERROR = "reconstruction error of validation chunks"
_QUALITY = (
    _Panel(
        _RECONSTRUCTION_ERROR,
        "relative; 0: no error",
        {"spectral_convergence": "spectral convergence", "multi_resolution": "multi-resolution STFT distance"},
    ),
    _Panel(_RECONSTRUCTION_ERROR, "dB; 0: no error", {"log_spectral_db": "log-spectral distance"}),
    _Panel(
        "distance of samples from the data",
        "0: same statistics",
        {
            "prior_mean": "means of the bands, standard deviations",
            "prior_spread": "spread of the bands, relative",
            "prior_frechet": "Fréchet distance, relative",
            "held_out_frechet": "Fréchet distance of validation chunks",
        },
    ),
    _Panel(
        "distance of samples from the nearest training row",
        "1: like validation chunks; near 0: copies",
        {"prior_nearest": "samples relative to validation chunks"},
    ),
)


def save_loss_picture(metrics: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw losses and R² over epochs, from the lines of metrics.jsonl."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, r2 = figure.subplots(1, 2)
    _plot(loss, metrics, {"train_loss": "training", "val_loss": "validation"})
    loss.set(ylabel="loss", yscale="log")
    low, high = loss.get_ylim()
    if high < 10 * low:
        loss.yaxis.set_major_locator(MaxNLocator(6))
        loss.yaxis.set_minor_locator(NullLocator())
        loss.yaxis.set_major_formatter("{x:g}")
    _plot(r2, metrics, {"val_magnitude_r2": "magnitude", "val_if_r2": "instantaneous frequency"})
    chunks = metrics[-1].get("val_chunks") if metrics else None
    r2.set(ylabel=f"validation R² of {counted(chunks, 'chunk')}" if chunks else "validation R²")
    for axes in (loss, r2):
        axes.legend()
    save_figure(figure, path)


def save_quality_picture(metrics: Sequence[dict[str, Any]], path: Path, *, title: str = "") -> None:
    """Draw the results of `Quality` over epochs, from the lines of metrics.jsonl that have them, if any.

    Parameters
    ----------
    metrics : sequence of dict
        The lines.
    path : Path
        The picture.
    title : str
        A line above it. Default: none.
    """
    measured = [line for line in metrics if "prior_frechet" in line]
    if not measured:
        return
    figure = Figure(figsize=(11, 9), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=10)
    for axes, panel in zip(figure.subplots(2, 2).flat, _QUALITY, strict=True):
        _plot(axes, measured, panel.lines)
        axes.set(title=panel.title, ylabel=panel.ylabel)
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
        if axes.lines:
            # Below the panel, where it hides no line.
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), frameon=False)
        else:
            axes.text(0.5, 0.5, "not defined for these sounds", ha="center", transform=axes.transAxes, color="grey")
    save_figure(figure, path)


def _plot(axes: Axes, metrics: Sequence[dict[str, Any]], lines: Mapping[str, str]) -> None:
    """Draw fields of metrics over epochs; fields without any value are left out."""
    epochs = [line["epoch"] for line in metrics]
    for name, label in lines.items():
        values = [np.nan if line[name] is None else line[name] for line in metrics]
        if np.isfinite(values).any():
            axes.plot(epochs, values, label=label, marker="." if len(epochs) < 20 else "")
    margin = max(1.0, 0.03 * (epochs[-1] - epochs[0]))
    axes.set(xlabel="epoch", xlim=(epochs[0] - margin, epochs[-1] + margin))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.grid(alpha=0.3)


def save_reconstruction_picture(
    inputs: np.ndarray,
    outputs: np.ndarray,
    path: Path,
    *,
    centres: np.ndarray,
    duration_s: float,
    titles: Sequence[str],
) -> None:
    """Draw the features of chunks above those of their reconstructions.

    Parameters
    ----------
    inputs, outputs : ndarray of shape [N, C, M, T]
        Features before normalisation; a column for each chunk.
    path : Path
        The picture.
    centres : ndarray of shape [M]
        Centres of the mel bands, Hz.
    duration_s : float
        Length of a chunk, seconds.
    titles : sequence of str
        What each chunk is from.
    """
    columns, channels = inputs.shape[:2]
    margins = Margins(left=0.9, right=1.1, bottom=0.5, top=0.3)
    figure, grid = draw_grid(
        input_and_output_rows(inputs, outputs),
        size=(margins.left + 3.2 * columns + margins.right, 1.9 * 2 * channels + 0.15),
        loudest=float(inputs[:, 0].max()),
        centres=centres,
        duration_s=duration_s,
        margins=margins,
    )
    name_columns(grid, titles)
    for axes in grid[-1]:
        # No tick at the right edge, where it would touch the first one of the next column.
        axes.set_xticks([0.0, round(duration_s / 2, 1) or duration_s / 2])
    save_figure(figure, path)
