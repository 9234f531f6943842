"""Each option of the feature against librosa and torchaudio, in each backend."""

from __future__ import annotations

import logging
import math
from dataclasses import fields
from functools import partial

import librosa
import numpy as np
import pytest
import torch

from definition import LOUD, make_signal
from distill.audio import AudioSpectrogram, ComplexSpectrogram, ComplexSpectrogramConfig, SpectrogramConfig
from distill.errors import BackendError
from distill.features.mel import MelSpec

RATE = 16_000
SMALL = {"sample_rate": RATE, "n_fft": 512, "hop_length": 160, "n_mels": 24}
OPTIONS = {
    "slaney scale": {"mel_scale": "slaney"},
    "slaney norm": {"norm": "slaney"},
    "slaney scale and norm": {"mel_scale": "slaney", "norm": "slaney", "f_min": 50.0, "f_max": 7_000.0},
    "not centred": {"center": False},
    "magnitude": {"power": 1},
    "log": {"compression": "log"},
    "log10 with a floor": {"compression": "log10", "floor": 0.3},
    "db": {"compression": "db"},
    "db of a magnitude": {"compression": "db", "power": 1, "floor": 1e-5},
    "no compression": {"compression": "none"},
    "n_fft=400": {"n_fft": 400},
    "n_fft=502": {"n_fft": 502},
    "win_length=400": {"win_length": 400},
    "win_length=301": {"win_length": 301},
    "win_length=n_fft": {"win_length": 512},
}


