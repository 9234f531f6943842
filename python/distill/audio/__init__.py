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
    "AudioInfo": "distill.audio.load",
    "audio_info": "distill.audio.load",
    "denormalize": "distill.features.normalization",
    "load_audio": "distill.audio.load",
    "load_cache_manifest": "distill.cache.slots",
    "normalize": "distill.features.normalization",
    "preprocess_complex_spectrograms": "distill.preprocess.spectrograms",
}

__all__ = list(_PUBLIC)

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
