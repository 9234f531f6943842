"""A small run to play, made once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from browsing import started
from distill.config import TrainingConfig
from distill.runs.folder import RunFolder
from distill.training import train
from instruments import PITCHES, config_of
from playing import Server
from sounds import CHUNK, RATE, noise, sine, write


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and analysed run on tones and noises."""
    root = tmp_path_factory.mktemp("trained")
    for number, pitch in enumerate(PITCHES):
        for kind, level in enumerate((0.9, 0.5, 0.2)):
            tone = sine(pitch, 2.0, level=level)[: CHUNK + 500 * kind]
            decay = np.exp(-np.arange(len(tone)) / RATE * 4 * kind)
            sound = tone * decay + noise(10 * number + kind, len(tone), level=0.02 + 0.1 * kind)
            write(root / "sounds" / f"kind-{kind}" / f"{pitch:.0f}.wav", sound, subtype="PCM_24")
    config = config_of(2, latent_dim=16, epochs=2, batch_size=8, val_fraction=0.25, preview_epochs=1, normalize="none")
    train(root / "sounds", root / "run", config)
    return root / "run"


@pytest.fixture(scope="module")
def runs(trained: Path, tmp_path_factory) -> Path:
    """A folder of two runs; the second one is not analysed."""
    folder = tmp_path_factory.mktemp("play") / "runs"
    shutil.copytree(trained, folder / "first")
    config: TrainingConfig = RunFolder(trained).config()
    dataset = RunFolder(trained).dataset()
    train(dataset.root, folder / "second", replace(config, seed=1, epochs=1, preview_epochs=0), analyze=False)
    return folder


@pytest.fixture(scope="module")
def server(runs: Path):
    with Server(runs) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    """Of one module, because the event loop of Playwright runs in this thread until the browser is closed."""
    with started() as browser:
        yield browser
