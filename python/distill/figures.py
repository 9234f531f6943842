"""Pictures as files."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from distill.files import write_atomically

DPI = 100


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, dpi=DPI, format="png")
    write_atomically(path, content.getvalue())
