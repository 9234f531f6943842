"""Public import path; the code is in :mod:`distill.training.cached` and :mod:`distill.training.loaders`."""

from __future__ import annotations

from distill._lazy import lazy_names

_PUBLIC = {
    "AudioTrainingDataset": "distill.training.waveforms",
    "CachedSpectrogramDataset": "distill.training.cached",
    "create_complex_data_loaders": "distill.training.loaders",
    "create_data_loaders": "distill.training.loaders",
}

__all__ = list(_PUBLIC)

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
