"""The Rust kernel: the Triton kernel's cases, and what is a CPU's own."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from definition import LOUD, assert_within_gates, make_signal
from distill.audio import AudioSpectrogram, ComplexSpectrogram, ComplexSpectrogramConfig, SpectrogramConfig
from distill.errors import BackendError
from parity import Parity


class TestRust(Parity):
    @pytest.fixture
    def computed(self, rust):
        return rust


def waveforms(clips, samples=48_000):
    return torch.tensor(np.stack([make_signal(samples, seed=seed) for seed in range(clips)])[:, None]).float()


@pytest.fixture
def threads():
    """Sets torch's number of threads, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("n_fft", [4, 6, 50, 400, 1000, 1536, 4410])
def test_frames_that_are_no_power_of_two(rust, n_fft):
    feature = {"sample_rate": 16_000, "n_fft": n_fft, "hop_length": max(1, n_fft // 3), "n_mels": max(1, n_fft // 32)}
    config = SimpleNamespace(**feature, f_min=0.0, f_max=None, if_masking_threshold=1e-5)
    waveform = np.stack([make_signal(2 * n_fft + 200, rate=16_000, seed=seed) for seed in range(2)]).astype(np.float32)
    expected, powers = assert_within_gates(rust(waveform, feature), waveform, config)
    assert (powers > LOUD).any()
    assert expected[:, 0].std() > 1e-3


@pytest.mark.parametrize("n_fft", [16_384, 65_536])
def test_frames_longer_than_a_cache(n_fft):
    config = ComplexSpectrogramConfig(n_fft=n_fft, hop_length=n_fft // 4, n_mels=64)
    waveform = waveforms(1, 2 * n_fft)
    actual = ComplexSpectrogram(config, "rust")(waveform)
    expected = ComplexSpectrogram(config, "reference")(waveform.double())
    assert expected[:, 1].std() > 0.1
    torch.testing.assert_close(actual[:, 0], expected[:, 0].float(), atol=1e-4, rtol=0)
    loud = expected[:, 0].expm1() > LOUD
    torch.testing.assert_close(actual[:, 1][loud], expected[:, 1][loud].float(), atol=1e-3, rtol=0)


def test_magnitude_alone_is_the_same_channel():
    waveform = waveforms(3)
    both = ComplexSpectrogram(backend="rust")(waveform)
    alone = AudioSpectrogram(backend="rust")(waveform)
    assert both[:, 0].std() > 0.5
    assert torch.equal(alone, both[:, :1])


def test_threads_change_no_bit(threads):
    spectrogram = ComplexSpectrogram(backend="rust")
    waveform = waveforms(7)
    threads(1)
    expected = torch.cat([spectrogram(clip[None]) for clip in waveform])
    assert expected[:, 1].std() > 0.1
    for count in (1, 2, 3, 16):
        threads(count)
        assert torch.equal(spectrogram(waveform), expected)


def test_others_go_on_while_it_computes():
    """Rust holds no lock of Python's: otherwise nothing would be counted between the start and the end."""
    waveform = waveforms(64)
    spectrogram = ComplexSpectrogram(backend="rust")
    started, counted, interval = threading.Event(), 0, sys.getswitchinterval()

    def work():
        started.set()
        for _ in range(5):
            spectrogram(waveform)

    thread = threading.Thread(target=work)
    # Whoever waits for the lock asks for it so seldom that only its release lets him on.
    sys.setswitchinterval(10)
    try:
        thread.start()
        started.wait()
        while thread.is_alive():
            counted += 1
            thread.join(0.001)
    finally:
        sys.setswitchinterval(interval)
    assert counted >= 5


def _features(waveform):
    return ComplexSpectrogram(backend="rust")(torch.from_numpy(waveform)).numpy()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_computes_too(threads):
    """No pool of threads that a fork would lack: data loaders fork."""
    waveform = waveforms(8)
    threads(2)
    expected = _features(waveform.numpy())
    with multiprocessing.get_context("fork").Pool(1) as pool:
        actual = pool.apply_async(_features, (waveform.numpy(),)).get(60)
    assert expected.std() > 0.1
    np.testing.assert_array_equal(actual, expected)


def test_where_a_gradient_is_wanted_the_reference_computes():
    waveform = waveforms(1, 4_000).requires_grad_()
    spectrogram = ComplexSpectrogram()
    assert spectrogram.backend_for(waveform) == "reference"
    assert spectrogram.backend_for(waveform.detach()) == "rust"
    assert torch.equal(spectrogram(waveform), ComplexSpectrogram(backend="reference")(waveform))
    assert not torch.equal(spectrogram(waveform.detach()), spectrogram(waveform))


@pytest.mark.parametrize("kind", [ComplexSpectrogram, AudioSpectrogram])
def test_asked_for_it_gives_the_gradient_of_the_reference(kind):
    slopes = []
    for backend in ("rust", "reference"):
        waveform = waveforms(1, 4_000).requires_grad_()
        kind(backend=backend)(waveform).sum().backward()
        slopes.append(waveform.grad)
    assert slopes[0].any()
    assert torch.equal(*slopes)


@pytest.mark.parametrize("kind", [ComplexSpectrogram, AudioSpectrogram])
def test_what_it_cannot_is_refused_with_what_to_do(kind):
    with pytest.raises(BackendError, match=r"'rust' cannot compute this: a waveform of torch.float64.*'auto'"):
        kind(backend="rust")(waveforms(1).double())
    with FakeTensorMode(), pytest.raises(BackendError, match="waveform is on 'cuda' and must be on 'cpu'"):
        ComplexSpectrogram(backend="rust").backend_for(torch.empty((1, 1, 4_800), device="cuda"))


def test_float64_is_computed_in_float64(caplog):
    waveform = waveforms(1, 4_000).double()
    assert ComplexSpectrogram().backend_for(waveform) == "reference"
    assert ComplexSpectrogram()(waveform).dtype == torch.float64
    assert not caplog.records


def test_without_the_extension_the_reference_computes_and_says_so(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "distill._native", None)
    monkeypatch.delattr("distill._native", raising=False)
    waveform = waveforms(1, 4_000)
    spectrogram = AudioSpectrogram(SpectrogramConfig(n_mels=31))
    expected = AudioSpectrogram(SpectrogramConfig(n_mels=31), "reference")(waveform)
    assert torch.equal(spectrogram(waveform), expected)
    assert torch.equal(spectrogram(waveform), expected)
    assert caplog.text.count("the rust kernel cannot be used, features are computed by the slower reference") == 1
    with pytest.raises(BackendError, match="the extension cannot be imported"):
        AudioSpectrogram(backend="rust")(waveform)
