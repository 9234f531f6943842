"""The operator without a GPU: compilation, export and gradients, and the choice of a backend."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from definition import assert_within_gates, make_signal
from distill.audio import ComplexSpectrogram, ComplexSpectrogramConfig
from distill.errors import BackendError, ConfigError
from distill.features import reference
from distill.features.mel import MelSpec

SPEC = MelSpec(8_000, 64, 16, 6)
SMALL = ComplexSpectrogramConfig(sample_rate=8_000, n_fft=64, hop_length=16, n_mels=6)
# Torch 2.6 neither compiles nor exports an FFT for batches of any size.
NEWER = pytest.mark.needs("torch>=2.11")


def complex_mel(waveform, *backend):
    # As programs that were exported by earlier versions call it: without the options of the feature.
    return torch.ops.distill.complex_mel(waveform, *SPEC[:7], *backend)


def signals(rows=3, samples=400, dtype=torch.float32):
    """Return waveforms (B, S)."""
    return torch.tensor(np.stack([make_signal(samples, rate=8_000, seed=i) for i in range(rows)]), dtype=dtype)


VIEWS = {
    "plain": lambda x: x,
    "float64": lambda x: x.double(),
    "float16": lambda x: x.half(),
    "columns": lambda x: x.T.contiguous().T,
    "every other sample": lambda x: x[:, ::2],
    "one row for all": lambda x: x[:1].expand(3, -1),
    "no row": lambda x: x[:0],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
@pytest.mark.parametrize("tracked", [False, pytest.param(True, marks=NEWER)], ids=["plain", "with gradient"])
# opcheck of torch 2.15 looks at it itself.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_opcheck(view, tracked):
    waveform = view(signals()).detach().requires_grad_(tracked)
    found = torch.library.opcheck(torch.ops.distill.complex_mel.default, (waveform, *SPEC.arguments("auto")))
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_it_computes_the_definition(view, backend):
    waveform = view(signals())
    actual = complex_mel(waveform, backend)
    assert actual.is_contiguous()
    assert actual.shape == (len(waveform), 2, 6, waveform.shape[1] // 16 + 1)
    if len(waveform):
        assert_within_gates(actual.float().numpy(), waveform.double().numpy(), SMALL)


def test_gradients_equal_finite_differences():
    waveform = signals(2, 70, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(complex_mel, (waveform,))


def test_a_second_derivative_is_an_error_and_not_zero():
    waveform = signals(1, 150).requires_grad_()
    (gradient,) = torch.autograd.grad(complex_mel(waveform).sum(), waveform, create_graph=True)
    with pytest.raises(NotImplementedError, match="embedding_bag"):
        gradient.sum().backward()


def test_gradients_of_half_precision_have_that_type():
    waveform = signals(dtype=torch.float16).requires_grad_()
    complex_mel(waveform).sum().backward()
    expected = waveform.detach().float().requires_grad_()
    complex_mel(expected).sum().backward()
    assert waveform.grad.dtype == torch.float16
    assert expected.grad.any()
    torch.testing.assert_close(waveform.grad, expected.grad.half(), atol=0.0, rtol=0.0)


def test_autocast_rounds_neither_features_nor_gradients():
    waveform = signals().requires_grad_()
    expected = complex_mel(waveform)
    (gradient,) = torch.autograd.grad(expected.sum(), waveform)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = complex_mel(waveform)
        (actual,) = torch.autograd.grad(features.sum(), waveform)
    assert torch.equal(features, expected)
    assert torch.equal(actual, gradient)


@pytest.mark.parametrize(
    ("backend", "dynamic"), [("auto", False), pytest.param("auto", True, marks=NEWER), ("reference", False)]
)
def test_it_compiles_to_one_graph_with_its_gradient(backend, dynamic):
    spectrogram = ComplexSpectrogram(SMALL, backend=backend)
    compiled = torch.compile(lambda x: spectrogram(x * 0.5) * 2, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for samples in (400, 555):
        waveform = signals(samples=samples)[:, None].requires_grad_()
        expected = spectrogram(waveform * 0.5) * 2
        (gradient,) = torch.autograd.grad(expected.sum(), waveform)
        actual = compiled(waveform)
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0.0)
        (found,) = torch.autograd.grad(actual.sum(), waveform)
        torch.testing.assert_close(found, gradient, atol=1e-4 * gradient.abs().max().item(), rtol=0.0)


@NEWER
def test_it_exports_for_any_size_and_loads_again():
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("samples", min=100)}
    waveform = signals()[:, None]
    file = io.BytesIO()
    torch.export.save(torch.export.export(ComplexSpectrogram(SMALL), (waveform,), dynamic_shapes=(sizes,)), file)
    file.seek(0)
    program = torch.export.load(file)
    assert torch.ops.distill.complex_mel.default in {node.target for node in program.graph.nodes}
    for other in (waveform, signals(5, 999)[:, None]):
        assert torch.equal(program.module()(other), ComplexSpectrogram(SMALL)(other))


LOAD = """
import sys, torch
import distill.features.ops
assert not {"soundfile", "soxr", "matplotlib", "triton", "tyro"} & set(sys.modules), sorted(sys.modules)
program = torch.export.load(sys.argv[1])
torch.save(program.module()(torch.load(sys.argv[2])), sys.argv[3])
"""


def test_an_exported_program_is_loaded_after_one_cheap_import(tmp_path):
    waveform, (program, given, result) = signals()[:, None], [tmp_path / name for name in ("a.pt2", "b.pt", "c.pt")]
    torch.export.save(torch.export.export(ComplexSpectrogram(SMALL), (waveform,)), program)
    torch.save(waveform, given)
    subprocess.run([sys.executable, "-c", LOAD, program, given, result], check=True)
    assert torch.equal(torch.load(result), ComplexSpectrogram(SMALL)(waveform))


def test_a_compiled_reference_takes_its_tables_as_constants():
    """Torch honours the private attribute that `reference` sets; otherwise the compiler would trace into numpy."""
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    spec, waveform = SPEC._replace(n_mels=7), signals()
    compiled = torch.compile(lambda x: reference.complex_mel(x, spec), fullgraph=True, backend=keep)
    torch.testing.assert_close(compiled(waveform), reference.complex_mel(waveform, spec), atol=1e-5, rtol=0.0)
    (graph,) = graphs
    constants = [getattr(graph, node.target) for node in graph.graph.nodes if node.op == "get_attr"]
    tables = reference.band_tables(spec, torch.float32, waveform.device)
    assert len(constants) == 3
    for table in (tables.rows, tables.offsets, tables.weights):
        assert any(torch.equal(constant, table) for constant in constants)


def test_the_tables_are_marked_as_torch_marks_constants():
    assert vars(reference._constant_tables) == vars(torch.compiler.assume_constant_result(lambda: None))


def test_vmap_of_the_operator_is_an_error():
    spec = MelSpec.of(SMALL)
    with pytest.raises(BackendError, match=r"vmap over distill::complex_mel.*\[batch, 1, samples\]"):
        torch.vmap(lambda waveform: torch.ops.distill.complex_mel(waveform, *spec.arguments("auto")))(
            signals()[:, None]
        )


def test_the_environment_replaces_auto_only(monkeypatch):
    waveform = signals()[:, None]
    monkeypatch.setenv("DISTILL_BACKEND", "fused")
    with pytest.raises(BackendError):
        ComplexSpectrogram(SMALL)(waveform)
    assert ComplexSpectrogram(SMALL, backend="reference").backend_for(waveform) == "reference"
    monkeypatch.setenv("DISTILL_BACKEND", "reference")
    assert ComplexSpectrogram(SMALL).backend_for(waveform) == "reference"
    with pytest.raises(BackendError):
        ComplexSpectrogram(SMALL, backend="fused")(waveform)
    monkeypatch.setenv("DISTILL_BACKEND", "")
    assert ComplexSpectrogram(SMALL).backend == "auto"


def test_unknown_backends_are_reported_with_the_choices(monkeypatch):
    with pytest.raises(ConfigError, match="backend='cuda' must be one of auto, fused, rust, reference"):
        ComplexSpectrogram(SMALL, backend="cuda")
    monkeypatch.setenv("DISTILL_BACKEND", "quick")
    with pytest.raises(ConfigError, match="DISTILL_BACKEND='quick' must be one of auto, fused, rust, reference"):
        ComplexSpectrogram(SMALL)


@pytest.mark.needs("triton>=3.6")
def test_fused_on_a_cpu_reports_the_reason_and_the_remedy():
    config = ComplexSpectrogramConfig()
    for call in (ComplexSpectrogram(config, "fused"), ComplexSpectrogram(config, "fused").backend_for):
        with pytest.raises(BackendError, match="waveform is on 'cpu' and must be on 'cuda'; choose 'auto'"):
            call(torch.zeros(1, 1, 4_800))


# Reasons that are known without a device.
CANNOT = {
    "type": ({}, 4_800, torch.float64, "a waveform of torch.float64"),
    "large n_fft": ({"n_fft": 65_536}, 48_000, torch.float32, "n_fft=65536 is none of"),
    "small n_fft": ({"n_fft": 32, "hop_length": 8, "n_mels": 4}, 4_800, torch.bfloat16, "n_fft=32 is none of"),
}


@pytest.mark.needs("triton>=3.6")
@pytest.mark.parametrize(("options", "samples", "dtype", "reason"), CANNOT.values(), ids=CANNOT.keys())
def test_the_reference_replaces_a_kernel_that_cannot_and_the_reason_is_logged_once(
    caplog, options, samples, dtype, reason
):
    config = ComplexSpectrogramConfig(**options)
    with FakeTensorMode():
        # On a GPU as far as the backend can see, but without values.
        waveform = torch.empty((2, 1, samples), device="cuda", dtype=dtype)
    with pytest.raises(BackendError, match=reason):
        ComplexSpectrogram(config, "fused").backend_for(waveform)
    with caplog.at_level(logging.WARNING, "distill"):
        assert ComplexSpectrogram(config).backend_for(waveform) == "reference"
        messages = [record.getMessage() for record in caplog.records]
        assert ComplexSpectrogram(config).backend_for(waveform) == "reference"
    assert len(messages) == 1
    assert reason in messages[0]
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("n_mels", "module", "reason"),
    [(61, None, "triton cannot be imported"), (62, "3.2.0", r"triton 3\.2\.0 is older than 3\.6")],
)
def test_without_a_recent_triton_the_kernel_is_unavailable(monkeypatch, n_mels, module, reason):
    if module is None:
        monkeypatch.setitem(sys.modules, "triton", None)
    else:
        monkeypatch.setattr("triton.__version__", module)
    # The result is cached for each configuration, so each case has a different one.
    config = ComplexSpectrogramConfig(n_mels=n_mels)
    assert ComplexSpectrogram(config)(torch.ones(1, 1, 4_800)).any()
    with pytest.raises(BackendError, match=reason):
        ComplexSpectrogram(config, "fused")(torch.ones(1, 1, 4_800))


@pytest.mark.needs("triton>=3.6")
def test_without_a_c_compiler_the_reference_computes_and_the_reason_is_logged(monkeypatch, caplog):
    class Driver:
        @property
        def active(self):
            raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr("triton.runtime.driver", Driver())
    monkeypatch.setattr("distill.features.backends.triton._capability_fault", lambda device: None)
    with FakeTensorMode():
        waveform = torch.empty((2, 1, 4_800), device="cuda")
    config = ComplexSpectrogramConfig(n_mels=63)
    with caplog.at_level(logging.WARNING, "distill"):
        assert ComplexSpectrogram(config).backend_for(waveform) == "reference"
    assert "triton cannot start (RuntimeError: Failed to find C compiler; install a C compiler" in caplog.text


@pytest.mark.needs("triton>=3.6")
def test_triton_creates_its_driver_on_first_access():
    """Names of Triton's that the backend uses and that are not documented."""
    import triton

    assert isinstance(type(triton.runtime.driver).active, property)
    assert not triton.knobs.runtime.interpret


