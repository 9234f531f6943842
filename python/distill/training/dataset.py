"""Public import path; the code is in :mod:`distill.training.cached` and :mod:`distill.training.loaders`."""

from __future__ import annotations

from distill.training.cached import CachedSpectrogramDataset
from distill.training.loaders import create_complex_data_loaders

__all__ = ["CachedSpectrogramDataset", "create_complex_data_loaders"]
