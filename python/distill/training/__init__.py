"""Training: from cached features, or audio, to a trained model."""

from __future__ import annotations

from distill._lazy import lazy_names

# Loaded on first use, because importing torch takes seconds and most modules need only a part of this package.
_PUBLIC = {
    "TrainingConfig": "distill.config",
    "AudioTrainingDataset": "distill.training.waveforms",
    "CachedSpectrogramDataset": "distill.training.cached",
    "train_epoch": "distill.training.epochs",
    "validate_epoch": "distill.training.epochs",
    "create_complex_data_loaders": "distill.training.loaders",
    "create_data_loaders": "distill.training.loaders",
    "train": "distill.pipeline",
    "TrainEvent": "distill.training.events",
    "TrainResult": "distill.training.events",
}

__all__ = list(_PUBLIC)

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
