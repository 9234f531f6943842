"""A small trained and analysed run, which tests may read, and copies of it, which they may change."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from browsing import started
from distill.runs.folder import RunFolder
from distill.training import train
from playing import Server
from sounds import CHUNK, RATE, noise, sine, training, write

FOLDERS = ("drums", "noises", "tones")


def write_sounds(folder: Path) -> None:
    """Write 12 sounds to 3 folders, of one or two chunks each."""
    for number in range(4):
        decay = np.exp(-np.arange(CHUNK) / (400 + 300 * number))
        write(folder / "drums" / f"drum-{number}.wav", decay * noise(number, level=0.8), subtype="PCM_24")
        smooth = np.convolve(noise(9 + number, 2 * CHUNK), np.ones(1 + 4 * number) / (1 + 4 * number), "same")
        write(folder / "noises" / f"noise-{number}.wav", smooth, subtype="PCM_24")
        partials = sum(sine(220 * 2 ** (number / 2) * k, 2 * CHUNK / RATE, level=0.4 / k) for k in (1, 2, 3))
        write(folder / "tones" / f"tone-{number}.wav", partials, subtype="PCM_24")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was trained for 2 epochs, with previews of each, and analysed. It is not to be changed.

    Its dataset is the folder "dataset" beside it, 12 sounds at 16 kHz in 3 folders; a chunk is half a second.
    """
    folder = tmp_path_factory.mktemp("play")
    write_sounds(folder / "dataset")
    config = training(
        epochs=2, latent_dim=8, batch_size=4, val_fraction=0.25, augmentation_expansion=1, preview_epochs=1
    )
    return train(folder / "dataset", folder / "runs" / "small", config, cache_dir=folder / "cache").run_dir


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A copy of `trained`, with the same dataset, which a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "runs" / "copied"))


@pytest.fixture(scope="module")
def runs(trained: Path, tmp_path_factory) -> Path:
    """A folder of two runs; the second one is not analysed."""
    folder = tmp_path_factory.mktemp("play") / "runs"
    shutil.copytree(trained, folder / "first")
    config = RunFolder(trained).config()
    config, dataset = replace(config, seed=1, epochs=1, preview_epochs=0), RunFolder(trained).dataset()
    train(dataset.path, folder / "second", config, cache_dir=dataset.cache_dir, analyze=False)
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
