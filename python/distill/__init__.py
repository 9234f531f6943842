"""distill turns a folder of audio into a trained generative model."""

from __future__ import annotations

from distill._lazy import lazy_names

__version__ = "0.1.0"

# Without `train`: distill.train is the module of `python -m distill.train`; the function is distill.training.train.
_PUBLIC = {
    "ComplexSpectrogram": "distill.audio",
    "ComplexSpectrogramConfig": "distill.config",
    "SpectrogramConfig": "distill.config",
    "AugmentationConfig": "distill.config",
    "TrainingConfig": "distill.config",
    "PreprocessingCancelled": "distill.errors",
    "load_cache_manifest": "distill.audio",
    "preprocess_complex_spectrograms": "distill.audio",
    "ConvVAE": "distill.models",
    "load_model": "distill.models",
}

__all__ = ["__version__"]
__all__ += list(_PUBLIC)

__getattr__, _ = lazy_names(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted(__all__)
