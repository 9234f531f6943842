"""MelSpec, window and mel bands, against torch's and torchaudio's own."""

import numpy as np
import pytest
import torch

from distill.config import ComplexSpectrogramConfig, SpectrogramConfig
from distill.features.mel import MelSpec, hann_window, mel_bands

SPEC = MelSpec(48_000, 2048, 512, 128)


@pytest.mark.parametrize("n_fft", [32, 512, 2048])
def test_window_is_torchs_periodic_hann(n_fft):
    torch.testing.assert_close(
        hann_window(n_fft, dtype=torch.float64), torch.hann_window(n_fft, dtype=torch.float64), atol=1e-15, rtol=0
    )
    assert hann_window(n_fft).dtype == torch.float32


@pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero values:UserWarning")
@pytest.mark.parametrize("options", [{}, {"n_mels": 256}, {"f_min": 100.0, "f_max": 8_000.0}], ids=str)
def test_filterbank_is_torchaudios(options):
    functional = pytest.importorskip("torchaudio.functional")
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
    assert MelSpec.of(both) == (48_000, 2048, 512, 64, 50.0, None, 1e-3)
    assert MelSpec.of(both).channels == 2
    one = SpectrogramConfig(sample_rate=16_000, hop_length=256, f_max=7_000.0)
    assert MelSpec.of(one) == (16_000, 2048, 256, 128, 0.0, 7_000.0, None)
    assert MelSpec.of(one).channels == 1
    assert SPEC.n_frames(47_999) == 94
    np.testing.assert_allclose(SPEC.centres_hz(), mel_bands(SPEC).centre * 48_000 / 2048)
