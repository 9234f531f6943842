"""The five measures of a row agree with numpy and librosa on its waveform."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from distill.audio import AudioSpectrogram, ComplexSpectrogram, ComplexSpectrogramConfig, SpectrogramConfig
from distill.features.mel import MelSpec
from distill.latent.measures import UNITS, measure
from sounds import CHUNK, RATE, noise, sine

FEATURE = {"sample_rate": RATE, "n_fft": 1024, "hop_length": 256, "n_mels": 64}
SECONDS = CHUNK / RATE
FREQUENCIES = (130.0, 311.0, 777.7, 1234.5, 3000.0, 5555.0)


def measured(*sounds: np.ndarray, channels: int = 2) -> dict[str, np.ndarray]:
    """The measures of waveforms [S], by name."""
    waveforms = torch.from_numpy(np.stack(sounds)).float()[:, None]
    centres = torch.from_numpy(MelSpec(**FEATURE).centres_hz())
    if channels == 2:
        spectrogram = ComplexSpectrogram(ComplexSpectrogramConfig(**FEATURE))
        rows = spectrogram(waveforms)
        found = measure(rows, centres, spectrogram.to_hertz(rows), n_fft=FEATURE["n_fft"])
    else:
        rows = AudioSpectrogram(SpectrogramConfig(**FEATURE))(waveforms)
        found = measure(rows, centres, None, n_fft=FEATURE["n_fft"])
    return dict(zip(UNITS, found.numpy().T, strict=True))


def power(sound: np.ndarray) -> np.ndarray:
    """Power of librosa's transform, [K, T]."""
    n_fft, hop = FEATURE["n_fft"], FEATURE["hop_length"]
    return np.abs(librosa.stft(sound, n_fft=n_fft, hop_length=hop, pad_mode="reflect")) ** 2


def mel_power(sound: np.ndarray) -> np.ndarray:
    """Power in librosa's mel bands, [M, T]."""
    numbers = {"sr": RATE, "n_fft": FEATURE["n_fft"], "n_mels": FEATURE["n_mels"]}
    return librosa.filters.mel(**numbers, htk=True, norm=None, dtype=np.float64) @ power(sound)


def varied() -> list[np.ndarray]:
    """Sounds that differ in all five measures."""
    t = np.arange(CHUNK) / RATE
    struck = np.where(t > 0.2, np.exp(-20 * (t - 0.2)), 0.0)
    sweep = 0.4 * np.sin(2 * np.pi * (200 * t + 3000 * t**2))
    smooth = np.convolve(noise(3), np.hanning(9), "same") / 4
    return [
        sine(300, SECONDS),
        sine(2500, SECONDS, level=0.02) + noise(1, level=0.01),
        noise(2),
        smooth,
        sweep,
        struck * sine(700, SECONDS),
        struck * noise(4, level=0.9) + sine(150, SECONDS, level=0.05),
    ]


def test_rms_equals_that_of_the_waveform():
    sounds = varied()
    expected = [20 * np.log10(np.sqrt(np.mean(sound**2))) for sound in sounds]
    assert np.ptp(expected) > 20
    np.testing.assert_allclose(measured(*sounds)["rms"], expected, atol=0.5)
    louder = [10 ** (6 / 20) * sound for sound in sounds]
    np.testing.assert_allclose(measured(*louder)["rms"] - measured(*sounds)["rms"], 6.0, atol=0.01)


def test_the_centroid_agrees_with_librosa():
    sounds = varied()
    expected = []
    for sound in sounds:
        frames = power(sound)
        centroid = librosa.feature.spectral_centroid(S=frames, sr=RATE, n_fft=FEATURE["n_fft"])[0]
        expected.append(np.log2(np.average(centroid, weights=frames.sum(axis=0))))
    assert np.ptp(expected) > 3
    # The largest error is for noise above the peak of the last band, which has less weight there.
    np.testing.assert_allclose(measured(*sounds)["spectral_centroid"], expected, atol=0.06)


def test_flatness_agrees_with_librosa_on_mel_bands():
    sounds = varied()
    expected = []
    for sound in sounds:
        frames = mel_power(sound)
        flatness = librosa.feature.spectral_flatness(S=frames, power=1.0, amin=1e-10)[0]
        expected.append(np.average(10 * np.log10(flatness), weights=frames.sum(axis=0)))
    assert np.ptp(expected) > 20
    np.testing.assert_allclose(measured(*sounds)["flatness"], expected, atol=1.0)


def test_onset_strength_agrees_with_the_maximum_of_librosa():
    sounds = varied()
    expected = [
        librosa.onset.onset_strength(S=librosa.power_to_db(mel_power(sound), top_db=50), sr=RATE, center=False).max()
        for sound in sounds
    ]
    found = measured(*sounds)["onset_strength"]
    np.testing.assert_allclose(found, expected, atol=0.1)
    # A stroke after silence or during a tone, compared with sounds that begin with the row.
    assert found[5:].min() > 1.5 * found[:5].max()
    quieter = measured(*(0.05 * sound for sound in sounds))["onset_strength"]
    np.testing.assert_allclose(quieter, found, atol=0.1)


@pytest.mark.parametrize(("channels", "octaves"), [(2, 0.001), (1, 0.06)])
def test_the_pitch_of_a_tone_is_its_frequency(channels, octaves):
    """To within a cent by the instantaneous frequency, and two thirds of a semitone by band centres."""
    tones = [sine(frequency, SECONDS) + sine(2.3 * frequency, SECONDS, level=0.1) for frequency in FREQUENCIES[:5]]
    found = measured(*tones, channels=channels)["pitch"]
    np.testing.assert_allclose(found, np.log2(FREQUENCIES[:5]), atol=octaves)


def test_the_pitch_of_a_harmonic_sound_agrees_with_yin():
    t = np.arange(CHUNK) / RATE
    sounds = [
        sum(0.3 / k * np.sin(2 * np.pi * k * pitch * t + k) for k in range(1, 6)) * np.exp(-3 * t)
        for pitch in (180.0, 260.0, 430.0, 610.0)
    ]
    yin = [np.median(librosa.yin(sound, fmin=100, fmax=1000, sr=RATE)) for sound in sounds]
    np.testing.assert_allclose(measured(*sounds)["pitch"], np.log2(yin), atol=0.02)


def test_silence_after_a_sound_does_not_change_flatness_pitch_and_centroid():
    t = np.arange(CHUNK) / RATE
    whole = sine(500, SECONDS) + noise(5, level=0.02)
    cut = np.where(t < 0.25, whole, 0.0)
    found = measured(whole, cut)
    for name, tolerance in (("spectral_centroid", 0.2), ("pitch", 0.002), ("flatness", 3.0)):
        assert found[name][0] == pytest.approx(found[name][1], abs=tolerance), name
    assert found["rms"][0] - found["rms"][1] == pytest.approx(3.0, abs=0.3)


def test_measures_of_silence_and_of_a_single_frame_are_finite():
    found = measured(np.zeros(CHUNK), sine(440, SECONDS))
    assert all(np.isfinite(values).all() and values[0] != values[1] for values in found.values())
    rows = torch.rand(3, 2, FEATURE["n_mels"], 1)
    centres = torch.linspace(50, 7000, FEATURE["n_mels"])
    one_frame = measure(rows, centres, None, n_fft=FEATURE["n_fft"])
    assert torch.isfinite(one_frame).all()
    assert (one_frame[:, list(UNITS).index("onset_strength")] == 0).all()
