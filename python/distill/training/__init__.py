"""From a cache to a trained model."""

from __future__ import annotations

from distill._lazy import lazy_names

# On demand: what is made of a run (its sounds, its analysis) needs the run folder and not the loop, which needs them.
_PUBLIC = {
    "TrainingConfig": "distill.config",
    "AudioTrainingDataset": "distill.training.waveforms",
    "CachedSpectrogramDataset": "distill.training.cached",
    "train_epoch": "distill.training.epochs",
    "validate_epoch": "distill.training.epochs",
    "create_complex_data_loaders": "distill.training.loaders",
    "create_data_loaders": "distill.training.loaders",
    "train": "distill.pipeline",
    "TrainEvent": "distill.training.trainer",
    "TrainResult": "distill.training.trainer",
}

__all__ = list(_PUBLIC)

__getattr__ = lazy_names(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted(__all__)
