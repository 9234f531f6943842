"""Training: from cached features, or audio, to a trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill._lazy import lazy_names

# Loaded on first use, because importing torch takes seconds and most modules need only a part of this package.
_PUBLIC = {
    "TrainingConfig": "distill.config",
    "AudioTrainingDataset": "distill.training.waveforms",
    "CachedSpectrogramDataset": "distill.training.cached",
    "ResumableLoader": "distill.training.resumable",
    "train_epoch": "distill.training.epochs",
    "validate_epoch": "distill.training.epochs",
    "create_complex_data_loaders": "distill.training.loaders",
    "create_data_loaders": "distill.training.loaders",
    "train": "distill.pipeline",
    "TrainEvent": "distill.training.events",
    "TrainResult": "distill.training.events",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from distill.config import TrainingConfig as TrainingConfig
    from distill.pipeline import train as train
    from distill.training.cached import CachedSpectrogramDataset as CachedSpectrogramDataset
    from distill.training.epochs import train_epoch as train_epoch
    from distill.training.epochs import validate_epoch as validate_epoch
    from distill.training.events import TrainEvent as TrainEvent
    from distill.training.events import TrainResult as TrainResult
    from distill.training.loaders import create_complex_data_loaders as create_complex_data_loaders
    from distill.training.loaders import create_data_loaders as create_data_loaders
    from distill.training.resumable import ResumableLoader as ResumableLoader
    from distill.training.waveforms import AudioTrainingDataset as AudioTrainingDataset
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
