"""MelSpec, window and mel bands, against torch's and torchaudio's own."""

import itertools
import re
import warnings

import librosa
import numpy as np
import pytest
import torch

from distill.config import ComplexSpectrogramConfig, SpectrogramConfig
from distill.features.mel import MelSpec, empty_bands, hann_window, mel_bands
from distill.features.scales import has_wide_bands

SPEC = MelSpec(48_000, 2048, 512, 128)


@pytest.mark.parametrize("n_fft", [32, 512, 2048])
def test_window_is_torchs_periodic_hann(n_fft):
    torch.testing.assert_close(
        hann_window(n_fft, dtype=torch.float64), torch.hann_window(n_fft, dtype=torch.float64), atol=1e-15, rtol=0
    )
    assert hann_window(n_fft).dtype == torch.float32


@pytest.mark.needs("torchaudio")
@pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero values:UserWarning")
@pytest.mark.parametrize("options", [{}, {"n_mels": 256}, {"f_min": 100.0, "f_max": 8_000.0}], ids=str)
def test_filterbank_is_torchaudios(options):
    from torchaudio import functional

    spec = SPEC._replace(**({"f_max": 24_000.0} | options))
    expected = functional.melscale_fbanks(1025, spec.f_min, spec.f_max, spec.n_mels, spec.sample_rate, None, "htk")
    actual = torch.tensor(mel_bands(spec).filterbank, dtype=torch.float32)
    # torchaudio rounds the band edges to float32: 4e-3 Hz, on slopes as short as 15 Hz.
    torch.testing.assert_close(actual, expected, atol=3e-4, rtol=0)


def test_bands_hold_every_weight_once():
    bands = mel_bands(SPEC)
    for band, (first, width) in enumerate(zip(bands.first, bands.width, strict=True)):
        used = np.flatnonzero(bands.filterbank[:, band])
        assert (used[0], used[-1]) == (first, first + width - 1)
    assert bands.half_support.min() == 2.0
    assert bands.half_support[-1] == (bands.width[-1] + 1) / 2
    assert (np.diff(bands.centre) > 0).all()
    assert mel_bands(MelSpec(*SPEC)) is bands


def test_a_spec_holds_the_numbers_of_its_configuration():
    both = ComplexSpectrogramConfig(n_mels=64, f_min=50.0, if_masking_threshold=1e-3)
    assert MelSpec.of(both)[:7] == (48_000, 2048, 512, 64, 50.0, None, 1e-3)
    assert MelSpec.of(both).channels == 2
    one = SpectrogramConfig(sample_rate=16_000, hop_length=256, f_max=7_000.0)
    assert MelSpec.of(one)[:7] == (16_000, 2048, 256, 128, 0.0, 7_000.0, None)
    assert MelSpec.of(one).channels == 1
    assert SPEC.n_frames(47_999) == 94
    np.testing.assert_allclose(SPEC.centres_hz(), mel_bands(SPEC).centre * 48_000 / 2048)


@pytest.mark.parametrize(
    ("rate", "n_fft", "n_mels", "f_min"), [(48_000, 512, 128, 0.0), (44_100, 1024, 200, 20.0), (96_000, 256, 64, 0.0)]
)
def test_empty_bands_are_those_of_librosa_and_each_remedy_leaves_none(rate, n_fft, n_mels, f_min):
    def empty(**changes):
        values = {"sr": rate, "n_fft": n_fft, "n_mels": n_mels, "fmin": f_min} | changes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # librosa's own warning about them
            return np.flatnonzero(~librosa.filters.mel(htk=True, norm=None, **values)[:, 1:-1].any(axis=1))

    spec = MelSpec(rate, n_fft, 128, n_mels, f_min)
    found = empty()
    edges = librosa.mel_frequencies(n_mels + 2, fmin=f_min, fmax=rate / 2, htk=True)
    text = empty_bands(spec)
    low, high = edges[found[0]], edges[found[-1] + 2]
    assert text.startswith(f"{len(found)} of {n_mels} mel bands, between {low:.0f} and {high:.0f} Hz, are empty")
    larger, fewer = map(int, re.search(r"n_fft=(\d+) or n_mels=(\d+) leaves none empty", text).groups())
    assert (len(empty(n_fft=larger)), len(empty(n_fft=larger // 2)) > 0) == (0, True)
    assert (len(empty(n_mels=fewer)), len(empty(n_mels=fewer + 1)) > 0) == (0, True)


@pytest.mark.parametrize("mel_scale", ["htk", "slaney"])
def test_bands_that_are_wide_without_a_look_at_them_are_not_empty(mel_scale):
    found = set()
    for n_fft, n_mels, f_min, rate in itertools.product((128, 256, 512, 2048), (4, 16, 64), (0, 40, 900), (8e3, 48e3)):
        config = SpectrogramConfig(int(rate), n_fft, 64, n_mels, f_min=f_min, mel_scale=mel_scale)
        is_empty = empty_bands(MelSpec.of(config)) is not None
        found.add((has_wide_bands(config), is_empty))
    assert (True, True) not in found
    assert {(True, False), (False, True)} <= found


def test_the_default_feature_has_no_empty_bands():
    assert empty_bands(MelSpec.of(ComplexSpectrogramConfig())) is None
    assert has_wide_bands(ComplexSpectrogramConfig())
