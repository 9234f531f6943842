"""Pictures of a run: its losses, and what it makes of chunks that it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from distill.figures import save_figure

_MAGNITUDE_MAP, _FREQUENCY_MAP = "magma", "RdBu_r"


def save_loss_picture(metrics: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw losses and R² over epochs, from the lines of metrics.jsonl."""
    epochs = [line["epoch"] for line in metrics]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, r2 = figure.subplots(1, 2)
    for name, label in (("train_loss", "training"), ("val_loss", "validation")):
        loss.plot(epochs, [line[name] for line in metrics], label=label, marker="." if len(epochs) < 3 else "")
    loss.set(xlabel="epoch", ylabel="loss", yscale="log")
    for name, label in (("val_magnitude_r2", "magnitude"), ("val_if_r2", "instantaneous frequency")):
        values = [np.nan if line[name] is None else line[name] for line in metrics]
        if np.isfinite(values).any():
            r2.plot(epochs, values, label=label, marker="." if len(epochs) < 3 else "")
    r2.set(xlabel="epoch", ylabel="validation R²")
    for axes in (loss, r2):
        axes.legend()
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def save_quality_picture(metrics: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the figures of `Quality` over epochs, from the lines of metrics.jsonl that have some; none, no picture."""
    measured = [line for line in metrics if "prior_frechet" in line]
    if not measured:
        return
    epochs = [line["epoch"] for line in measured]
    figure = Figure(figsize=(13.5, 3.6), layout="constrained")
    panels = (
        ("held-out chunks: from their features alone", ("spectral_convergence", "multi_resolution")),
        ("samples: from the data", ("prior_mean", "prior_spread", "prior_frechet", "held_out_frechet")),
        ("samples: from the nearest training row", ("prior_nearest",)),
    )
    for axes, (title, names) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for name in names:
            values = [np.nan if line[name] is None else line[name] for line in measured]
            axes.plot(epochs, values, label=name, marker=".")
        axes.set(xlabel="epoch", title=title)
        axes.set_ylim(bottom=0)
        axes.legend()
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def save_reconstruction_picture(
    inputs: np.ndarray, outputs: np.ndarray, path: Path, *, sample_rate: int, hop_length: int
) -> None:
    """Draw features beside their reconstruction.

    Parameters
    ----------
    inputs, outputs : ndarray of shape [N, C, n_mels, T]
        Features before normalisation; a column each.
    path : Path
        The picture.
    sample_rate : int
        Hz.
    hop_length : int
        Samples.
    """
    columns, channels = inputs.shape[:2]
    figure = Figure(figsize=(3.2 * columns + 1, 1.9 * 2 * channels))
    # Fixed margins: letting matplotlib find them takes longer than a short epoch.
    margins = {"left": 0.8, "right": 3.2 * columns + 0.7, "bottom": 0.5, "top": 1.9 * 2 * channels - 0.15}
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        margins["left"] / width,
        margins["bottom"] / height,
        margins["right"] / width,
        margins["top"] / height,
        0.06,
        0.1,
    )
    grid = figure.subplots(2 * channels, columns, squeeze=False, sharex=True, sharey=True)
    top = float(inputs[:, 0].max())
    for channel, name in list(enumerate(("magnitude", "IF")))[:channels]:
        scale = {"cmap": _FREQUENCY_MAP, "vmin": -1, "vmax": 1} if channel else {"vmin": 0, "vmax": top}
        scale.setdefault("cmap", _MAGNITUDE_MAP)
        for row, (source, features) in enumerate((("input", inputs), ("output", outputs))):
            for column in range(columns):
                axes = grid[2 * channel + row][column]
                extent = (0, features.shape[-1] * hop_length / sample_rate, 0, features.shape[-2])
                image = axes.imshow(
                    features[column, channel],
                    origin="lower",
                    aspect="auto",
                    extent=extent,
                    interpolation="none",
                    **scale,
                )
            grid[2 * channel + row][0].set_ylabel(f"{name}, {source}\nmel band")
            figure.colorbar(image, ax=grid[2 * channel + row].tolist(), pad=0.01, fraction=0.02)
    for axes in grid[-1]:
        axes.set_xlabel("time, s")
        # None at the right edge, where the next column's first would meet it.
        middle_s = round(extent[1] / 2, 1) or extent[1] / 2
        axes.set_xticks([0.0, middle_s])
    save_figure(figure, path)
