"""Reading, cutting, augmenting and writing audio; also the public names of features and preprocessing."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from distill.audio.load import AudioInfo as AudioInfo
    from distill.audio.load import audio_info as audio_info
    from distill.audio.load import load_audio as load_audio
    from distill.cache.slots import load_cache_manifest as load_cache_manifest
    from distill.config import AugmentationConfig as AugmentationConfig
    from distill.config import ComplexSpectrogramConfig as ComplexSpectrogramConfig
    from distill.config import SpectrogramConfig as SpectrogramConfig
    from distill.errors import PreprocessingCancelled as PreprocessingCancelled
    from distill.features.normalization import denormalize as denormalize
    from distill.features.normalization import normalize as normalize
    from distill.features.spectrogram import AudioSpectrogram as AudioSpectrogram
    from distill.features.spectrogram import ComplexSpectrogram as ComplexSpectrogram
    from distill.preprocess.spectrograms import preprocess_complex_spectrograms as preprocess_complex_spectrograms
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
