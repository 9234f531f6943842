"""Public import path; the code is in :mod:`distill.training.cached` and :mod:`distill.training.loaders`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill._lazy import lazy_names

_PUBLIC = {
    "AudioTrainingDataset": "distill.training.waveforms",
    "CachedSpectrogramDataset": "distill.training.cached",
    "create_complex_data_loaders": "distill.training.loaders",
    "create_data_loaders": "distill.training.loaders",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from distill.training.cached import CachedSpectrogramDataset as CachedSpectrogramDataset
    from distill.training.loaders import create_complex_data_loaders as create_complex_data_loaders
    from distill.training.loaders import create_data_loaders as create_data_loaders
    from distill.training.waveforms import AudioTrainingDataset as AudioTrainingDataset
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
