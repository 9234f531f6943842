"""The Rust kernel: the cases of all kernels, threads, and what it refuses."""

from __future__ import annotations

import multiprocessing
import sys
import threading

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from definition import LOUD, assert_within_gates, make_signal
from distill.audio import AudioSpectrogram, ComplexSpectrogram, ComplexSpectrogramConfig, SpectrogramConfig
from distill.errors import BackendError
from distill.features.mel import MelSpec
from parity import Parity


class TestRust(Parity):
    @pytest.fixture
    def computed(self, rust):
        return rust


def waveforms(clips, samples=48_000):
    return torch.tensor(np.stack([make_signal(samples, seed=seed) for seed in range(clips)])[:, None]).float()


@pytest.fixture
def threads():
    """Set torch's number of threads until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("n_fft", [4, 6, 50, 400, 1000, 1536, 4410])
def test_frame_lengths_need_not_be_powers_of_two(rust, n_fft):
    spec = MelSpec(16_000, n_fft, hop_length=max(1, n_fft // 3), n_mels=max(1, n_fft // 32))
    waveform = np.stack([make_signal(2 * n_fft + 200, rate=16_000, seed=seed) for seed in range(2)]).astype(np.float32)
    expected, powers = assert_within_gates(rust(waveform, spec), waveform, spec)
    assert (powers > LOUD).any()
    assert expected[:, 0].std() > 1e-3


@pytest.mark.parametrize("n_fft", [16_384, 65_536])
def test_frames_larger_than_a_cpu_cache(n_fft):
    config = ComplexSpectrogramConfig(n_fft=n_fft, hop_length=n_fft // 4, n_mels=64)
    waveform = waveforms(1, 2 * n_fft)
    actual = ComplexSpectrogram(config, "rust")(waveform)
    expected = ComplexSpectrogram(config, "reference")(waveform.double())
    assert expected[:, 1].std() > 0.1
    torch.testing.assert_close(actual[:, 0], expected[:, 0].float(), atol=1e-4, rtol=0)
    loud = expected[:, 0].expm1() > LOUD
    torch.testing.assert_close(actual[:, 1][loud], expected[:, 1][loud].float(), atol=1e-3, rtol=0)


def test_magnitude_alone_equals_channel_0():
    waveform = waveforms(3)
    both = ComplexSpectrogram(backend="rust")(waveform)
    alone = AudioSpectrogram(backend="rust")(waveform)
    assert both[:, 0].std() > 0.5
    assert torch.equal(alone, both[:, :1])


def test_the_number_of_threads_changes_no_bit(threads):
    spectrogram = ComplexSpectrogram(backend="rust")
    waveform = waveforms(7)
    threads(1)
    expected = torch.cat([spectrogram(clip[None]) for clip in waveform])
    assert expected[:, 1].std() > 0.1
    for count in (1, 2, 3, 16):
        threads(count)
        assert torch.equal(spectrogram(waveform), expected)


def test_it_releases_the_gil_while_it_computes():
    """The main thread counts meanwhile; with the GIL held, it could not."""
    waveform = waveforms(64)
    spectrogram = ComplexSpectrogram(backend="rust")
    started, counted, interval = threading.Event(), 0, sys.getswitchinterval()

    def work():
        started.set()
        for _ in range(5):
            spectrogram(waveform)

    thread = threading.Thread(target=work)
    # No forced switches: the main thread runs only if the GIL is released.
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
def test_it_computes_in_a_forked_process(threads):
    """As in a data loader's worker, which would lack the threads of a pool."""
    waveform = waveforms(8)
    threads(2)
    expected = _features(waveform.numpy())
    with multiprocessing.get_context("fork").Pool(1) as pool:
        actual = pool.apply_async(_features, (waveform.numpy(),)).get(60)
    assert expected.std() > 0.1
    np.testing.assert_array_equal(actual, expected)


def test_auto_chooses_the_reference_if_a_gradient_is_required():
    waveform = waveforms(1, 4_000).requires_grad_()
    spectrogram = ComplexSpectrogram()
    assert spectrogram.backend_for(waveform) == "reference"
    assert spectrogram.backend_for(waveform.detach()) == "rust"
    assert torch.equal(spectrogram(waveform), ComplexSpectrogram(backend="reference")(waveform))
    assert not torch.equal(spectrogram(waveform.detach()), spectrogram(waveform))


@pytest.mark.parametrize("kind", [ComplexSpectrogram, AudioSpectrogram])
def test_its_gradient_is_that_of_the_reference(kind):
    gradients = []
    for backend in ("rust", "reference"):
        waveform = waveforms(1, 4_000).requires_grad_()
        kind(backend=backend)(waveform).sum().backward()
        gradients.append(waveform.grad)
    assert gradients[0].any()
    assert torch.equal(*gradients)


# Torch 2.6 makes no tensor without values on a device that is not there.
@pytest.mark.needs("torch>=2.11")
@pytest.mark.parametrize("kind", [ComplexSpectrogram, AudioSpectrogram])
def test_what_it_cannot_compute_is_an_error_with_a_remedy(kind):
    with pytest.raises(BackendError, match=r"'rust' cannot compute this: a waveform of torch.float64.*'auto'"):
        kind(backend="rust")(waveforms(1).double())
    with FakeTensorMode(), pytest.raises(BackendError, match="waveform is on 'cuda' and must be on 'cpu'"):
        ComplexSpectrogram(backend="rust").backend_for(torch.empty((1, 1, 4_800), device="cuda"))


def test_float64_is_computed_in_float64(caplog):
    waveform = waveforms(1, 4_000).double()
    assert ComplexSpectrogram().backend_for(waveform) == "reference"
    assert ComplexSpectrogram()(waveform).dtype == torch.float64
    assert not caplog.records


def test_without_the_extension_the_reference_computes_and_the_reason_is_logged(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "distill._native", None)
    monkeypatch.delattr("distill._native", raising=False)
    waveform = waveforms(1, 4_000)
    spectrogram = AudioSpectrogram(SpectrogramConfig(n_mels=31))
    expected = AudioSpectrogram(SpectrogramConfig(n_mels=31), "reference")(waveform)
    assert torch.equal(spectrogram(waveform), expected)
    assert torch.equal(spectrogram(waveform), expected)
    assert caplog.text.count("the rust kernel cannot be used, features are computed by the slower reference") == 1
    with pytest.raises(BackendError, match="the extension cannot be imported"):
        AudioSpectrogram(SpectrogramConfig(n_mels=31), "rust")(waveform)
