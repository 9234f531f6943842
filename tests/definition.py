"""The features straight from their definition in float64, with numpy alone, and test signals."""

from __future__ import annotations

import numpy as np

LOUD = 1e-2
"""Band power above which each value of channel 1 is compared, and not only their mean."""


def make_signal(samples, kind="mixed", rate=48_000, seed=0):
    """Return a waveform (samples,), float64, that no constant or silent output could match."""
    noise = np.random.default_rng(seed).standard_normal(samples)
    time = np.arange(samples) / rate
    if kind == "noise":
        return 0.1 * noise
    chirp = 0.3 * np.sin(2 * np.pi * (100 * time + 8_000 * time**2))
    tones = sum(0.2 * np.sin(2 * np.pi * f * time + i) for i, f in enumerate((220.0, 1234.5, 9_876.0)))
    if kind == "tonal":
        return tones + chirp
    return 0.02 * noise + tones + chirp


def define(signal, config):
    """Compute both channels and the band power from the definition: float64, dense, two windows, frame by frame.

    `config` is a MelSpec or a configuration.
    """
    n_fft, hop, n_mels = config.n_fft, config.hop_length, config.n_mels
    bins = np.arange(n_fft // 2 + 1)
    n = np.arange(n_fft)
    window = 0.5 * (1 - np.cos(2 * np.pi * n / n_fft))
    derivative = np.pi / n_fft * np.sin(2 * np.pi * n / n_fft)

    top = config.f_max if config.f_max is not None else config.sample_rate / 2
    mels = np.linspace(2595 * np.log10(1 + config.f_min / 700), 2595 * np.log10(1 + top / 700), n_mels + 2)
    corners = 700 * (10 ** (mels / 2595) - 1)
    hertz = bins * config.sample_rate / n_fft
    bank, centre, half = np.zeros((len(bins), n_mels)), np.zeros(n_mels), np.zeros(n_mels)
    for m, (low, peak, high) in enumerate(zip(corners[:-2], corners[1:-1], corners[2:], strict=True)):
        bank[:, m] = np.maximum(0, np.minimum((hertz - low) / (peak - low), (high - hertz) / (high - peak)))
        used = np.flatnonzero(bank[:, m] > 1e-5)
        centre[m] = (bins * bank[:, m]).sum() / bank[:, m].sum() if len(used) else peak * n_fft / config.sample_rate
        half[m] = max((used[-1] - used[0]) / 2 + 1 if len(used) else 0, n_fft / (2 * hop))

    padded = np.pad(signal, n_fft // 2, mode="reflect")
    frames = len(signal) // hop + 1
    features, powers = np.zeros((2, n_mels, frames)), np.zeros((n_mels, frames))
    for t in range(frames):
        frame = padded[t * hop : t * hop + n_fft]
        spectrum, slope = np.fft.rfft(frame * window), np.fft.rfft(frame * derivative)
        power = np.abs(spectrum) ** 2
        correction = -(slope * spectrum.conj()).imag * n_fft / (2 * np.pi)
        band = power @ bank
        powers[:, t] = band
        features[0, :, t] = np.log1p(band)
        audible = band > getattr(config, "if_masking_threshold", 0.0)
        frequency = ((bins * power + correction) @ bank)[audible] / band[audible]
        features[1, audible, t] = np.clip((frequency - centre[audible]) / half[audible], -2, 2)
    return features, powers


def assert_within_gates(actual, waveform, config):
    """Compare float32 features [B, 2, M, T] of a waveform [B, S] with the definition, within the gates.

    Returns the definition's features and band powers, so that a test can check that the comparison was not vacuous.
    """
    defined = [define(row.astype(np.float64), config) for row in waveform]
    expected = np.stack([features for features, _ in defined])
    powers = np.stack([power for _, power in defined])
    assert actual.shape == expected.shape
    assert actual.dtype == np.float32
    # The tolerance is the rounding of a float32 FFT through log1p. The ratio in channel 1 amplifies it in quiet bands.
    np.testing.assert_allclose(actual[:, 0], expected[:, 0], rtol=0, atol=1e-4)
    loud = powers > LOUD
    np.testing.assert_allclose(actual[:, 1][loud], expected[:, 1][loud], rtol=0, atol=1e-3)
    threshold = config.if_masking_threshold
    audible, masked = powers > 2 * threshold, powers < threshold / 2
    if audible.any():
        assert np.abs(actual[:, 1] - expected[:, 1])[audible].mean() <= 1e-4
    np.testing.assert_array_equal(actual[:, 1][masked], 0)
    return expected, powers
