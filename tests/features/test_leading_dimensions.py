"""Waveforms of any number of dimensions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from definition import make_signal
from distill.audio import AudioSpectrogram, ComplexSpectrogram, ComplexSpectrogramConfig, SpectrogramConfig

NUMBERS = {"sample_rate": 16_000, "n_fft": 256, "hop_length": 100, "n_mels": 12}


@pytest.fixture(params=["auto", "reference"])
def backend(request):
    return request.param


def waveform(*shape):
    count = int(np.prod(shape, dtype=int))
    clips = np.stack([make_signal(1_000, seed=seed) for seed in range(count)]) if count else np.zeros((0, 1_000))
    return torch.tensor(clips).float().reshape(*shape, 1_000)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), (2,)),
        ((3,), (3, 2)),
        ((1,), (1, 2)),
        ((3, 1), (3, 2)),
        ((2, 3, 1), (2, 3, 2)),
        ((2, 1, 3, 1), (2, 1, 3, 2)),
        ((0,), (0, 2)),
        ((0, 3, 1), (0, 3, 2)),
    ],
    ids=str,
)
def test_two_channels_take_the_place_of_one(backend, shape, expected):
    spectrogram = ComplexSpectrogram(ComplexSpectrogramConfig(**NUMBERS), backend)
    clips = waveform(*shape)
    features = spectrogram(clips)
    assert features.shape == (*expected, 12, 11)
    singly = spectrogram(clips.reshape(-1, 1, 1_000)) if clips.numel() else features
    assert torch.equal(features.flatten(), singly.flatten())
    assert spectrogram.to_hertz(features).shape == (*expected[:-1], 12, 11)


@pytest.mark.parametrize("shape", [(2,), (1, 2), (3, 2), (2, 1, 2)], ids=str)
def test_several_channels_are_refused_unless_they_have_a_dimension_of_their_own(backend, shape):
    spectrogram = ComplexSpectrogram(ComplexSpectrogramConfig(**NUMBERS), backend)
    clips = waveform(*shape)
    if len(shape) > 1:
        for call in (spectrogram, spectrogram.backend_for):
            with pytest.raises(ValueError, match=rf"waveform of shape \[{', '.join(map(str, shape))}, 1000\] must be"):
                call(clips)
    assert spectrogram(clips.unsqueeze(-2)).shape == (*shape, 2, 12, 11)


@pytest.mark.filterwarnings("ignore::UserWarning:torchaudio", "ignore::DeprecationWarning")
@pytest.mark.parametrize("shape", [(), (3,), (3, 1), (2, 2), (2, 1, 3)], ids=str)
def test_one_channel_has_the_shapes_of_torchaudio(backend, shape):
    transforms = pytest.importorskip("torchaudio.transforms")
    clips = waveform(*shape)
    expected = transforms.MelSpectrogram(**NUMBERS)(clips).log1p()
    features = AudioSpectrogram(SpectrogramConfig(**NUMBERS), backend)(clips)
    assert expected.std() > 0.1
    torch.testing.assert_close(features, expected, atol=1e-3, rtol=0)


def test_gradients_go_through_any_shape(backend):
    spectrogram = ComplexSpectrogram(ComplexSpectrogramConfig(**NUMBERS), backend)
    clips = waveform(2, 3, 1).requires_grad_()
    flat = clips.detach().reshape(6, 1, 1_000).requires_grad_()
    spectrogram(clips).square().sum().backward()
    spectrogram(flat).square().sum().backward()
    assert flat.grad.abs().max() > 0
    torch.testing.assert_close(clips.grad.reshape(flat.shape), flat.grad)
