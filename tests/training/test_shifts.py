"""Shifted rows, compared with numpy.roll and with the features of a delayed sound."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.audio import ComplexSpectrogram, ComplexSpectrogramConfig
from distill.features.normalization import normalize, silence_of
from distill.training.shifts import shift_rows

STATS = {"mag_mean": 0.9, "mag_std": 1.7, "if_mean": -0.02, "if_std": 0.3}
SILENCE = silence_of(torch.empty(1, 2, 1, 1), STATS)


def rolled(row: np.ndarray, bands: int, frames: int) -> np.ndarray:
    """Return `row` [C, M, T] rolled, with silence where it wrapped around."""
    shifted = np.roll(row, (bands, frames), axis=(1, 2))
    inside = np.zeros(row.shape[1:])
    inside[max(bands, 0) : len(inside) + min(bands, 0), max(frames, 0) : row.shape[2] + min(frames, 0)] = 1
    return np.where(inside == 1, shifted, SILENCE.numpy())


def found_shift(row: np.ndarray, shifted: np.ndarray, bands: int, frames: int) -> tuple[int, int]:
    steps = [(b, f) for b in range(-bands, bands + 1) for f in range(-frames, frames + 1)]
    return next(step for step in steps if np.array_equal(rolled(row, *step), shifted))


def test_shifted_rows_are_rolled_rows_with_silence_at_the_edge():
    rows = torch.randn(200, 2, 128, 20, generator=torch.Generator().manual_seed(0))
    shifted = shift_rows(rows, 1.0, SILENCE, torch.Generator().manual_seed(1))
    found = [found_shift(a, b, 2, 8) for a, b in zip(rows.numpy(), shifted.numpy(), strict=True)]
    # All steps within 40 % of the frames and 1/64 of the bands occur, including both extremes.
    assert {bands for bands, _ in found} == {-2, -1, 0, 1, 2}
    assert {frames for _, frames in found} == set(range(-8, 9))


def test_a_share_of_the_rows_is_shifted_and_the_input_is_unchanged():
    rows = torch.randn(400, 1, 64, 20, generator=torch.Generator().manual_seed(0))
    before = rows.clone()
    silence = silence_of(torch.empty(1, 1, 1, 1), STATS)
    shifted = shift_rows(rows, 0.25, silence, torch.Generator().manual_seed(1))
    changed = (shifted != rows).flatten(1).any(dim=1).float().mean().item()
    assert changed == pytest.approx(0.25, abs=0.06)
    assert torch.equal(rows, before)
    assert torch.equal(shift_rows(rows, 0.0, silence), rows)


def test_a_row_shifted_in_time_equals_the_features_of_the_delayed_sound():
    config = ComplexSpectrogramConfig(sample_rate=16_000, n_fft=512, hop_length=256, n_mels=32)
    spectrogram = ComplexSpectrogram(config)
    sound = torch.zeros(1, 1, 256 * 39)
    sound[..., 256 * 12 : 256 * 24] = torch.randn(256 * 12, generator=torch.Generator().manual_seed(0))
    # Far enough from both edges that no frame of the sound reaches over one after the shift.
    row = normalize(spectrogram(sound), STATS)
    shifted = shift_rows(row, 1.0, SILENCE, torch.Generator().manual_seed(3))
    _, frames = found_shift(row[0].numpy(), shifted[0].numpy(), 0, 16)
    assert frames
    expected = normalize(spectrogram(torch.roll(sound, 256 * frames, dims=-1)), STATS)
    torch.testing.assert_close(shifted, expected, atol=1e-4, rtol=0)


def test_the_global_generator_is_used_by_default():
    rows = torch.randn(8, 2, 64, 20)
    torch.manual_seed(5)
    first = shift_rows(rows, 0.5, SILENCE)
    second = shift_rows(rows, 0.5, SILENCE)
    torch.manual_seed(5)
    assert torch.equal(shift_rows(rows, 0.5, SILENCE), first)
    assert not torch.equal(first, second)
