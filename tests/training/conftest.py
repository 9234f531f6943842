"""A dataset on which training takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.config import TrainingConfig
from distill.index import Dataset
from distill.preprocess.pipeline import preprocess
from instruments import PITCHES, config_of
from sounds import CHUNK, RATE, sine, write


@pytest.fixture(scope="session")
def brief_config() -> TrainingConfig:
    return config_of(
        2, latent_dim=4, epochs=3, batch_size=8, val_fraction=0.25, preview_epochs=0, dropout=0.1, weight_decay=0.1
    )


@pytest.fixture(scope="session")
def brief_sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files of each of eight pitches, one chunk long."""
    folder = tmp_path_factory.mktemp("brief")
    for pitch in PITCHES:
        for phase in range(4):
            tone = sine(pitch, 2 * CHUNK / RATE, level=0.5)[37 * phase :][:CHUNK]
            write(folder / f"{pitch:.0f}-{phase}.wav", tone, subtype="PCM_24")
    return folder


@pytest.fixture(scope="session")
def brief_cache(brief_sounds: Path, brief_config: TrainingConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    dataset = Dataset(brief_sounds, cache_dir=tmp_path_factory.mktemp("cache"))
    return preprocess(dataset, brief_config).cache_dir
