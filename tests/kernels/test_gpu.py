"""The fused kernel on a GPU, against the reference in float64. Needs only torch, triton, numpy and pytest."""

import math

import pytest
import torch

pytest.importorskip("triton", "3.6")

from distill.config import ComplexSpectrogramConfig
from distill.features.mel import MelSpec, mel_bands
from distill.features.reference import complex_mel
from distill.features.spectrogram import ComplexSpectrogram
from distill.kernels import complex_mel as launch
from distill.kernels import make_plan

pytestmark = pytest.mark.gpu

LOUD = 1e-2
# (dtype, atol, rtol), and the mean error of channel 1: the gates for float32 of tests/features/test_spectrogram.py.
MAGNITUDE = (torch.float32, 1e-4, 0.0)
FREQUENCY = (torch.float32, 1e-3, 0.0)
MEAN = 1e-4

CONFIGS = {
    "defaults": {},
    "n_fft=512": {"n_fft": 512, "hop_length": 128, "n_mels": 64},
    "n_fft=1024": {"n_fft": 1024, "hop_length": 256, "n_mels": 80},
    "n_fft=4096": {"n_fft": 4096, "hop_length": 1024},
    "hop=300": {"hop_length": 300},
    "hop=n_fft": {"n_fft": 1024, "hop_length": 1024, "n_mels": 40},
    "16 kHz": {"sample_rate": 16_000, "n_fft": 512, "hop_length": 160, "n_mels": 80},
    "100 Hz to 8 kHz": {"f_min": 100.0, "f_max": 8_000.0},
}


def make_signal(kind, n_clips, n_samples, rate=48_000):
    """Return waveforms (B, S) on the GPU, float32, all rows different."""
    generator = torch.Generator("cuda").manual_seed(1)
    noise = torch.randn((n_clips, n_samples), device="cuda", generator=generator)
    if kind == "random":
        return 0.1 * noise
    time = torch.arange(n_samples, device="cuda", dtype=torch.float64) / rate
    first = torch.arange(n_clips, device="cuda", dtype=torch.float64)[:, None]
    tones = sum(0.2 * torch.sin(2 * math.pi * (1 + 0.1 * first) * f * time + f) for f in (110.0, 1_234.5, 5_432.1))
    return (tones + 0.3 * torch.sin(2 * math.pi * (100 * time + 2_000 * time**2))).float()


def define(waveform, config):
    """Compute the float64 reference (B, 2, M, T) on the device of the waveform."""
    return complex_mel(waveform.double(), MelSpec.of(config))


def fused(config):
    return ComplexSpectrogram(config, backend="fused")


