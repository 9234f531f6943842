"""Run folders: their files, the trained model as an instrument, and the axes of its latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill._lazy import lazy_names

_PUBLIC = {
    "Instrument": "distill.runs.instrument",
    "Axes": "distill.runs.axes",
    "TrainedRun": "distill.runs.trained",
    "read_axes": "distill.runs.axes",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from distill.runs.axes import Axes as Axes
    from distill.runs.axes import read_axes as read_axes
    from distill.runs.instrument import Instrument as Instrument
    from distill.runs.trained import TrainedRun as TrainedRun
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
