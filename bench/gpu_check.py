"""Check that a method computes the features: its errors relative to the float64 reference, and the gates."""

from __future__ import annotations

import math

import torch

from distill.features.mel import MelSpec
from distill.features.reference import complex_mel
from gpu_baselines import Method

SPEC = MelSpec(sample_rate=48_000, n_fft=2048, hop_length=512, n_mels=128)
"""The feature that is measured: the defaults."""

LOUD = 1e-2
GATES = {"channel_0": 1e-4, "channel_1_loud": 1e-3, "channel_1_mean": 1e-4}
"""Largest error of channel 0; of channel 1 where the band's power is above LOUD; its mean above the mask."""


def signals(shape: tuple[int, int], device: torch.device) -> dict[str, torch.Tensor]:
    """Return random and tonal waveforms (B, S), float32, all rows different."""
    n_clips, n_samples = shape
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(shape, generator=generator)
    time = torch.arange(n_samples, dtype=torch.float64)[None, :] / SPEC.sample_rate
    frequencies = 60 * 300 ** torch.rand((3, n_clips, 1), generator=generator, dtype=torch.float64)
    chirp = 0.3 * torch.sin(2 * math.pi * (100 * time + 4_000 * time**2))
    tonal = (0.2 * torch.sin(2 * math.pi * frequencies * time)).sum(0) + chirp
    return {"random": noise.to(device), "tonal": tonal.float().to(device)}


def errors_of(features: torch.Tensor, expected: torch.Tensor) -> dict[str, float]:
    """Compute errors of features (B, C, M, T) relative to the float64 reference, by the names in `GATES`."""
    power = expected[:, 0].expm1()
    distance = (features.double() - expected[:, : features.shape[1]]).abs()
    found = {"channel_0": distance[:, 0].max().item()}
    if features.shape[1] == 2:
        found["channel_1_loud"] = distance[:, 1][power > LOUD].max().item()
        # Above twice the threshold: close to it, rounding decides whether a band is masked.
        found["channel_1_mean"] = distance[:, 1][power > 2 * SPEC.if_masking_threshold].mean().item()
    return found


def disagreement(errors: dict[str, float]) -> str | None:
    """Return which gates the errors fail, or None; NaN fails."""
    failed = [
        f"{name} {value:.2e} above {GATES[name]:.0e}" for name, value in errors.items() if not value <= GATES[name]
    ]
    return "disagrees with the float64 reference: " + ", ".join(failed) if failed else None


def check(method: Method, waveforms: dict[str, torch.Tensor]) -> dict[str, dict[str, float]]:
    """Compute the errors of a method on each kind of waveform."""
    found = {}
    for name, waveform in waveforms.items():
        expected = complex_mel(waveform.double(), SPEC)
        features = method.call(waveform)
        found[name] = errors_of(features if method.is_log else features.log1p(), expected)
    return found
