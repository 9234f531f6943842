"""distill turns a folder of audio into a trained generative model.

Examples
--------
>>> from distill.training import train
>>> result = train("recordings", "runs/first")  # doctest: +SKIP
"""

from __future__ import annotations

from distill._lazy import lazy_names

# Without `train`: distill.train is the module of `python -m distill.train`; the function is distill.training.train.
_PUBLIC = {
    "__version__": "distill._native",
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

__all__ = list(_PUBLIC)

__getattr__, _ = lazy_names(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted(__all__)
