"""The features against a float64 definition, torchaudio and librosa, which share no code with them."""

import math
import threading
import warnings

import numpy as np
import pytest
import torch

from definition import LOUD, define, make_signal
from distill.audio import AudioSpectrogram, ComplexSpectrogram, ComplexSpectrogramConfig, SpectrogramConfig
from distill.errors import ConfigError
from distill.features import reference
from distill.features.mel import MelSpec, mel_bands
from distill.features.reference import complex_mel

# (dtype, atol, rtol). Channel 0: rounding of a float32 FFT through log1p, 9e-6 at worst. Channel 1, where the band's
# power is above LOUD: the ratio amplifies the same rounding. float64: different orders of summation.
MAGNITUDE = (torch.float32, 1e-4, 0.0)
FREQUENCY = (torch.float32, 1e-3, 0.0)
MAGNITUDE_64 = (torch.float64, 1e-10, 0.0)
FREQUENCY_64 = (torch.float64, 1e-7, 0.0)
# torchaudio's and librosa's filterbanks are rounded to float32, which moves weights by 1e-5.
PEER = (torch.float32, 1e-4, 0.0)


def compute(signal, config, dtype=torch.float32):
    return ComplexSpectrogram(config)(torch.tensor(signal, dtype=dtype)[None, None])[0]


def assert_close(actual, expected, tolerance):
    dtype, atol, rtol = tolerance
    assert actual.dtype == dtype
    torch.testing.assert_close(actual, torch.as_tensor(expected).to(dtype), atol=atol, rtol=rtol)


