"""Public import path of the features; the code is in :mod:`distill.features`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill._lazy import lazy_names

_PUBLIC = {
    "AudioSpectrogram": "distill.features.spectrogram",
    "ComplexSpectrogram": "distill.features.spectrogram",
    "ComplexSpectrogramConfig": "distill.config",
    "SpectrogramConfig": "distill.config",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from distill.config import ComplexSpectrogramConfig as ComplexSpectrogramConfig
    from distill.config import SpectrogramConfig as SpectrogramConfig
    from distill.features.spectrogram import AudioSpectrogram as AudioSpectrogram
    from distill.features.spectrogram import ComplexSpectrogram as ComplexSpectrogram
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