def compute(waveform, config):
    """Compute fused features of a waveform (B, S) into memory filled with NaN, so that missing values are noticed."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(1, device="cuda").isnan().all()
        return fused(config)(waveform[:, None])
    finally:
        torch.use_deterministic_algorithms(False)


def assert_within_gates(actual, expected, threshold=1e-5):
    dtype, atol, rtol = MAGNITUDE
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual[:, 0].double(), expected[:, 0], atol=atol, rtol=rtol)
    power = expected[:, 0].expm1()
    loud, audible = power > LOUD, power > 2 * threshold
    assert loud.float().mean() > 0.1
    assert expected[:, 1][loud].std() > 0.05
    torch.testing.assert_close(actual[:, 1][loud].double(), expected[:, 1][loud], atol=FREQUENCY[1], rtol=0.0)
    assert (actual[:, 1] - expected[:, 1]).abs()[audible].mean() <= MEAN


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("kind", ["random", "tonal"])
def test_float32_is_within_the_gates(options, kind):
    config = ComplexSpectrogramConfig(**options)
    waveform = make_signal(kind, 8, 48_123, config.sample_rate)
    assert_within_gates(compute(waveform, config), define(waveform, config))


@pytest.mark.parametrize("n_samples", [1_025, 1_536, 2_047, 12_345, 100_003])
def test_lengths_around_edges_and_tiles(n_samples):
    config = ComplexSpectrogramConfig()
    waveform = make_signal("random", 3, n_samples)
    assert_within_gates(compute(waveform, config), define(waveform, config))


def test_a_single_frame():
    config = ComplexSpectrogramConfig(hop_length=2048)
    waveform = make_signal("random", 2, 1_500)
    features = compute(waveform, config)
    assert features.shape == (2, 2, 128, 1)
    assert_within_gates(features, define(waveform, config))


def test_a_large_batch():
    config = ComplexSpectrogramConfig()
    waveform = make_signal("random", 512, 48_000)
    features = compute(waveform, config)
    assert features.isfinite().all()
    for rows in (slice(0, 8), slice(-8, None)):
        assert_within_gates(features[rows], define(waveform[rows], config))


def test_results_are_deterministic_bit_for_bit():
    waveform = make_signal("tonal", 64, 48_000)[:, None]
    spectrogram = fused(ComplexSpectrogramConfig())
    expected = spectrogram(waveform)
    for _ in range(10):
        assert torch.equal(spectrogram(waveform), expected)
    assert torch.equal(spectrogram(waveform[5:6]), expected[5:6])


def test_a_row_of_a_thousand_million_samples():
    """Samples and results beyond 32-bit indices; takes 20 GB of the device's memory."""
    config = ComplexSpectrogramConfig(hop_length=256)
    n_samples = 1_073_700_001
    waveform = torch.empty((3, n_samples), device="cuda", dtype=torch.float16).normal_(std=0.1)
    features = fused(config)(waveform[:, None])
    assert waveform.numel() > 2**31
    assert features.numel() > 2**31
    # A slice that starts at a multiple of the hop has the frames of the row, except near its own ends.
    last = n_samples // config.hop_length
    for row in (0, 2):
        for frame in (0, last // 2, last - 200):
            start = frame * config.hop_length
            end = min(start + 200 * config.hop_length + config.n_fft, n_samples)
            expected = define(waveform[row : row + 1, start:end], config)
            actual = features[row : row + 1, :, :, frame : frame + expected.shape[-1]]
            inner = slice(8 if start else 0, None if end == n_samples else -8)
            assert_within_gates(actual[..., inner], expected[..., inner])


def test_it_runs_on_the_current_stream():
    config = ComplexSpectrogramConfig()
    source = make_signal("random", 4, 48_000)
    expected = fused(config)(source[:, None])
    waveform = torch.zeros_like(source)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        # A kernel on another stream would read the zeros, long before they are overwritten.
        torch.cuda._sleep(100_000_000)
        waveform.copy_(source)
        features = fused(config)(waveform[:, None])
    side.synchronize()
    assert torch.equal(features, expected)


def test_a_cuda_graph_replays_it():
    spectrogram = fused(ComplexSpectrogramConfig())
    first, second = make_signal("random", 4, 48_000)[:, None], make_signal("tonal", 4, 48_000)[:, None]
    expected = spectrogram(first), spectrogram(second)
    waveform = torch.zeros_like(first)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        features = spectrogram(waveform)
    for signal, result in zip((first, second), expected, strict=True):
        waveform.copy_(signal)
        graph.replay()
        assert torch.equal(features, result)


def test_a_call_does_not_synchronize_with_the_device():
    spectrogram = fused(ComplexSpectrogramConfig())
    waveform = make_signal("random", 4, 48_000)[:, None]
    spectrogram(waveform)
    torch.cuda.set_sync_debug_mode("error")
    try:
        spectrogram(waveform)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_modules_on_a_gpu_use_it_automatically():
    config = ComplexSpectrogramConfig()
    waveform = make_signal("tonal", 4, 48_000)
    spectrogram = ComplexSpectrogram(config)
    assert spectrogram.backend_for(waveform[:, None]) == "fused"
    plan = make_plan(mel_bands(MelSpec.of(config)), n_fft=2048)
    expected = launch(waveform, plan, hop_length=512, threshold=config.if_masking_threshold)
    assert torch.equal(spectrogram(waveform[:, None]), expected)
    reference = ComplexSpectrogram(config, backend="reference")(waveform[:, None])
    assert not torch.equal(reference, expected)
    assert_within_gates(reference, define(waveform, config))


def test_the_gradient_is_that_of_the_reference():
    config = ComplexSpectrogramConfig()
    waveform = make_signal("random", 2, 24_000)[:, None].requires_grad_()
    weights = torch.randn((2, 2, 128, 47), device="cuda")
    (actual,) = torch.autograd.grad((fused(config)(waveform) * weights).sum(), waveform)
    (expected,) = torch.autograd.grad((define(waveform[:, 0], config) * weights).sum(), waveform)
    assert expected.abs().max() > 0
    # Gradients of channel 1, and their rounding errors, grow with 1/power: compared with the largest gradient.
    assert (actual - expected).abs().max() <= 1e-3 * expected.abs().max()


@pytest.mark.filterwarnings("ignore")  # warnings of the compiler
def test_the_operator_passes_opcheck():
    waveform = make_signal("random", 2, 12_000)
    arguments = (*MelSpec(48_000, 2048, 512, 128), "fused")
    ComplexSpectrogram()
    torch.library.opcheck(torch.ops.distill.complex_mel.default, (waveform, *arguments))
    # Without test_aot_dispatch for gradients: in float32, the two backward passes differ by rounding.
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(
        torch.ops.distill.complex_mel.default, (waveform.requires_grad_(), *arguments), test_utils=tests
    )


@pytest.mark.filterwarnings("ignore")  # warnings of the compiler
def test_compiled_to_one_graph_it_gives_the_same():
    spectrogram = fused(ComplexSpectrogramConfig())
    waveform = make_signal("tonal", 4, 48_000)[:, None]
    compiled = torch.compile(lambda x: 2 * spectrogram(0.5 * x), fullgraph=True)
    torch.testing.assert_close(compiled(waveform), 2 * spectrogram(0.5 * waveform), atol=0.0, rtol=0.0)


@pytest.mark.filterwarnings("ignore")  # warnings of the compiler
def test_compiled_to_cuda_graphs_it_gives_the_same_from_the_first_call():
    # A feature that no other test uses, so that its tables are made while the compiler's memory pool is in use.
    spectrogram = fused(ComplexSpectrogramConfig(n_mels=120))
    waveform = make_signal("tonal", 4, 48_000)[:, None]
    compiled = torch.compile(lambda x: 2 * spectrogram(0.5 * x), fullgraph=True, mode="reduce-overhead")
    for _ in range(4):  # warms up, records, replays
        actual = compiled(waveform).clone()
    torch.testing.assert_close(actual, 2 * spectrogram(0.5 * waveform), atol=0.0, rtol=0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(dtype):
    waveform = make_signal("random", 4, 48_000).to(dtype)
    assert_within_gates(compute(waveform, ComplexSpectrogramConfig()), define(waveform, ComplexSpectrogramConfig()))


def test_autocast_does_not_reduce_precision():
    waveform = make_signal("random", 4, 48_000)[:, None]
    spectrogram = fused(ComplexSpectrogramConfig())
    with torch.autocast("cuda", dtype=torch.bfloat16):
        actual = spectrogram(waveform)
    assert torch.equal(actual, spectrogram(waveform))


VIEWS = {
    "every other sample": lambda x: x[:, ::2],
    "columns": lambda x: x.T.contiguous().T,
    "not aligned": lambda x: x[:, 1:],
    "every other row": lambda x: x[::2],
    "one row for all": lambda x: x[:1].expand(4, -1),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_waveforms_may_be_views(view):
    waveform = view(make_signal("random", 4, 48_001))
    assert_within_gates(compute(waveform, ComplexSpectrogramConfig()), define(waveform, ComplexSpectrogramConfig()))


def test_a_broken_row_does_not_affect_others():
    waveform = make_signal("random", 3, 48_000)
    spectrogram = fused(ComplexSpectrogramConfig())
    expected = spectrogram(waveform[:, None])
    waveform[1, 20_000] = float("nan")
    features = spectrogram(waveform[:, None])
    assert torch.equal(features[[0, 2]], expected[[0, 2]])
    assert not features[1, 0].isfinite().all()


@pytest.mark.parametrize("index", range(max(1, torch.cuda.device_count())))
def test_the_device_need_not_be_the_current_one(index):
    config = ComplexSpectrogramConfig()
    waveform = make_signal("random", 2, 24_000)
    with torch.cuda.device(0):
        features = fused(config)(waveform[:, None].to(f"cuda:{index}"))
    assert features.device.index == index
    assert_within_gates(features.to(waveform.device), define(waveform, config))
