"""Features of one second of audio on one CPU thread, relative to a bare STFT, peers, and decoding.

`pytest bench/bench_features.py --benchmark-only`. The first baseline is `torch.stft`, the lower bound of a feature that
takes its spectrum from torch. Ratios are taken between interleaved calls, so that load on the machine affects both.
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
SECONDS = 60


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


def torchaudio_of(waveform):
    """Return a function that computes channel 0 alone."""
    transforms = pytest.importorskip("torchaudio.transforms")
    mel = transforms.MelSpectrogram(
        CONFIG.sample_rate, CONFIG.n_fft, hop_length=CONFIG.hop_length, n_mels=CONFIG.n_mels
    )

    def compute():
        return mel(waveform)[:, 0].log1p()

    return compute


def librosa_of(waveform):
    """Return a function that computes channel 0 alone."""
    librosa = pytest.importorskip("librosa")

    def compute():
        power = librosa.feature.melspectrogram(
            y=waveform[0, 0].numpy(),
            sr=CONFIG.sample_rate,
            n_fft=CONFIG.n_fft,
            hop_length=CONFIG.hop_length,
            n_mels=CONFIG.n_mels,
            htk=True,
            norm=None,
            pad_mode="reflect",
        )
        return torch.from_numpy(np.log1p(power))[None]

    return compute


def reassigned_of(waveform):
    """Return a function that computes frequency and magnitude of single bins."""
    librosa = pytest.importorskip("librosa")

    def compute():
        frequencies, _, magnitudes = librosa.reassigned_spectrogram(
            waveform[0, 0].numpy(),
            sr=CONFIG.sample_rate,
            n_fft=CONFIG.n_fft,
            hop_length=CONFIG.hop_length,
            reassign_times=False,
            pad_mode="reflect",
        )
        return frequencies, magnitudes

    return compute


def medians(*functions):
    """Return the median seconds of each function, called in turn."""
    taken = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, times in zip(functions, taken, strict=True):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in taken]


def report(benchmark, function, **baselines):
    """Measure `function` relative to each baseline, interleaved with only that one, and record the ratios."""
    for name, baseline in baselines.items():
        function()
        baseline()
        ours, theirs = medians(function, baseline)
        benchmark.extra_info[f"ratio_to_{name}"] = round(ours / theirs, 3)
    benchmark(function)


@pytest.mark.benchmark(group="features of 1 s, one thread")
def test_both_channels(benchmark, waveform, expected):
    """The Rust kernel on one clip, including the overhead of a call."""
    spectrogram = ComplexSpectrogram(CONFIG, "rust")
    features = spectrogram(waveform)[0]
    torch.testing.assert_close(features[0], expected, atol=1e-4, rtol=0)
    reference = ComplexSpectrogram(CONFIG, "reference")
    loud = expected.expm1() > 1e-2
    torch.testing.assert_close(features[1][loud], reference(waveform)[0, 1][loud], atol=1e-3, rtol=0)
    assert features[1].std() > 0.1
    report(
        benchmark,
        lambda: spectrogram(waveform),
        stft=stft_of(waveform),
        torchaudio_magnitude=torchaudio_of(waveform),
        librosa_magnitude=librosa_of(waveform),
        the_reference=lambda: reference(waveform),
    )


@pytest.mark.filterwarnings("ignore:'where' used without 'out':UserWarning")  # inside librosa
@pytest.mark.benchmark(group="features of 1 s, one thread")
def test_both_channels_relative_to_reassignment(benchmark, waveform):
    spectrogram = ComplexSpectrogram(CONFIG, "rust")
    reassigned = reassigned_of(waveform)
    frequencies, magnitudes = reassigned()
    bins = frequencies.shape[0]
    bands = ComplexSpectrogram(CONFIG).to_hertz(spectrogram(waveform))[0].numpy()
    # The frequency of a band is the energy-weighted mean of its bins' frequencies.
    filters = pytest.importorskip("torchaudio.functional").melscale_fbanks(
        bins, 0.0, CONFIG.sample_rate / 2, CONFIG.n_mels, CONFIG.sample_rate, None, "htk"
    )
    weights, energy = filters.double().numpy().T, np.nan_to_num(magnitudes).astype(np.float64) ** 2
    means = weights @ (np.nan_to_num(frequencies) * energy) / (weights @ energy).clip(1e-30)
    inner = np.s_[40:120, 4:-4]
    assert np.abs(bands[inner] - means[inner]).max() < 1.0
    report(benchmark, lambda: spectrogram(waveform), librosa_reassigned_spectrogram=reassigned)


@pytest.mark.benchmark(group="features of 1 s, one thread")
def test_magnitude_alone(benchmark, waveform, expected):
    spectrogram = AudioSpectrogram(backend="rust")
    torch.testing.assert_close(spectrogram(waveform)[0, 0], expected, atol=1e-4, rtol=0)
    report(benchmark, lambda: spectrogram(waveform), stft=stft_of(waveform))


@pytest.mark.benchmark(group="features of 1 s, one thread")
@pytest.mark.parametrize("peer", [stft_of, torchaudio_of, librosa_of], ids=["stft", "torchaudio", "librosa"])
def test_peer(benchmark, waveform, expected, peer):
    compute = peer(waveform)
    if peer is not stft_of:
        torch.testing.assert_close(compute()[0], expected, atol=1e-4, rtol=0)
    report(benchmark, compute, stft=stft_of(waveform))


@pytest.mark.benchmark(group="features of 60 clips of 1 s")
def test_two_threads(benchmark, waveform):
    clips = waveform.expand(SECONDS, -1, -1).contiguous()
    spectrogram = ComplexSpectrogram(CONFIG, "rust")

    def with_threads(count):
        def compute():
            torch.set_num_threads(count)
            return spectrogram(clips)

        return compute

    one, two = with_threads(1), with_threads(2)
    expected = one()
    assert expected[:, 1].std() > 0.1
    assert torch.equal(two(), expected)
    first, second = medians(one, two)
    benchmark.extra_info["times_faster_than_one_thread"] = round(first / second, 2)
    benchmark(two)


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
    report(benchmark, decode, stft=stft_of(waveform))


@pytest.mark.benchmark(group="before the features, 1 s")
def test_resample(benchmark, waveform):
    soxr = pytest.importorskip("soxr")
    tone = np.sin(2 * np.pi * 1_000 * np.arange(44_100) / 44_100).astype(np.float32)
    resampled = soxr.resample(tone, 44_100, CONFIG.sample_rate)
    exact = np.sin(2 * np.pi * 1_000 * np.arange(CONFIG.sample_rate) / CONFIG.sample_rate)
    # The resampler's filter reaches beyond the ends.
    np.testing.assert_allclose(resampled[1_000:-1_000], exact[1_000:-1_000], atol=1e-3)
    report(benchmark, lambda: soxr.resample(tone, 44_100, CONFIG.sample_rate), stft=stft_of(waveform))
