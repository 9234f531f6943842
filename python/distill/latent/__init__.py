"""Analysis of a latent space: its principal axes, and how they relate to what is heard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill._lazy import lazy_names

_PUBLIC = {
    "Analysis": "distill.latent.analysis",
    "analyze": "distill.latent.analysis",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from distill.latent.analysis import Analysis as Analysis
    from distill.latent.analysis import analyze as analyze
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