def drawn(count):
    """Configurations with several options at once."""
    random = np.random.default_rng(0)
    for _ in range(count):
        n_fft = int(random.choice([256, 320, 400, 512, 1_000, 1_024]))
        yield {
            "n_fft": n_fft,
            "hop_length": int(random.integers(60, n_fft // 2)),
            "n_mels": int(random.integers(8, 24)),
            "mel_scale": str(random.choice(["htk", "slaney"])),
            "norm": [None, "slaney"][random.integers(2)],
            "win_length": [None, None, int(random.integers(200, 256))][random.integers(3)],
            "center": bool(random.integers(2)),
            "power": int(random.integers(1, 3)),
            "compression": str(random.choice(["log1p", "log", "log10", "db", "none"])),
            "floor": float(10.0 ** -random.integers(1, 10)),
        }


CASES = OPTIONS | {f"drawn {number}": options for number, options in enumerate(drawn(12))}
COMPRESSIONS = {
    "log1p": lambda sums, config: np.log1p(sums),
    "log": lambda sums, config: np.log(np.maximum(sums, config.floor)),
    "log10": lambda sums, config: np.log10(np.maximum(sums, config.floor)),
    "db": lambda sums, config: (librosa.power_to_db if config.power == 2 else librosa.amplitude_to_db)(
        sums, ref=1.0, amin=config.floor, top_db=None
    ),
    "none": lambda sums, config: sums,
}


def defined(signal, config):
    """Compute both channels and the band power in float64, with librosa's frames, windows and bands."""
    length, n_fft = config.win_length or config.n_fft, config.n_fft
    stft = partial(
        librosa.stft,
        signal,
        n_fft=n_fft,
        hop_length=config.hop_length,
        win_length=length,
        center=config.center,
        pad_mode="reflect",
        dtype=np.complex128,
    )
    spectrum = stft(window="hann")
    slope = stft(window=math.pi / length * np.sin(2 * math.pi * np.arange(length) / length))
    numbers = {"sr": config.sample_rate, "n_fft": n_fft, "n_mels": config.n_mels, "fmin": config.f_min}
    numbers |= {"fmax": config.f_max, "htk": config.mel_scale == "htk", "dtype": np.float64}
    bank, triangles = (librosa.filters.mel(**numbers, norm=norm) for norm in (config.norm, None))
    magnitude = COMPRESSIONS[config.compression](bank @ np.abs(spectrum) ** config.power, config)

    bins, power = np.arange(n_fft // 2 + 1), np.abs(spectrum) ** 2
    band = bank @ power
    centre = triangles @ bins / triangles.sum(axis=1)
    used = triangles > 1e-5
    half = (used.shape[1] - used[:, ::-1].argmax(axis=1) - used.argmax(axis=1) + 1) / 2
    half = np.maximum(half, n_fft / (2 * config.hop_length))
    moment = bank @ (bins[:, None] * power - (slope * spectrum.conj()).imag * n_fft / (2 * math.pi))
    audible = band > config.if_masking_threshold
    frequency = np.divide(moment, band, out=np.broadcast_to(centre[:, None], band.shape).copy(), where=audible)
    offset = np.clip((frequency - centre[:, None]) / half[:, None], -2, 2)
    return np.stack([magnitude, offset]), band


@pytest.fixture(params=CASES.values(), ids=CASES)
def config(request):
    return ComplexSpectrogramConfig(**(SMALL | request.param))


def signal_for(config, samples=4_000):
    """Noise with a chirp, after silence, so that there are values at the floor and masked ones."""
    signal = make_signal(samples, "noise", config.sample_rate) + make_signal(samples, "tonal", config.sample_rate)
    signal[: samples // 3] = 0
    return signal


def assert_equals_the_definition(features, signal, config, atol, frequency_atol):
    expected, band = defined(signal, config)
    assert features.shape == expected.shape == config.row_shape(len(signal))
    scale = {"none": np.abs(expected[0]).max(), "db": 10.0}.get(config.compression, 1.0)
    # Between silence and sound there are bands of hardly any power, whose logarithm follows every rounding error.
    sure = (band > LOUD) | (band == 0) | (config.compression in ("log1p", "none"))
    assert sure.mean() > 0.8
    np.testing.assert_allclose(features[0][sure], expected[0][sure], rtol=0, atol=atol * scale)
    assert expected[0].std() > 0.05 * scale
    loud = band > LOUD
    assert loud.mean() > 0.1
    assert expected[1][loud].std() > 0.05
    np.testing.assert_allclose(features[1][loud], expected[1][loud], rtol=0, atol=frequency_atol)
    assert (band == 0).any()
    assert (features[1][band == 0] == 0).all()


def without_frequency(config):
    return SpectrogramConfig(**{field.name: getattr(config, field.name) for field in fields(SpectrogramConfig)})


def test_the_reference_equals_librosa_in_float64(config):
    signal = signal_for(config)
    features = ComplexSpectrogram(config, "reference")(torch.tensor(signal))
    assert_equals_the_definition(features.numpy(), signal, config, 1e-9, 1e-9)
    alone = AudioSpectrogram(without_frequency(config), "reference")(torch.tensor(signal))
    torch.testing.assert_close(alone, features[0], rtol=0, atol=1e-9)


def kernel_fault(config):
    """Why the Rust kernel does not compute a feature."""
    return f"win_length={config.win_length}" if config.win_length not in (None, config.n_fft) else None


def test_rust_equals_librosa(config):
    signal = signal_for(config).astype(np.float32)
    waveform = torch.tensor(signal)[None]
    spectrogram = ComplexSpectrogram(config, "rust")
    if fault := kernel_fault(config):
        with pytest.raises(BackendError, match=f"backend 'rust' cannot compute this: {fault}"):
            spectrogram(waveform)
        assert ComplexSpectrogram(config).backend_for(waveform) == "reference"
        spectrogram = ComplexSpectrogram(config)
    features = spectrogram(waveform.repeat(2, 1))
    assert_equals_the_definition(features[1].numpy(), signal.astype(np.float64), config, 1e-4, 1e-3)
    alone = AudioSpectrogram(without_frequency(config), spectrogram.backend)(waveform)
    torch.testing.assert_close(alone, features[:1, 0], rtol=1e-6, atol=1e-6)


TRITON = ["slaney scale", "slaney norm", "log10 with a floor", "db", "no compression", "win_length=n_fft"]


@pytest.mark.parametrize("options", [OPTIONS[name] for name in TRITON], ids=TRITON)
def test_triton_equals_librosa(interpreted, options):
    config = ComplexSpectrogramConfig(**(SMALL | options))
    signal = signal_for(config, 2_000).astype(np.float32)
    (features,) = interpreted(signal[None], MelSpec.of(config), through_operator=True)
    assert_equals_the_definition(features, signal.astype(np.float64), config, 1e-4, 1e-3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"center": False}, "center=False, while the kernel's frames are centred"),
        ({"power": 1}, "power=1, while the kernel adds up powers"),
        ({"win_length": 400}, "win_length=400, while the kernel's window is as long as the frame"),
    ],
    ids=["center", "power", "win_length"],
)
def test_what_the_triton_kernel_lacks_is_said(options, reason):
    spectrogram = ComplexSpectrogram(ComplexSpectrogramConfig(**(SMALL | options)), "fused")
    with pytest.raises(BackendError, match=f"backend 'fused' cannot compute this: {reason}; choose 'auto'"):
        spectrogram(torch.zeros(1, 4_000))


def test_a_kernel_that_cannot_is_replaced_and_the_reason_is_logged_once(caplog):
    spectrogram = ComplexSpectrogram(ComplexSpectrogramConfig(**SMALL, win_length=399))
    with caplog.at_level(logging.WARNING, "distill"):
        for _ in range(2):
            assert spectrogram(torch.ones(4_000)).any()
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "win_length=399, while the kernel's window is as long as the frame"
    ]