CONFIGS = {
    "defaults": {},
    "n_fft=512": {"n_fft": 512, "hop_length": 128, "n_mels": 64},
    "n_fft=4096": {"n_fft": 4096, "hop_length": 1024},
    "hop=300": {"hop_length": 300},
    "hop=n_fft": {"n_fft": 1024, "hop_length": 1024, "n_mels": 40},
    "16 mels": {"n_mels": 16},
    "80 mels at 16 kHz": {"n_mels": 80, "sample_rate": 16_000, "n_fft": 512, "hop_length": 160},
    "256 mels": {"n_mels": 256},
    "bands without bins": {"n_fft": 256, "hop_length": 64, "n_mels": 100},
    "100 Hz to 8 kHz": {"f_min": 100.0, "f_max": 8_000.0},
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def config(request):
    return ComplexSpectrogramConfig(**request.param)


@pytest.mark.parametrize("kind", ["noise", "tonal", "mixed"])
def test_float32_is_within_the_gates_of_the_definition(config, kind):
    signal = make_signal(24_001, kind, config.sample_rate)
    expected, powers = define(signal, config)
    actual = compute(signal, config)
    assert actual.shape == expected.shape
    assert_close(actual[0], expected[0], MAGNITUDE)
    loud, audible = powers > LOUD, powers > 2 * config.if_masking_threshold
    assert loud.mean() > 0.1
    assert expected[1][loud].std() > 0.05
    assert_close(actual[1][torch.tensor(loud)], expected[1][loud], FREQUENCY)
    assert np.abs(actual[1].numpy() - expected[1])[audible].mean() <= 1e-4


def test_float64_equals_the_definition(config):
    signal = make_signal(24_001, rate=config.sample_rate)
    expected, powers = define(signal, config)
    actual = compute(signal, config, torch.float64)
    audible = powers > 2 * config.if_masking_threshold
    assert_close(actual[0], expected[0], MAGNITUDE_64)
    assert_close(actual[1][torch.tensor(audible)], expected[1][audible], FREQUENCY_64)


@pytest.mark.parametrize("samples", [1025, 1536, 12_345, 47_999, 100_003])
def test_lengths_around_frames_and_tiles(samples):
    signal = make_signal(samples)
    expected, powers = define(signal, ComplexSpectrogramConfig())
    actual = compute(signal, ComplexSpectrogramConfig())
    assert actual.shape == (2, 128, samples // 512 + 1)
    assert_close(actual[0], expected[0], MAGNITUDE)
    assert_close(actual[1][torch.tensor(powers > LOUD)], expected[1][powers > LOUD], FREQUENCY)


@pytest.mark.needs("torchaudio")
@pytest.mark.filterwarnings("ignore::UserWarning:torchaudio", "ignore::DeprecationWarning")
@pytest.mark.parametrize("options", [{}, {"n_mels": 80, "f_min": 50.0, "f_max": 16_000.0}], ids=["defaults", "80 mels"])
def test_magnitude_equals_torchaudio(options):
    from torchaudio import transforms

    config = SpectrogramConfig(**options)
    waveform = torch.tensor(make_signal(48_000, "noise"), dtype=torch.float32)[None, None]
    peer = transforms.MelSpectrogram(
        config.sample_rate,
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        f_min=config.f_min,
        f_max=config.f_max,
        n_mels=config.n_mels,
        mel_scale="htk",
        norm=None,
    )
    expected = torch.log1p(peer(waveform))
    assert expected.std() > 0.1
    assert_close(AudioSpectrogram(config)(waveform), expected, PEER)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_magnitude_equals_librosa():
    librosa = pytest.importorskip("librosa")
    signal = make_signal(48_000, "noise").astype(np.float32)
    power = librosa.feature.melspectrogram(
        y=signal, sr=48_000, n_fft=2048, hop_length=512, n_mels=128, htk=True, norm=None, power=2, pad_mode="reflect"
    )
    assert_close(compute(signal, ComplexSpectrogramConfig())[0], np.log1p(power), PEER)


@pytest.fixture(scope="module")
def librosa_bins():
    """A signal with reassigned frequency (in bins) and power of every bin, from librosa's two windows."""
    librosa = pytest.importorskip("librosa")
    signal = make_signal(24_000)
    with warnings.catch_warnings():
        # librosa passes `where` to numpy without `out`.
        warnings.filterwarnings("ignore", message="'where' used without 'out'")
        frequency, _, magnitude = librosa.reassigned_spectrogram(
            signal, sr=48_000, n_fft=2048, hop_length=512, reassign_times=False, pad_mode="reflect", clip=False
        )
    return signal, frequency * 2048 / 48_000, magnitude**2


def reassigned_bins(signal, *, n_fft, hop_length):
    """Compute power and reassigned frequency of bins 1 to n_fft/2 - 1, (K - 2, T) each, by the reference."""
    (frames,) = reference._frames(torch.tensor(signal)[None], n_fft, hop_length)
    table = reference._bin_table(frames, with_frequency=True) / 16
    power, shift = (table[:, ::2] + table[:, 1::2]).unflatten(0, (2, -1)).numpy()
    return power, np.arange(1, n_fft // 2)[:, None] + shift / np.where(power > 0, power, np.inf)


def test_reassigned_bins_equal_librosa(librosa_bins):
    signal, frequency, expected_power = librosa_bins
    power, actual = reassigned_bins(signal, n_fft=2048, hop_length=512)
    loud = expected_power[1:-1] > LOUD
    assert loud.mean() > 0.5
    np.testing.assert_allclose(power, expected_power[1:-1], rtol=1e-6, atol=1e-9)
    distance = np.abs(actual - frequency[1:-1])[loud]
    # librosa differentiates the window by finite differences, with an error of 2e-6 that weak bins amplify.
    assert distance.max() < 1e-3
    assert np.abs(actual - np.arange(1, 1024)[:, None])[loud].mean() > 0.1


def test_channel_1_is_the_band_mean_of_librosas_bins(librosa_bins):
    librosa = pytest.importorskip("librosa")
    signal, frequency, power = librosa_bins
    bank = librosa.filters.mel(sr=48_000, n_fft=2048, n_mels=128, htk=True, norm=None, dtype=np.float64)
    mean = (bank @ (np.nan_to_num(frequency) * power)) / (bank @ power)
    features = compute(signal, ComplexSpectrogramConfig(), torch.float64)
    bins = ComplexSpectrogram().to_hertz(features[None])[0].numpy() * 2048 / 48_000
    inside = (bank @ power > LOUD) & (np.abs(features[1].numpy()) < 2)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(bins[inside], mean[inside], atol=1e-3)


@pytest.mark.parametrize("frequency", [60.0, 110.3, 440.0, 1_000.7, 4_321.0, 12_345.6, 18_000.0, 23_000.0])
def test_channel_1_of_a_sine_is_its_frequency(frequency):
    time = torch.arange(24_000, dtype=torch.float64) / 48_000
    spectrogram = ComplexSpectrogram()
    features = spectrogram((0.5 * torch.sin(2 * math.pi * frequency * time)).float()[None, None])
    # Frames at an edge hold the reflection, whose phase has a jump.
    inner = slice(3, -3)
    hertz = spectrogram.to_hertz(features)[0, :, inner]
    loudest = features[0, 0, :, inner].argmax(dim=0)
    read = hertz.gather(0, loudest[None])[0]
    assert (read - frequency).abs().max() < 0.5


def test_shift_by_hops_moves_frames():
    signal = make_signal(24_000 + 4 * 512)
    whole = compute(signal, ComplexSpectrogramConfig())
    late = compute(signal[4 * 512 :], ComplexSpectrogramConfig())
    # Frames that see no edge in either; equal up to the FFT's order of work.
    assert_close(late[0, :, 3:-3], whole[0, :, 7:-3], (torch.float32, 1e-5, 0.0))
    loud = whole[0, :, 7:-3] > LOUD
    assert_close(late[1, :, 3:-3][loud], whole[1, :, 7:-3][loud], FREQUENCY)


def test_gain_moves_magnitude_and_leaves_frequency():
    signal = make_signal(24_000)
    full, half = (compute(gain * signal, ComplexSpectrogramConfig(), torch.float64) for gain in (1.0, 0.5))
    assert_close(half[0].expm1(), full[0].expm1() / 4, (torch.float64, 1e-9, 1e-9))
    loud = half[0].expm1() > LOUD
    assert_close(half[1][loud], full[1][loud], (torch.float64, 1e-9, 0.0))


def test_silence_is_zero_and_sound_is_not():
    waveform = torch.zeros(2, 1, 24_000)
    waveform[1, 0] = torch.tensor(make_signal(24_000, "noise"))
    features = ComplexSpectrogram()(waveform)
    assert torch.equal(features[0], torch.zeros_like(features[0]))
    assert (features[1, 0] > 1e-3).all()
    assert (features[1, 1] != 0).all()


def test_mask_follows_the_threshold():
    signal = make_signal(24_000)
    _, powers = define(signal, ComplexSpectrogramConfig())
    threshold = float(np.quantile(powers, 0.5))
    features = compute(signal, ComplexSpectrogramConfig(if_masking_threshold=threshold))
    clear = np.abs(powers / threshold - 1) > 1e-3
    np.testing.assert_array_equal((features[1] != 0).numpy()[clear], (powers > threshold)[clear])


def test_channel_1_is_clamped_at_both_limits():
    signal = 0.5 * np.sin(2 * np.pi * 3_010 * np.arange(12_000) / 48_000)
    config = ComplexSpectrogramConfig(n_mels=256)
    expected, powers = define(signal, config)
    actual = compute(signal, config)[1].numpy()
    clamped = (np.abs(expected[1]) == 2) & (powers > LOUD)
    # Bands next to the sine hold its leakage, whose frequency lies far outside them.
    assert (expected[1][clamped] > 0).any()
    assert (expected[1][clamped] < 0).any()
    np.testing.assert_array_equal(actual[clamped], expected[1][clamped])
    assert np.abs(actual).max() == 2


def test_bands_without_bins_are_zero_and_finite():
    config = ComplexSpectrogramConfig(n_fft=256, hop_length=64, n_mels=100)
    empty = mel_bands(MelSpec.of(config)).width == 0
    assert 0 < empty.sum() < 100
    features = compute(make_signal(4_000, "noise"), config)
    assert (features[:, empty] == 0).all()
    assert (features[0, ~empty] > 0).all()
    # The frequency of a masked band is its centre, here the peak of its triangle.
    peaks = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 24_000 / 700), 102)[1:-1] / 2595) - 1)
    hertz = ComplexSpectrogram(config).to_hertz(features[None])[0].numpy()
    assert np.isfinite(hertz).all()
    np.testing.assert_allclose(hertz[empty], np.broadcast_to(peaks[empty, None], hertz[empty].shape), rtol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")], ids=["nan", "inf"])
@pytest.mark.parametrize("tracked", [False, True], ids=["plain", "with gradient"])
def test_broken_row_does_not_affect_others(bad, tracked):
    clean = torch.tensor(np.stack([make_signal(12_000, seed=i) for i in range(3)])[:, None], dtype=torch.float32)
    broken = clean.clone()
    broken[1, 0, 6_000] = bad
    expected = ComplexSpectrogram()(clean.requires_grad_(tracked)).detach()
    features = ComplexSpectrogram()(broken.requires_grad_(tracked)).detach()
    assert torch.equal(features[[0, 2]], expected[[0, 2]])
    assert not features[1, 0].isfinite().all()
    # Frames whose window ends before the broken sample.
    before = (6_000 - 1024) // 512
    assert torch.equal(features[1, :, :, :before], expected[1, :, :, :before])


@pytest.mark.parametrize("samples", [12_000, 100_003])
def test_batch_equals_single(samples):
    batch = torch.tensor(np.stack([make_signal(samples, seed=i) for i in range(3)])[:, None], dtype=torch.float32)
    spectrogram = ComplexSpectrogram()
    assert torch.equal(spectrogram(batch), torch.cat([spectrogram(row[None]) for row in batch]))
    assert spectrogram(batch[:0]).shape == (0, 2, 128, samples // 512 + 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(dtype):
    waveform = torch.tensor(make_signal(12_000))[None, None].to(dtype)
    assert torch.equal(ComplexSpectrogram()(waveform), ComplexSpectrogram()(waveform.float()))


def test_autocast_does_not_reduce_precision():
    waveform = torch.tensor(make_signal(12_000), dtype=torch.float32)[None, None]
    expected = ComplexSpectrogram()(waveform)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ComplexSpectrogram()(waveform), expected)


def test_one_channel_is_channel_0_of_two():
    waveform = torch.tensor(make_signal(24_000), dtype=torch.float32)[None, None]
    magnitude = AudioSpectrogram()(waveform)
    assert magnitude.shape == (1, 1, 128, 47)
    assert_close(magnitude[:, 0], ComplexSpectrogram()(waveform)[:, 0], (torch.float32, 1e-6, 0.0))


def test_dense_bands_equal_bags(monkeypatch):
    signal = make_signal(24_000)
    expected = compute(signal, ComplexSpectrogramConfig())
    monkeypatch.setattr(reference, "_BAG_DEVICES", ())
    actual = compute(signal, ComplexSpectrogramConfig())
    assert_close(actual[0], expected[0], (torch.float32, 1e-5, 0.0))
    loud = expected[0] > LOUD
    assert_close(actual[1][loud], expected[1][loud], FREQUENCY)


def test_gradcheck():
    waveform = torch.tensor(make_signal(150, rate=8_000)[None], requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: complex_mel(w, MelSpec(8_000, 64, 16, 6)), (waveform,))


@pytest.mark.parametrize("kind", ["silence", "half silent", "sound"])
def test_gradients_are_finite(kind):
    waveform = torch.tensor(make_signal(12_000), dtype=torch.float32)[None, None]
    waveform[..., : {"silence": 12_000, "half silent": 6_000, "sound": 0}[kind]] = 0
    waveform.requires_grad_()
    features = ComplexSpectrogram()(waveform)
    features.sum().backward()
    assert waveform.grad.isfinite().all()
    assert bool(waveform.grad.any()) == (kind != "silence")


def test_concurrent_threads_agree():
    batch = torch.tensor(np.stack([make_signal(12_000, seed=i) for i in range(8)])[:, None], dtype=torch.float32)
    spectrogram = ComplexSpectrogram()
    expected = spectrogram(batch)
    reference.band_tables.cache_clear()
    results = [None] * 8

    def work(i):
        results[i] = spectrogram(batch[i : i + 1])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(torch.cat(results), expected)


def test_tables_made_in_inference_mode_work_with_gradients():
    reference.band_tables.cache_clear()
    waveform = torch.tensor(make_signal(12_000), dtype=torch.float32)[None, None]
    with torch.inference_mode():
        ComplexSpectrogram()(waveform)
    waveform.requires_grad_()
    ComplexSpectrogram()(waveform).sum().backward()
    assert waveform.grad.any()


@pytest.mark.parametrize("module", [ComplexSpectrogram, AudioSpectrogram])
def test_faults_of_the_waveform_are_reported(module):
    with pytest.raises(ValueError, match=r"waveform of shape \[\] must be \["):
        module()(torch.zeros(()))
    with pytest.raises(ValueError, match=r"1024 samples .* n_fft/2 = 1024"):
        module()(torch.zeros(1, 1, 1024))
    with pytest.raises(ValueError, match=r"torch\.int16"):
        module()(torch.zeros(1, 1, 4800, dtype=torch.int16))


def test_to_hertz_rejects_other_shapes():
    with pytest.raises(ValueError, match=r"\[1, 2, 64, 5\] must be \[..., 2, n_mels=128, frames\]"):
        ComplexSpectrogram().to_hertz(torch.zeros(1, 2, 64, 5))


def test_module_has_no_state():
    spectrogram = ComplexSpectrogram().half()
    assert not spectrogram.state_dict()
    waveform = torch.tensor(make_signal(12_000), dtype=torch.float32)[None, None]
    assert torch.equal(spectrogram(waveform), ComplexSpectrogram()(waveform))


def test_a_configuration_of_the_other_module_is_refused_or_means_its_first_channel():
    waveform = torch.tensor(make_signal(8_000, rate=48_000, seed=1), dtype=torch.float32)[None, None]
    with pytest.raises(ConfigError, match="SpectrogramConfig, of one channel"):
        ComplexSpectrogram(SpectrogramConfig())
    both = ComplexSpectrogram()(waveform)
    torch.testing.assert_close(AudioSpectrogram(ComplexSpectrogramConfig())(waveform), both[:, :1])


def test_arrays_are_named():
    for module in (ComplexSpectrogram(), AudioSpectrogram()):
        with pytest.raises(TypeError, match=r"waveform must be a torch\.Tensor, not ndarray"):
            module(np.zeros((1, 1, 8_000), np.float32))
