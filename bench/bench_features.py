"""Features of one second of audio on one CPU thread, beside a bare STFT, peers, and the decoding that goes before.

`pytest bench/bench_features.py --benchmark-only`. The baseline is `torch.stft`: less than that cannot be done by a
feature that needs a spectrum. Ratios are taken between interleaved calls, so that a busy machine moves both sides.
"""

import io
import statistics
import time

import numpy as np
import pytest
import torch

from distill.audio import AudioSpectrogram, ComplexSpectrogram, ComplexSpectrogramConfig

CONFIG = ComplexSpectrogramConfig()
ROUNDS = 100


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def waveform():
    return 0.1 * torch.randn(1, 1, CONFIG.sample_rate, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def expected(waveform):
    """Channel 0 by the definition in float64, (M, T), through numpy's FFT."""
    filters = pytest.importorskip("torchaudio.functional").melscale_fbanks(
        CONFIG.n_fft // 2 + 1, 0.0, CONFIG.sample_rate / 2, CONFIG.n_mels, CONFIG.sample_rate, None, "htk"
    )
    padded = np.pad(waveform[0, 0].double().numpy(), CONFIG.n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, CONFIG.n_fft)[:: CONFIG.hop_length]
    window = torch.hann_window(CONFIG.n_fft, dtype=torch.float64).numpy()
    return torch.tensor(np.log1p(np.abs(np.fft.rfft(frames * window)) ** 2 @ filters.double().numpy())).T.float()


def stft_of(waveform):
    window = torch.hann_window(CONFIG.n_fft)
    return lambda: torch.stft(waveform[:, 0], CONFIG.n_fft, CONFIG.hop_length, window=window, return_complex=True)


def medians(*functions):
    """Median seconds of each function, called in turn."""
    taken = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, times in zip(functions, taken, strict=True):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in taken]


def report(benchmark, function, waveform):
    """Measure `function` against the bare STFT, interleaved, and record the ratio."""
    function()
    ours, baseline = medians(function, stft_of(waveform))
    benchmark.extra_info["ratio_to_stft"] = round(ours / baseline, 2)
    benchmark(function)


@pytest.mark.benchmark(group="features of 1 s, one thread")
def test_stft(benchmark, waveform):
    report(benchmark, stft_of(waveform), waveform)


@pytest.mark.benchmark(group="features of 1 s, one thread")
def test_complex_spectrogram(benchmark, waveform, expected):
    spectrogram = ComplexSpectrogram(CONFIG)
    features = spectrogram(waveform)[0]
    torch.testing.assert_close(features[0], expected, atol=1e-4, rtol=0)
    assert features[1].std() > 0.1
    report(benchmark, lambda: spectrogram(waveform), waveform)


@pytest.mark.benchmark(group="features of 1 s, one thread")
def test_audio_spectrogram(benchmark, waveform, expected):
    spectrogram = AudioSpectrogram()
    torch.testing.assert_close(spectrogram(waveform)[0, 0], expected, atol=1e-4, rtol=0)
    report(benchmark, lambda: spectrogram(waveform), waveform)


@pytest.mark.benchmark(group="features of 1 s, one thread")
def test_torchaudio(benchmark, waveform, expected):
    transforms = pytest.importorskip("torchaudio.transforms")
    mel = transforms.MelSpectrogram(
        CONFIG.sample_rate, CONFIG.n_fft, hop_length=CONFIG.hop_length, n_mels=CONFIG.n_mels
    )
    torch.testing.assert_close(mel(waveform)[0, 0].log1p(), expected, atol=1e-4, rtol=0)
    report(benchmark, lambda: mel(waveform).log1p(), waveform)


@pytest.mark.benchmark(group="features of 1 s, one thread")
def test_librosa(benchmark, waveform, expected):
    librosa = pytest.importorskip("librosa")
    signal = waveform[0, 0].numpy()

    def compute():
        power = librosa.feature.melspectrogram(
            y=signal,
            sr=CONFIG.sample_rate,
            n_fft=CONFIG.n_fft,
            hop_length=CONFIG.hop_length,
            n_mels=CONFIG.n_mels,
            htk=True,
            norm=None,
            pad_mode="reflect",
        )
        return np.log1p(power)

    torch.testing.assert_close(torch.tensor(compute()), expected, atol=1e-4, rtol=0)
    report(benchmark, compute, waveform)


@pytest.mark.benchmark(group="before the features, 1 s")
def test_decode_flac(benchmark, waveform):
    soundfile = pytest.importorskip("soundfile")
    signal = waveform[0, 0].numpy()
    file = io.BytesIO()
    soundfile.write(file, signal, CONFIG.sample_rate, format="FLAC", subtype="PCM_16")

    def decode():
        file.seek(0)
        return soundfile.read(file, dtype="float32")[0]

    np.testing.assert_allclose(decode(), signal, atol=1 / 32_768)
    report(benchmark, decode, waveform)


@pytest.mark.benchmark(group="before the features, 1 s")
def test_resample(benchmark, waveform):
    soxr = pytest.importorskip("soxr")
    tone = np.sin(2 * np.pi * 1_000 * np.arange(44_100) / 44_100).astype(np.float32)
    resampled = soxr.resample(tone, 44_100, CONFIG.sample_rate)
    exact = np.sin(2 * np.pi * 1_000 * np.arange(CONFIG.sample_rate) / CONFIG.sample_rate)
    # The ends lack what lies beyond them.
    np.testing.assert_allclose(resampled[1_000:-1_000], exact[1_000:-1_000], atol=1e-3)
    report(benchmark, lambda: soxr.resample(tone, 44_100, CONFIG.sample_rate), waveform)
