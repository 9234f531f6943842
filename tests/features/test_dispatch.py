"""Modules compute directly where nothing looks on; whatever traces, watches or transforms a call sees the operator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from definition import make_signal
from distill.audio import AudioSpectrogram, ComplexSpectrogram, ComplexSpectrogramConfig

SMALL = ComplexSpectrogramConfig(sample_rate=8_000, n_fft=64, hop_length=16, n_mels=6)
OPERATOR = torch.ops.distill.complex_mel.default


class Watch(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(function)
        return function(*args, **(kwargs or {}))


class Subclass(torch.Tensor):
    pass


@pytest.fixture
def waveform():
    return torch.tensor(np.stack([make_signal(400, rate=8_000, seed=i) for i in range(2)]), dtype=torch.float32)[
        :, None
    ]


@pytest.fixture(params=[ComplexSpectrogram, AudioSpectrogram])
def spectrogram(request):
    return request.param(SMALL)


def test_a_dispatch_mode_sees_the_operator(spectrogram, waveform):
    expected = spectrogram(waveform)
    with Watch() as watch:
        actual = spectrogram(waveform)
    assert OPERATOR in watch.seen
    assert torch.equal(actual, expected)


def test_a_traced_graph_holds_the_operator(spectrogram, waveform):
    expected = spectrogram(waveform)
    graph = make_fx(spectrogram)(waveform)
    assert OPERATOR in {node.target for node in graph.graph.nodes}
    assert torch.equal(graph(waveform), expected)


@pytest.mark.filterwarnings("ignore")  # tracing is deprecated, and warns of conditions on shapes
def test_torchscript_traces_the_operator(spectrogram, waveform):
    traced = torch.jit.trace(spectrogram, waveform)
    assert "distill::complex_mel" in str(traced.inlined_graph)
    assert torch.equal(traced(0.5 * waveform), spectrogram(0.5 * waveform))


def test_subclasses_devices_and_gradients_go_through_the_operator(spectrogram, waveform):
    expected = spectrogram(waveform)
    assert torch.equal(spectrogram(waveform.as_subclass(Subclass)), expected)
    assert spectrogram(waveform.to("meta")).shape == expected.shape
    features = spectrogram(waveform.clone().requires_grad_())
    assert features.grad_fn is not None
    with torch.no_grad():
        assert not spectrogram(waveform.clone().requires_grad_()).requires_grad


def test_a_default_device_or_a_transform_of_something_else_changes_nothing(spectrogram, waveform):
    expected = spectrogram(waveform)
    with torch.device("meta"):
        assert torch.equal(spectrogram(waveform), expected)
    scale = torch.ones(3)
    scaled = torch.vmap(lambda factor: factor * spectrogram(waveform))(scale)
    assert torch.equal(scaled, expected.expand(3, *expected.shape))
    functional = torch.func.functionalize(lambda factor: factor * spectrogram(waveform))
    assert torch.equal(functional(torch.tensor(1.0)), expected)
    gradient = torch.func.grad(lambda factor: (factor * spectrogram(waveform)).sum())(torch.tensor(1.0))
    torch.testing.assert_close(gradient, expected.sum())


def test_inference_mode_is_that_of_the_call(spectrogram, waveform):
    expected = spectrogram(waveform)
    assert not expected.is_inference()
    with torch.inference_mode():
        actual = spectrogram(waveform)
    assert actual.is_inference()
    assert torch.equal(actual, expected)