@pytest.mark.filterwarnings("ignore::UserWarning:torchaudio", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mel_scale": "slaney"},
        {"norm": "slaney"},
        {"mel_scale": "slaney", "norm": "slaney"},
        {"center": False},
        {"power": 1},
        {"win_length": 301},
        {"n_fft": 400},
        {"n_fft": 400, "win_length": 320, "center": False, "power": 1, "norm": "slaney"},
    ],
    ids=str,
)
def test_sums_equal_torchaudio(options):
    transforms = pytest.importorskip("torchaudio.transforms")
    numbers = SMALL | options
    waveform = torch.tensor(make_signal(4_000, "noise", RATE)).expand(2, 3, -1)
    expected = transforms.MelSpectrogram(**numbers).double()(waveform)
    actual = AudioSpectrogram(SpectrogramConfig(**numbers, compression="none"))(waveform)
    assert expected.std() > 0.01 * expected.max()
    # torchaudio computes its bands in float32.
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.max()))


@pytest.mark.filterwarnings("ignore::UserWarning:torchaudio", "ignore::DeprecationWarning")
@pytest.mark.parametrize("power", [1, 2])
def test_decibels_equal_torchaudio(power):
    transforms = pytest.importorskip("torchaudio.transforms")
    sums = AudioSpectrogram(SpectrogramConfig(**SMALL, power=power, compression="none"))
    decibels = AudioSpectrogram(SpectrogramConfig(**SMALL, power=power, compression="db"))
    waveform = torch.tensor(signal_for(sums.config))
    to_db = transforms.AmplitudeToDB("power" if power == 2 else "magnitude")
    torch.testing.assert_close(decibels(waveform), to_db(sums(waveform)))


def test_channel_1_does_not_depend_on_options_of_channel_0():
    waveform = torch.tensor(make_signal(4_000, rate=RATE))
    features = [
        ComplexSpectrogram(ComplexSpectrogramConfig(**SMALL, **options))(waveform)
        for options in ({}, {"norm": "slaney"}, {"power": 1, "compression": "db"})
    ]
    for other in features[1:]:
        assert (other[0] - features[0][0]).abs().min() > 1e-4
        torch.testing.assert_close(other[1], features[0][1])


@pytest.mark.parametrize("options", [{"norm": "slaney"}, {"norm": "slaney", "power": 1, "compression": "db"}], ids=str)
def test_the_threshold_is_that_of_the_bands_power_with_its_weights(options):
    config = ComplexSpectrogramConfig(**SMALL, **options)
    signal = make_signal(4_000, rate=RATE)
    _, band = defined(signal, config)
    threshold = float(np.quantile(band, 0.5))
    features = ComplexSpectrogram(ComplexSpectrogramConfig(**SMALL, **options, if_masking_threshold=threshold))(
        torch.tensor(signal)
    )
    np.testing.assert_array_equal((features[1] != 0).numpy(), band > threshold)


@pytest.mark.parametrize("options", [{"n_fft": 400}, {"win_length": 300}, {"mel_scale": "slaney", "norm": "slaney"}])
@pytest.mark.parametrize("frequency", [440.0, 1_000.7, 4_321.0])
def test_channel_1_of_a_sine_is_its_frequency(options, frequency):
    spectrogram = ComplexSpectrogram(ComplexSpectrogramConfig(**(SMALL | options)))
    sine = torch.sin(2 * math.pi * frequency * torch.arange(8_000, dtype=torch.float64) / RATE)
    features = spectrogram(sine)[..., 3:-3]
    loudest = features[0].argmax(dim=0)
    assert (spectrogram.to_hertz(features).gather(0, loudest[None]) - frequency).abs().max() < 1.0


@pytest.mark.parametrize("center", [True, False])
def test_the_shortest_waveform_and_one_that_is_shorter(center):
    config = ComplexSpectrogramConfig(**SMALL, center=center)
    assert config.least_samples == (257 if center else 512)
    for backend in ("rust", "reference"):
        spectrogram = ComplexSpectrogram(config, backend)
        assert spectrogram(torch.ones(config.least_samples)).shape == (2, 24, 2 if center else 1)
        least = "longer than n_fft/2 = 256" if center else "at least n_fft = 512"
        with pytest.raises(ValueError, match=f"waveform of {config.least_samples - 1} samples must be {least}"):
            spectrogram(torch.ones(config.least_samples - 1))
    with pytest.raises(ValueError, match=rf"waveform of shape \[1, {config.least_samples - 1}\] must be"):
        torch.ops.distill.complex_mel(torch.ones(1, config.least_samples - 1), *MelSpec.of(config).arguments("auto"))
