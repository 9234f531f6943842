"""How drums, loops and field recordings come back, from their features alone and through a model that was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from distill.audio import AudioSpectrogram, ComplexSpectrogram
from distill.config import ComplexSpectrogramConfig, SpectrogramConfig, TrainingConfig
from distill.generate.reconstruction import reconstruct
from distill.pipeline import train
from distill.training import AudioTrainingDataset
from sound_measures import Heard, heard
from sound_sets import RATE, write_sets

# Largest spectral convergence of features alone and through the model, and least envelope correlation through it.
# Noise has no envelope to keep beyond that of its course: in field recordings, it is what its frames happen to have.
GATES = {"drums": (0.35, 0.65, 0.9), "loops": (0.3, 0.5, 0.9), "field": (0.45, 0.65, 0.45)}
SHARES = {"drums": 0.5, "loops": 0.2, "field": 0.08}
CLIPS = 12


@pytest.fixture(scope="module", params=GATES)
def sounds(request, tmp_path_factory) -> Path:
    name = request.param
    return write_sets(tmp_path_factory.mktemp("sets"), [name], installed=False, scale=SHARES[name])[name]


@pytest.fixture(scope="module")
def clips(sounds) -> np.ndarray:
    """Chunks [n, RATE] that training holds out."""
    _, held_out = AudioTrainingDataset(sorted(sounds.iterdir()), RATE, RATE).split()
    return torch.stack([held_out[index] for index in range(min(CLIPS, len(held_out)))])[:, 0].numpy()


def is_good(found: Heard, most_distance: float, least_envelope: float) -> bool:
    return (
        found.spectral_convergence < most_distance
        and found.envelope > least_envelope
        and abs(found.level_db) < 0.5
        and found.within_2_db >= 0.9
    )


def poor(clips: np.ndarray) -> dict[str, np.ndarray]:
    """Silence, a constant, noise and a steady sine, each with the level of its clip where it has one."""
    level = np.sqrt(np.mean(clips**2, axis=1, keepdims=True))
    noise = np.random.default_rng(0).standard_normal(clips.shape)
    sine = np.sqrt(2) * np.sin(2 * np.pi * 440 * np.arange(clips.shape[1]) / RATE)
    sounds = {"silence": 0 * level * sine, "constant": level + 0 * sine, "noise": level * noise, "sine": level * sine}
    return {name: sound.astype(np.float32) for name, sound in sounds.items()}


@pytest.mark.parametrize("channels", [1, 2])
def test_features_alone_keep_a_sound(channels, sounds, clips):
    module = AudioSpectrogram(SpectrogramConfig()) if channels == 1 else ComplexSpectrogram(ComplexSpectrogramConfig())
    waveforms = torch.from_numpy(clips)[:, None]
    found = heard(clips, module.inverse(module(waveforms), length=RATE)[:, 0].numpy(), RATE)
    gates = GATES[sounds.name][0], 0.85
    assert is_good(found, *gates), found
    for name, sound in poor(clips).items():
        assert not is_good(heard(clips, sound, RATE), *gates), name


def test_a_model_keeps_level_envelope_and_spectrum(sounds, clips, tmp_path):
    files = [tmp_path / f"{number:02d}.wav" for number in range(len(clips))]
    for path, clip in zip(files, clips, strict=True):
        soundfile.write(path, clip, RATE, subtype="FLOAT")
    config = TrainingConfig(epochs=4, augmentation_expansion=0, preview_epochs=0, device="cpu")
    run = train(sounds, tmp_path / "run", config, cache_dir=tmp_path / "cache", analyze=False).run_dir
    out = reconstruct(run, files, tmp_path / "out", sample_format="float", device="cpu")
    assert out.sources == files
    found = heard(clips, np.stack([soundfile.read(path, dtype="float32")[0] for path in out.files]), RATE)
    gates = GATES[sounds.name][1:]
    assert is_good(found, *gates), found
    for name, sound in poor(clips).items():
        assert not is_good(heard(clips, sound, RATE), *gates), name
