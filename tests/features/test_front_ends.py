"""Presets against what they are named after, written down with numpy and librosa in float64."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from definition import make_signal
from distill.audio import AudioSpectrogram, ComplexSpectrogram, ComplexSpectrogramConfig, SpectrogramConfig
from distill.errors import ConfigError
from distill.features.compression import expand
from distill.features.mel import MelSpec

pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filterbank:UserWarning")


def spectrum(signal, n_fft, hop_length, **options):
    return librosa.stft(signal, n_fft=n_fft, hop_length=hop_length, pad_mode="reflect", dtype=np.complex128, **options)


@pytest.fixture(params=["float64", "float32"])
def computed(request):
    """A function from a preset and a signal to its features: by the reference and, in float32, by the Rust kernel."""

    def compute(name, signal, **changes):
        backend = "reference" if request.param == "float64" else "rust"
        module = AudioSpectrogram(SpectrogramConfig.preset(name, **changes), backend)
        return module(torch.tensor(signal, dtype=getattr(torch, request.param))).double().numpy()

    return compute


def hifigan(padded):
    """The mel spectrogram of HiFi-GAN, of a waveform that its caller has padded."""
    magnitude = np.sqrt(np.abs(spectrum(padded, 1024, 256, center=False)) ** 2 + 1e-9)
    bank = librosa.filters.mel(sr=22_050, n_fft=1024, n_mels=80, fmin=0, fmax=8_000, dtype=np.float64)
    return np.log(np.maximum(bank @ magnitude, 1e-5))


def test_hifigan(computed):
    signal = make_signal(3 * 22_050 // 256 * 256, rate=22_050)
    padded = np.pad(signal, (1024 - 256) // 2, mode="reflect")
    features, expected = computed("hifigan", padded), hifigan(padded)
    assert features.shape == expected.shape == (80, len(signal) // 256)
    assert expected.std() > 0.5
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(computed("hifigan", 0 * padded), np.log(1e-5), rtol=1e-6)


def test_hifigan_next_to_its_floor_differs_by_what_its_documentation_says(computed):
    # Quieter and quieter, down to nothing.
    signal = make_signal(22_050, "noise", 22_050) * np.exp(-np.linspace(5, 20, 22_050))
    difference = hifigan(signal) - computed("hifigan", signal)
    assert (hifigan(signal)[:, -1] == np.log(1e-5)).all()
    assert -1e-4 < difference.min() < 1e-4
    assert 1e-3 < difference.max() < 0.14


@pytest.mark.parametrize("n_mels", [80, 128])
def test_whisper(computed, n_mels):
    signal = make_signal(3 * 16_000, rate=16_000)
    signal[:16_000] = 0
    power = np.abs(spectrum(signal, 400, 160)[:, :-1]) ** 2
    bank = librosa.filters.mel(sr=16_000, n_fft=400, n_mels=n_mels, dtype=np.float64)
    expected = np.log10(np.maximum(bank @ power, 1e-10))
    expected = (np.maximum(expected, expected.max() - 8) + 4) / 4
    # As its caller does.
    features = computed("whisper", signal, n_mels=n_mels)[:, :-1]
    features = (np.maximum(features, features.max() - 8) + 4) / 4
    assert features.shape == expected.shape == (n_mels, 300)
    assert expected.std() > 0.2
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-4)


def test_librosa(computed):
    signal = make_signal(22_050, rate=22_050)
    expected = librosa.feature.melspectrogram(y=signal, pad_mode="reflect")
    features = computed("librosa", signal)
    assert features.shape == expected.shape
    assert expected.std() > 0.1
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5 * expected.max())
    # Its default pads with zeros: the same but for frames that reach beyond the ends.
    by_default = librosa.feature.melspectrogram(y=signal)
    np.testing.assert_allclose(features[:, 2:-2], by_default[:, 2:-2], rtol=1e-4, atol=1e-5 * expected.max())


@pytest.mark.filterwarnings("ignore::UserWarning:torchaudio", "ignore::DeprecationWarning")
def test_torchaudio(computed):
    transforms = pytest.importorskip("torchaudio.transforms")
    signal = make_signal(16_000, rate=16_000)
    expected = transforms.MelSpectrogram().double()(torch.tensor(signal)).numpy()
    features = computed("torchaudio", signal)
    assert features.shape == expected.shape
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * expected.max())


@pytest.mark.parametrize("name", ["hifigan", "whisper", "torchaudio", "librosa"])
def test_channel_1_is_added_to_a_front_end(name):
    both = ComplexSpectrogram(ComplexSpectrogramConfig.preset(name))
    alone = AudioSpectrogram(SpectrogramConfig.preset(name))
    waveform = torch.tensor(make_signal(8_000, rate=both.config.sample_rate)).float()
    features = both(waveform)
    torch.testing.assert_close(features[0], alone(waveform), rtol=1e-6, atol=1e-6)
    sums = expand(features[0], MelSpec.of(both.config))
    hertz = both.to_hertz(features)[:, 4:-4].gather(0, sums[:, 4:-4].argmax(dim=0)[None])
    # The loudest sine is that of 220 Hz, or the chirp.
    assert ((hertz > 100) & (hertz < 8_000)).all()


def test_presets_take_other_values_and_name_themselves_in_errors():
    assert SpectrogramConfig.preset("whisper", n_mels=128) == SpectrogramConfig(
        sample_rate=16_000,
        n_fft=400,
        hop_length=160,
        n_mels=128,
        mel_scale="slaney",
        norm="slaney",
        compression="log10",
        floor=1e-10,
    )
    assert isinstance(ComplexSpectrogramConfig.preset("hifigan", if_masking_threshold=1e-3), ComplexSpectrogramConfig)
    with pytest.raises(
        ConfigError, match="preset='whispr' must be one of 'hifigan', 'whisper', 'torchaudio', 'librosa'"
    ):
        SpectrogramConfig.preset("whispr")
    with pytest.raises(ConfigError, match="n_mels=500 must be from 1 to 201"):
        SpectrogramConfig.preset("whisper", n_mels=500)
