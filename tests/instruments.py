"""Run folders without training: the model is the PCA of sounds that a test synthesizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from distill.audio import AudioSpectrogram, ComplexSpectrogram
from distill.config import ComplexSpectrogramConfig, SpectrogramConfig, TrainingConfig
from distill.features.normalization import normalize
from distill.index import Dataset
from distill.models import ConvVAE, fit_pca, save_model
from distill.models.vae import to_patches
from distill.runs.axes import axes_metadata
from distill.runs.folder import RunFolder
from sounds import CHUNK, RATE, sine, training

FEATURE = {"sample_rate": RATE, "n_fft": 512, "hop_length": 128, "n_mels": 32}
PITCHES = (220.0, 330.0, 415.0, 587.0, 740.0, 988.0, 1318.0, 1760.0)


def config_of(channels: int, **changes) -> TrainingConfig:
    """A small configuration with one or two channels."""
    complex_spectrogram = ComplexSpectrogramConfig(**FEATURE, enabled=channels == 2)
    values = {"complex_spectrogram": complex_spectrogram, "spectrogram": SpectrogramConfig(**FEATURE)}
    return training(**(values | changes))


def tones(levels=(0.25, 0.5, 1.0), starts=3) -> np.ndarray:
    """Chunks [n, CHUNK] of steady sines: every pitch at every level, with several phases."""
    chunks = []
    for pitch in PITCHES:
        sound = sine(pitch, 2.0, level=1.0)
        chunks += [level * sound[start : start + CHUNK] for level in levels for start in range(0, 90 * starts, 90)]
    return np.stack(chunks)


def write_run(
    folder: Path, chunks: np.ndarray, *, channels: int = 2, latent_dim: int = 24, latent_frames: int = 8, **changes
) -> Path:
    """Write a run folder whose model is the PCA of `chunks` [n, CHUNK]."""
    config = config_of(channels, latent_dim=latent_dim, latent_frames=latent_frames, **changes)
    spectrogram = (
        ComplexSpectrogram(config.complex_spectrogram) if channels == 2 else AudioSpectrogram(config.spectrogram)
    )
    features = spectrogram(torch.from_numpy(chunks).float()[:, None])
    stats = {}
    for channel, name in enumerate(("mag", "if")[:channels]):
        stats |= {f"{name}_mean": features[:, channel].mean().item(), f"{name}_std": features[:, channel].std().item()}
    rows = normalize(features, stats)
    model = ConvVAE(
        channels, latent_dim, n_mels=FEATURE["n_mels"], n_frames=rows.shape[-1], latent_frames=latent_frames
    )
    silence = -stats["mag_mean"] / stats["mag_std"]
    model.init_linear_path(fit_pca(to_patches(rows, model.patch_frames).flatten(0, 1), latent_dim, silence=silence))
    with torch.no_grad():
        model.set_latents(model.eval().encode(rows)[0])
    run = RunFolder(folder)
    run.create(config, Dataset(folder))
    save_model(folder, model, features={}, statistics=stats)
    return folder


def write_axis(run: Path, direction: np.ndarray, name: str) -> None:
    """Write an analysis with one axis along `direction` [L]; its length is the standard deviation."""
    length = np.linalg.norm(direction)
    tensors = {"mean": np.zeros_like(direction), "components": direction[None] / length, "scale": np.array([length])}
    (run / "latent").mkdir(exist_ok=True)
    path = run / "latent" / "analysis.safetensors"
    save_file({key: torch.tensor(value).float() for key, value in tensors.items()}, path, axes_metadata([name], run))


def pitch_of(samples: np.ndarray, rate: int = RATE) -> float:
    """Frequency of the loudest sine, Hz, by parabolic interpolation of the peak of a zero-padded DFT."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8 * len(samples)))
    k = int(spectrum[1:-1].argmax()) + 1
    low, mid, high = np.log(spectrum[k - 1 : k + 2])
    return (k + 0.5 * (low - high) / (low - 2 * mid + high)) * rate / (8 * len(samples))
