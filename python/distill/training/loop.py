"""Public import path; the code is in :mod:`distill.pipeline` and :mod:`distill.training.epochs`."""

from __future__ import annotations

from distill._lazy import lazy_names

_PUBLIC = {
    "train": "distill.pipeline",
    "train_epoch": "distill.training.epochs",
    "validate_epoch": "distill.training.epochs",
}

__all__ = list(_PUBLIC)

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
