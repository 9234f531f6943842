"""Distances between sounds, against a float64 computation by numpy and scipy and against known results."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import get_window

from definition import make_signal
from distill.features.distance import distances


def by_definition(one, other):
    """Compute the three distances of two signals (samples,), float64."""
    found = []
    for n_fft in (512, 1024, 2048, 4096):
        frames = (
            np.lib.stride_tricks.sliding_window_view(np.pad(s, n_fft // 2, mode="reflect"), n_fft)[:: n_fft // 4]
            for s in (one, other)
        )
        x, y = (np.abs(np.fft.rfft(f * get_window("hann", n_fft))) for f in frames)
        convergence = np.linalg.norm(x - y) / np.linalg.norm(x)
        floor = 1e-4 * x.max()
        ratio = np.log(np.maximum(x, floor) / np.maximum(y, floor))
        decibels = 20 * np.log10(np.e) * np.sqrt((ratio**2).mean(axis=1)).mean()
        found.append([convergence, decibels, convergence + np.abs(ratio).mean()])
    return np.mean(found, axis=0)


def tensor(signals, dtype=torch.float64):
    return torch.tensor(np.stack(signals), dtype=dtype)[:, None]


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["float64", "float32"])
def test_distances_equal_the_definition(dtype, rtol):
    references = [make_signal(9_001), make_signal(9_001, "noise", seed=1)]
    estimates = [make_signal(9_001, seed=2), make_signal(9_001, "tonal")]
    expected = np.stack([by_definition(*pair) for pair in zip(references, estimates, strict=True)], axis=1)
    assert expected.min() > 0.01
    found = distances(tensor(references, dtype), tensor(estimates, dtype))
    assert found.spectral_convergence.dtype == dtype
    np.testing.assert_allclose(torch.stack(found).double().numpy(), expected, rtol=rtol)


@pytest.mark.parametrize("gain", [0.5, 2.0, -0.9])
def test_distances_of_a_gain_are_its_level(gain):
    noise = tensor([make_signal(9_000, "noise")])
    found = distances(noise, gain * noise)
    level = abs(math.log(abs(gain)))
    expected = [abs(1 - abs(gain)), 20 / math.log(10) * level, abs(1 - abs(gain)) + level]
    np.testing.assert_allclose(torch.stack(found)[:, 0].numpy(), expected, rtol=1e-3)


def test_silence_and_a_constant_are_far_from_any_sound():
    sound = tensor([make_signal(24_000), make_signal(24_000, "noise")])
    for nothing in (torch.zeros_like(sound), torch.full_like(sound, 0.1)):
        found = distances(sound, nothing)
        assert (found.spectral_convergence > 0.99).all()
        assert (found.log_spectral_db > 30).all()
        assert (found.multi_resolution > 4).all()
    assert (distances(sound, torch.zeros_like(sound)).spectral_convergence == 1).all()


def test_equal_sounds_have_distance_0_and_silence_is_infinitely_far_from_sound():
    sound, silence = tensor([make_signal(5_000)]), torch.zeros(1, 1, 5_000)
    assert not torch.stack(distances(sound, sound)).any()
    assert not torch.stack(distances(silence, silence)).any()
    assert torch.stack(distances(silence, sound.float())).isinf().all()


def test_nan_gives_nan_for_that_clip_only():
    sound = tensor([make_signal(5_000), make_signal(5_000, "noise")])
    broken = sound.clone()
    broken[0, 0, 2_500] = math.nan
    for pair in ((sound, broken), (broken, sound)):
        found = torch.stack(distances(*pair))
        assert found[:, 0].isnan().all()
        assert not found[:, 1].any()


def test_clips_of_a_batch_are_independent():
    one, other = tensor([make_signal(5_000), make_signal(5_000, "noise")]), tensor([make_signal(5_000, "tonal")] * 2)
    both = torch.stack(distances(one, other))
    alone = [torch.stack(distances(one[i : i + 1], other[i : i + 1]))[:, 0] for i in range(2)]
    torch.testing.assert_close(both, torch.stack(alone, dim=1))
    assert (both[:, 0] - both[:, 1]).abs().min() > 0.01


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ((1, 1, 5_000), (1, 1, 4_999), r"\[1, 1, 5000\] and \[1, 1, 4999\]"),
        ((1, 2, 5_000), (1, 2, 5_000), r"\[batch, 1, samples\]"),
        ((5_000,), (5_000,), r"\[batch, 1, samples\]"),
        ((1, 1, 2_048), (1, 1, 2_048), "2048 samples must be longer than 2048"),
    ],
)
def test_wrong_shapes_are_reported(one, other, message):
    with pytest.raises(ValueError, match=message):
        distances(torch.ones(one), torch.ones(other))
