"""Public import path; the code is in :mod:`distill.config`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill._lazy import lazy_names

_PUBLIC = {
    "ComplexSpectrogramConfig": "distill.config",
    "TrainingConfig": "distill.config",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from distill.config import ComplexSpectrogramConfig as ComplexSpectrogramConfig
    from distill.config import TrainingConfig as TrainingConfig
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
