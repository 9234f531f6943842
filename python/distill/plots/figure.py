"""What every picture needs: tick marks in Hz, and writing the file."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib import font_manager
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from distill.storage import write_atomically
from distill.text import printable

DPI = 100
# Fonts with the scripts that matplotlib's own one lacks, as systems have them.
_WIDE_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
    *("Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Arial Unicode MS", "Unifont"),
)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, atomically."""
    content = io.BytesIO()
    with missing_glyphs_ignored():
        figure.savefig(content, dpi=DPI, format="png")
    write_atomically(path, content.getvalue())


@contextmanager
def missing_glyphs_ignored() -> Iterator[None]:
    """Draw a character of a file name that no font has as a box, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def name_fonts() -> list[str]:
    """Return the font families for text with file names, which may be in any script."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _WIDE_FONTS if name in installed)]


def title_of(name: str, most: int | None = None) -> str:
    """Return the name of a sound as matplotlib can draw it; its middle is left out beyond `most` characters."""
    # Lone surrogates cannot be drawn.
    shown = printable(name).encode("utf-8", "backslashreplace").decode()
    if most is not None and len(shown) > most:
        shown = f"{shown[: most // 2]}…{shown[len(shown) - most // 2 + 1 :]}"
    # Text between dollar signs would be read as a formula.
    return shown.replace("$", r"\$")


def hertz_ticks(low: float, high: float, among: Sequence[int]) -> list[int]:
    """Return the frequencies of `among` from `low` to `high`, Hz; if there are none, the geometric mean of the two."""
    return [value for value in among if low <= value <= high] or [max(1, round(math.sqrt(low * high)))]


def mark_hertz(axis: Axis, positions: Sequence[float], hertz: Sequence[int]) -> None:
    """Label the `positions` on an axis with frequencies, and remove all other ticks."""
    axis.set_ticks(positions, labels=[f"{value // 1000}k" if value >= 1_000 else str(value) for value in hertz])
    axis.set_ticks([], minor=True)
