"""Sounds to resynthesize, and baselines for the inverse that share no code with it."""

from __future__ import annotations

import numpy as np
import torch

from distill import demo


def synthetic(sounds: int = 2, seconds: float = 1.0, rate: int = 48_000) -> torch.Tensor:
    """Return the start of `sounds` of each of the demo's families, [B, 1, seconds·rate], peak 0.9."""
    clips = []
    for family, (synth, _, longest) in enumerate(demo.FAMILIES.values()):
        for number in range(sounds):
            time = np.arange(round(rate * min(longest, seconds))) / rate
            sound = synth(time, np.random.default_rng([11, family, number]))
            clips.append(np.pad(0.9 * sound / np.abs(sound).max(), (0, round(rate * seconds) - len(time))))
    return torch.tensor(np.stack(clips), dtype=torch.float32)[:, None]


def linear_magnitude(mel_power: torch.Tensor, config) -> torch.Tensor:
    """Estimate bin magnitudes [B, K, T] from mel power [B, M, T], by plain multiplicative updates in float64."""
    from torchaudio.functional import melscale_fbanks

    bank = melscale_fbanks(
        config.n_fft // 2 + 1, config.f_min, config.sample_rate / 2, config.n_mels, config.sample_rate, None, "htk"
    ).double()
    total = bank.sum(dim=1, keepdim=True).clamp(min=1e-9)
    target = mel_power.double()
    power = bank @ (target / bank.sum(dim=0).clamp(min=1e-9)[:, None]) / total
    for _ in range(20):
        power = power * (bank @ (target / (bank.T @ power + 1e-12))) / total
    return power.sqrt().float()


def random_phase(magnitude: torch.Tensor, config, n_iter: int, length: int) -> torch.Tensor:
    """Resynthesize with torchaudio's fast Griffin-Lim from random phases, [B, 1, length]."""
    from torchaudio.functional import griffinlim

    with torch.random.fork_rng():
        torch.manual_seed(0)
        window = torch.hann_window(config.n_fft)
        sound = griffinlim(
            magnitude, window, config.n_fft, config.hop_length, config.n_fft, 1.0, n_iter, 0.99, length, True
        )
    return sound[:, None]


def true_phase(magnitude: torch.Tensor, waveform: torch.Tensor, config) -> torch.Tensor:
    """Resynthesize with the phase of the original waveform, the best phase there is, [B, 1, S]."""
    stft = {"n_fft": config.n_fft, "hop_length": config.hop_length, "window": torch.hann_window(config.n_fft)}
    phase = torch.stft(waveform[:, 0], **stft, return_complex=True).angle()
    return torch.istft(torch.polar(magnitude, phase), **stft, length=waveform.shape[-1])[:, None]
