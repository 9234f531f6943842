"""Derivatives, compilation and export of features with options."""

from __future__ import annotations

import io

import pytest
import torch

from definition import make_signal
from distill.audio import ComplexSpectrogram, ComplexSpectrogramConfig

# torch compiles its own forward-mode formulas with it, once a process.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.torch.jit.script. is (deprecated|not supported):{kind}")
    for kind in ("DeprecationWarning", "FutureWarning")
]

SMALL = {"sample_rate": 8_000, "n_fft": 64, "hop_length": 24, "n_mels": 6}
OPTIONS = {
    "norm and scale": {"norm": "slaney", "mel_scale": "slaney"},
    "magnitude": {"power": 1},
    "magnitude in db": {"power": 1, "compression": "db"},
    "short window": {"win_length": 40},
    "short window, not centred": {"win_length": 41, "center": False, "compression": "log"},
    "n_fft=50": {"n_fft": 50, "compression": "log10", "center": False},
    "all": {"n_fft": 70, "win_length": 60, "power": 1, "center": False, "compression": "none", "norm": "slaney"},
}


@pytest.fixture(params=OPTIONS.values(), ids=OPTIONS)
def module(request):
    return ComplexSpectrogram(ComplexSpectrogramConfig(**(SMALL | request.param)))


def waveform(samples=150, rows=1):
    return torch.tensor(make_signal(samples * rows, rate=8_000)).reshape(rows, samples)


def test_gradients_equal_finite_differences(module):
    assert torch.autograd.gradcheck(module, (waveform().requires_grad_(),))


def test_forward_mode_and_vmap(module):
    signal, direction, step = waveform(), waveform(150).flip(1), 1e-6
    expected = (module(signal + step * direction) - module(signal - step * direction)) / (2 * step)
    assert expected.abs().max() > 0.05
    _, derivative = torch.func.jvp(module, (signal,), (direction,))
    torch.testing.assert_close(derivative, expected, rtol=1e-4, atol=1e-4)
    signals = waveform(rows=3)
    torch.testing.assert_close(torch.func.vmap(module)(signals), module(signals))


@pytest.mark.parametrize("kind", ["silence", "half silent"])
def test_gradients_of_silence_are_finite(module, kind):
    signal = waveform(400).float()
    signal[:, : 400 if kind == "silence" else 200] = 0
    signal.requires_grad_()
    module(signal).sum().backward()
    assert signal.grad.isfinite().all()
    assert bool(signal.grad.any()) == (kind != "silence")


@pytest.mark.parametrize(("name", "backend"), [("all", "auto"), ("all", "reference"), ("magnitude in db", "reference")])
def test_they_compile_to_one_graph(name, backend):
    module = ComplexSpectrogram(ComplexSpectrogramConfig(**(SMALL | OPTIONS[name])), backend)
    compiled = torch.compile(lambda x: module(x * 0.5) * 2, fullgraph=True, dynamic=False, backend="aot_eager")
    signal = waveform(400, rows=2).requires_grad_()
    expected, actual = module(signal * 0.5) * 2, compiled(signal)
    torch.testing.assert_close(actual, expected, atol=1e-8, rtol=1e-8)
    gradients = [torch.autograd.grad(features.sum(), signal)[0] for features in (actual, expected)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["all", "magnitude in db"])
def test_they_are_exported_for_any_size(name):
    module = ComplexSpectrogram(ComplexSpectrogramConfig(**(SMALL | OPTIONS[name])))
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("samples", min=100)}
    file = io.BytesIO()
    torch.export.save(torch.export.export(module, (waveform(400, 2).float(),), dynamic_shapes=(sizes,)), file)
    file.seek(0)
    program = torch.export.load(file)
    assert torch.ops.distill.complex_mel.default in {node.target for node in program.graph.nodes}
    signal = waveform(999, 5).float()
    assert torch.equal(program.module()(signal), module(signal))
