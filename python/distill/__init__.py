"""distill turns a folder of audio into a trained generative model.

Examples
--------
>>> from distill.training import train
>>> result = train("recordings", "runs/first")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from distill.audio import ComplexSpectrogram as ComplexSpectrogram
    from distill.audio import load_cache_manifest as load_cache_manifest
    from distill.audio import preprocess_complex_spectrograms as preprocess_complex_spectrograms
    from distill.config import AugmentationConfig as AugmentationConfig
    from distill.config import ComplexSpectrogramConfig as ComplexSpectrogramConfig
    from distill.config import SpectrogramConfig as SpectrogramConfig
    from distill.config import TrainingConfig as TrainingConfig
    from distill.errors import PreprocessingCancelled as PreprocessingCancelled
    from distill.models import ConvVAE as ConvVAE
    from distill.models import load_model as load_model
else:
    __getattr__, _ = lazy_names(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted(__all__)
