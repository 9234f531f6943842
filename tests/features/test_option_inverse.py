"""Back to sound from features with options, and which of them have no way back."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from definition import make_signal
from distill.audio import AudioSpectrogram, ComplexSpectrogram, ComplexSpectrogramConfig, SpectrogramConfig
from distill.errors import BackendError, ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"sample_rate": 16_000, "n_fft": 512, "hop_length": 128, "n_mels": 64}
OPTIONS = {
    "slaney scale": {"mel_scale": "slaney"},
    "slaney norm": {"norm": "slaney"},
    "log": {"compression": "log"},
    "log10": {"compression": "log10", "norm": "slaney", "mel_scale": "slaney"},
    "db": {"compression": "db", "floor": 1e-6},
    "none": {"compression": "none"},
    "n_fft=400": {"n_fft": 400, "hop_length": 160},
    "n_fft=502": {"n_fft": 502, "hop_length": 120},
}
KINDS = {
    "two channels": (ComplexSpectrogram, ComplexSpectrogramConfig),
    "magnitude": (AudioSpectrogram, SpectrogramConfig),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def make(request):
    kind, config = request.param
    return lambda **options: kind(config(**(SMALL | options)))


def decibels(sound):
    """Levels of 128 bands of equal width, in frames of 512 samples."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, 512)[::256] * np.hanning(512)
    power = np.square(np.abs(np.fft.rfft(frames)))[:, :256].reshape(len(frames), 128, 2).sum(axis=2)
    return 10 * np.log10(power + 1e-4)


def error_db(found, expected):
    return np.sqrt(np.square(decibels(found) - decibels(expected)).mean())


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_sound_comes_back_as_well_as_without_options(make, options):
    signal = make_signal(8_000, rate=16_000)
    signal[:2_000] = 0
    waveform = torch.tensor(signal).float()[None, None]
    plain, module = make(), make(**options)
    usual, sound = (m.inverse(m(waveform), length=8_000)[0, 0].double().numpy() for m in (plain, module))
    assert error_db(usual, signal) < error_db(0 * signal, signal) / 2
    assert error_db(sound, signal) < 1.2 * error_db(usual, signal)
    if options.keys() <= {"norm", "compression", "floor"}:
        # The features say the same. The sign of a sound is arbitrary, and in noise phases follow rounding errors.
        assert error_db(sound, usual) < 0.1 * error_db(usual, signal)
    assert not module.inverse(module(0 * waveform)).any()


@pytest.mark.parametrize(
    ("options", "named"),
    [({"power": 1}, "power=1"), ({"win_length": 300}, "win_length=300"), ({"center": False}, "center=False")],
    ids=["power", "win_length", "center"],
)
def test_what_cannot_be_inverted_is_an_error_that_names_the_option(make, options, named):
    module = make(**options)
    features = module(torch.tensor(make_signal(4_000)).float()[None, None])
    with pytest.raises(ConfigError, match=f"^{named} cannot be inverted: the inverse is that of centred frames"):
        module.inverse(features)


def test_frames_of_another_length_are_inverted_by_the_reference_which_is_said_once(caplog):
    config = ComplexSpectrogramConfig(**(SMALL | {"n_fft": 450}))
    features = ComplexSpectrogram(config)(torch.tensor(make_signal(4_000)).float())[None]
    with caplog.at_level(logging.WARNING, "distill"):
        for _ in range(2):
            assert ComplexSpectrogram(config).inverse(features, n_iter=1).any()
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["n_fft=450 is no power of two"]
    with pytest.raises(BackendError, match="'rust' cannot invert this: n_fft=450 is no power of two"):
        ComplexSpectrogram(config, "rust").inverse(features)


def test_normalised_decibels_are_refused():
    module = ComplexSpectrogram(ComplexSpectrogramConfig(**SMALL, compression="db"))
    with pytest.raises(ValueError, match="undo the normalisation first"):
        module.inverse(torch.full((1, 2, 64, 5), 500.0))