@pytest.mark.parametrize("shape", [(2, 32), (2, 1, 400), (400,)], ids=str)
def test_the_operator_checks_the_shape_before_a_kernel_reads_outside_it(shape):
    with pytest.raises(ValueError, match=r"must be \[batch, samples\], samples above n_fft/2 = 32"):
        complex_mel(torch.zeros(shape))


LEAN = """
import sys, torch
from distill.audio import ComplexSpectrogram
assert ComplexSpectrogram()(torch.randn(1, 1, 4_800)).std() > 0.1
print(sorted({"triton", "torch._dynamo", "torch._inductor", "distill.kernels"} & sys.modules.keys()))
"""


def run(code, **env):
    """Return the lines that a new Python process prints."""
    folder = Path(__file__).parent.parent
    env = os.environ | {"PYTHONPATH": str(folder)} | env
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_computing_on_a_cpu_imports_neither_triton_nor_the_compiler():
    assert run(LEAN) == ["[]"]


INTERPRETED = """
import threading, numpy as np, torch
from definition import assert_within_gates, make_signal
from distill.audio import ComplexSpectrogram, ComplexSpectrogramConfig
from interpreted import replace_the_language_once

replace_the_language_once()
config = ComplexSpectrogramConfig(sample_rate=16_000, n_fft=512, hop_length=200, n_mels=40)
fused, reference = ComplexSpectrogram(config, "fused"), ComplexSpectrogram(config, "reference")
waveform = torch.tensor(np.stack([make_signal(1_501, rate=16_000, seed=i) for i in range(2)])[:, None])
single = waveform.float()
# Tables are cached, so these settings must not affect them.
with torch.inference_mode(), torch.device("meta"):
    assert fused.backend_for(single) == "fused"
assert ComplexSpectrogram(config).backend_for(single) == "rust"
expected = fused(single)
assert_within_gates(expected.numpy(), single[:, 0].numpy(), config)
print("features", not torch.equal(expected, reference(single)))

views = {
    "columns": single[:, 0].T.contiguous().T[:, None],
    "every other sample": single.repeat_interleave(2, dim=2)[:, :, ::2],
    "every other row": single.repeat_interleave(2, dim=0)[::2],
}
print("views", [torch.equal(fused(view), expected) for view in views.values()])
print("one row for all", torch.equal(fused(single[:1].expand(2, -1, -1))[1], expected[0]))
halves = [single.half(), single.bfloat16()]
print("halves", [torch.equal(fused(half), fused(half.float())) for half in halves])
with torch.autocast("cpu", dtype=torch.bfloat16):
    print("autocast", torch.equal(fused(single), expected))

gradients = []
for spectrogram in (fused, reference):
    tracked = single.clone().requires_grad_()
    spectrogram(tracked).square().sum().backward()
    gradients.append(tracked.grad)
print("gradient", ((gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()).item() < 1e-4)

compiled = torch.compile(lambda x: fused(x) + 1, fullgraph=True, backend="aot_eager")
print("compiled", torch.equal(compiled(single), expected + 1))

results = [None] * 2
def work(i):
    results[i] = fused(single[i : i + 1])
threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("threads", torch.equal(torch.cat(results), expected))
"""


@pytest.mark.needs("triton>=3.6")
def test_the_interpreted_kernel_computes_cpu_tensors():
    assert run(INTERPRETED, TRITON_INTERPRET="1") == [
        "features True",
        "views [True, True, True]",
        "one row for all True",
        "halves [True, True]",
        "autocast True",
        "gradient True",
        "compiled True",
        "threads True",
    ]
