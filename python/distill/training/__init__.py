"""From a cache to a trained model."""

from distill.config import TrainingConfig
from distill.training.dataset import AudioTrainingDataset, CachedSpectrogramDataset
from distill.training.epochs import train_epoch, validate_epoch
from distill.training.loading import create_complex_data_loaders, create_data_loaders
from distill.training.loop import train
from distill.training.session import TrainEvent, TrainResult

__all__ = [
    "AudioTrainingDataset",
    "CachedSpectrogramDataset",
    "TrainEvent",
    "TrainResult",
    "TrainingConfig",
    "create_complex_data_loaders",
    "create_data_loaders",
    "train",
    "train_epoch",
    "validate_epoch",
]
