"""Public import path of the features; the code is in :mod:`distill.features`."""

from __future__ import annotations

from distill._lazy import lazy_names

_PUBLIC = {
    "AudioSpectrogram": "distill.features.spectrogram",
    "ComplexSpectrogram": "distill.features.spectrogram",
    "ComplexSpectrogramConfig": "distill.config",
    "SpectrogramConfig": "distill.config",
}

__all__ = list(_PUBLIC)

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
