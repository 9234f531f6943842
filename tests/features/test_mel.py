"""Window and bands against torch's and torchaudio's own."""

import numpy as np
import pytest
import torch

from distill.features.mel import hann_window, mel_bands, mel_filterbank

NUMBERS = {"sample_rate": 48_000, "n_fft": 2048, "n_mels": 128}


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
    numbers = NUMBERS | {"f_min": 0.0, "f_max": 24_000.0} | options
    expected = functional.melscale_fbanks(
        1025, numbers["f_min"], numbers["f_max"], numbers["n_mels"], numbers["sample_rate"], None, "htk"
    )
    # torchaudio rounds the corners to float32: 4e-3 Hz, of a slope as short as 15 Hz.
    torch.testing.assert_close(mel_filterbank(**numbers), expected, atol=3e-4, rtol=0)


def test_bands_hold_every_weight_once():
    bands = mel_bands(**NUMBERS, hop_length=512)
    for band, (first, width) in enumerate(zip(bands.first, bands.width, strict=True)):
        used = np.flatnonzero(bands.filterbank[:, band])
        assert (used[0], used[-1]) == (first, first + width - 1)
    assert bands.half_support.min() == 2.0
    assert bands.half_support[-1] == (bands.width[-1] + 1) / 2
    assert (np.diff(bands.centre) > 0).all()
    assert mel_bands(**NUMBERS, hop_length=512) is bands
