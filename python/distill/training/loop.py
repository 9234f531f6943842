"""Public import path; the code is in :mod:`distill.pipeline` and :mod:`distill.training.epochs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill._lazy import lazy_names

_PUBLIC = {
    "train": "distill.pipeline",
    "train_epoch": "distill.training.epochs",
    "validate_epoch": "distill.training.epochs",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from distill.pipeline import train as train
    from distill.training.epochs import train_epoch as train_epoch
    from distill.training.epochs import validate_epoch as validate_epoch
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
