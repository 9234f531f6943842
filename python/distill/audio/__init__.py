"""Reading, cutting, augmenting and writing audio; also the public names of features and preprocessing."""

from __future__ import annotations

from distill._lazy import lazy_names

_PUBLIC = {
    "AudioSpectrogram": "distill.features.spectrogram",
    "AugmentationConfig": "distill.config",
    "ComplexSpectrogram": "distill.features.spectrogram",
    "ComplexSpectrogramConfig": "distill.config",
    "PreprocessingCancelled": "distill.errors",
    "SpectrogramConfig": "distill.config",
    "load_audio": "distill.audio.load",
    "load_cache_manifest": "distill.cache.slots",
    "preprocess_complex_spectrograms": "distill.preprocess.spectrograms",
}

__all__ = list(_PUBLIC)

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
