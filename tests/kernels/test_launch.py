"""What the host does to launch the fused kernel, with a driver that does nothing: which code, arguments and stream."""

from __future__ import annotations

import ast
import dataclasses
import logging
import subprocess

import pytest
import torch

pytest.importorskip("triton", "3.6")

from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError

from distill.audio import AudioSpectrogram, ComplexSpectrogram, ComplexSpectrogramConfig, SpectrogramConfig
from distill.errors import BackendError, DeviceError
from distill.features import ops
from distill.features.backends import failures
from distill.features.backends import triton as backend
from distill.features.mel import MelSpec, mel_bands
from distill.kernels import complex_mel, make_plan
from no_gpu import no_gpu

FEATURE = {"sample_rate": 16_000, "n_fft": 512, "hop_length": 160, "n_mels": 40}
CONFIG = ComplexSpectrogramConfig(**FEATURE)


@pytest.fixture
def driver(monkeypatch):
    """The driver, and a backend that has tried and logged nothing yet and that "auto" tries for tensors of the CPU."""
    monkeypatch.setitem(ops._AUTO, "cpu", "fused")
    monkeypatch.setattr(backend, "_found", {})
    for cached in (backend._launcher, ops._warn_once):
        cached.cache_clear()
    with no_gpu() as driver:
        yield driver
    backend._launcher.cache_clear()


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


WAVEFORMS = {
    "aligned": lambda: noise(3, 4_000),
    "another length": lambda: noise(3, 4_001),
    "one row": lambda: noise(1, 4_000),
    "not aligned": lambda: noise(2, 4_001)[:, 1:],
    "rows with gaps": lambda: noise(2, 4_001)[:, :4_000],
    "float16": lambda: noise(2, 4_000).half(),
    "bfloat16, not aligned": lambda: noise(2, 4_001).bfloat16()[:, 1:],
    # Rows of memory that no test can have: the driver reads nothing.
    "a stride beyond 32 bits": lambda: torch.empty(1, 4_000).as_strided((1, 4_000), (2**31, 1)),
    "a stride of 1": lambda: noise(1, 4_000).as_strided((1, 4_000), (1, 1)),
    "one row for all": lambda: noise(1, 4_000).expand(2, -1),
}


def launch(waveform, plan, hop_length=160, **options):
    return complex_mel(waveform, plan, hop_length=hop_length, threshold=1e-5, **options)


def seen(call):
    """Return what reaches the GPU, without the new output."""
    waveform, _, *others = call.arguments
    return call.code, call.grid, waveform.data_ptr(), others


def test_code_that_is_kept_is_what_triton_chooses(driver):
    waveforms = [make() for make in WAVEFORMS.values()]
    plan = make_plan(mel_bands(MelSpec(**FEATURE)), n_fft=512)
    for waveform in waveforms:
        plan.compiled.clear()  # Triton chooses
        launch(waveform, plan)
    expected = [seen(call) for call in driver.launches]
    plan.compiled.clear()
    for _ in range(2):
        driver.launches.clear()
        for waveform in waveforms:
            features = launch(waveform, plan)
            assert features is driver.launches[-1].arguments[1]
        assert [seen(call) for call in driver.launches] == expected
    assert len({code for code, *_ in expected}) == len(plan.compiled) == 5
    # Other constants are other code.
    launch(waveforms[0], plan, log1p=False)
    launch(waveforms[0], plan, hop_length=128)
    assert len(set(driver.compiled)) == 7


def test_a_plan_of_other_options_keeps_its_own_code(driver):
    plan = make_plan(mel_bands(MelSpec(**FEATURE)), n_fft=512)
    other = dataclasses.replace(plan, options=plan.options | {"maxnreg": 96})
    for _ in range(2):
        for each in (plan, other):
            launch(noise(1, 4_000), each)
    first, second, *rest = [call.code for call in driver.launches]
    assert first != second
    assert rest == [first, second]


def test_each_launch_is_on_the_stream_of_its_moment(driver):
    spectrogram = ComplexSpectrogram(CONFIG, "fused")
    for stream in (0, 7, 7, 9):
        driver.stream = stream
        spectrogram(noise(2, 1, 4_000))
    assert [call.stream for call in driver.launches] == [0, 7, 7, 9]
    assert len(driver.compiled) == 1


COMPILATION = CompilationError(
    "def kernel():\n    tl.shuffle()\n", ast.Pass(lineno=2, col_offset=4), "no such function"
)
CUDA = "Triton Error [CUDA]: "
# What Triton raises before a kernel runs, what a message has to say about it, and the remedy.
ERRORS = {
    "loader": (RuntimeError(f"{CUDA}device kernel image is invalid"), "image is invalid", "update the driver"),
    "resources": (OutOfResources(300_000, 232_448, "shared memory"), "Required: 300000", "smaller n_fft"),
    "compilation": (COMPILATION, "CompilationError: no such function", "release of triton"),
    "assembler": (
        PTXASError("Internal Triton PTX codegen error\n`ptxas` stderr:\nno"),
        "stderr: no",
        "release of triton",
    ),
    "assertion": (AssertionError(), "AssertionError; ", "release of triton"),
    "unwritable cache": (
        PermissionError(13, "Permission denied", "/root/.triton"),
        "/root/.triton",
        "TRITON_CACHE_DIR",
    ),
    "full disk": (OSError(28, "No space left on device"), "No space left", "TRITON_CACHE_DIR"),
    "no compiler": (RuntimeError("Failed to find C compiler."), "find C compiler", "install a C compiler"),
    "compiler is gone": (FileNotFoundError(2, "No such file", "/usr/bin/gcc"), "gcc", "install a C compiler"),
    "no headers": (subprocess.CalledProcessError(1, ["gcc", "main.c"]), "status 1", "headers of Python"),
}


def raising(error):
    def call():
        raise error

    return call


@pytest.mark.parametrize("when", ["on_compile", "on_launch"])
@pytest.mark.parametrize(("error", "reason", "remedy"), ERRORS.values(), ids=ERRORS.keys())
def test_what_a_launch_raises_is_logged_once_and_the_reference_computes(driver, caplog, error, reason, remedy, when):
    waveform = noise(2, 1, 4_000)
    tried = []
    setattr(driver, when, lambda: (tried.append(when), raising(error)()))
    expected = ComplexSpectrogram(CONFIG, "reference")(waveform)
    spectrogram = ComplexSpectrogram(CONFIG)
    assert spectrogram.backend_for(waveform) == "fused"
    with caplog.at_level(logging.WARNING, "distill"):
        for _ in range(3):
            assert torch.equal(spectrogram(waveform), expected)
        # The same reason for another feature.
        AudioSpectrogram(SpectrogramConfig(**FEATURE))(waveform)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "features are computed by the slower reference" in message
    assert reason in message
    assert remedy in message
    assert "\n" not in message
    assert spectrogram.backend_for(waveform) == "reference"
    assert tried == [when] * 2


@pytest.mark.parametrize(("error", "reason", "remedy"), ERRORS.values(), ids=ERRORS.keys())
def test_a_requested_kernel_that_cannot_be_launched_is_an_error_with_a_remedy(driver, error, reason, remedy):
    driver.on_compile = raising(error)
    spectrogram = ComplexSpectrogram(CONFIG, "fused")
    for call in (spectrogram, spectrogram, spectrogram.backend_for):
        with pytest.raises(BackendError, match="backend 'fused' cannot compute this: ") as raised:
            call(noise(2, 1, 4_000))
        for part in (reason, remedy, "choose 'auto' or 'reference'"):
            assert part in str(raised.value)


PASSED_ON = {
    "Ctrl-C": KeyboardInterrupt(),
    "no room for the features": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "no memory": MemoryError(),
}


@pytest.mark.parametrize("requested", ["auto", "fused"])
@pytest.mark.parametrize("error", PASSED_ON.values(), ids=PASSED_ON.keys())
def test_errors_that_are_not_about_the_kernel_are_passed_on(driver, caplog, error, requested):
    driver.on_launch = raising(error)
    spectrogram = ComplexSpectrogram(CONFIG, requested)
    with pytest.raises(type(error)):
        spectrogram(noise(2, 1, 4_000))
    driver.on_launch = lambda: None
    spectrogram(noise(2, 1, 4_000))
    assert len(driver.launches) == 1
    assert not caplog.records


def test_a_kernel_that_found_no_memory_is_tried_again(driver, caplog):
    waveform = noise(2, 1, 4_000)
    driver.on_launch = raising(RuntimeError(f"{CUDA}out of memory"))
    spectrogram = ComplexSpectrogram(CONFIG)
    assert torch.equal(spectrogram(waveform), ComplexSpectrogram(CONFIG, "reference")(waveform))
    assert "free memory of the GPU" in caplog.text
    driver.on_launch = lambda: None
    spectrogram(waveform)
    assert len(driver.launches) == 1


@pytest.mark.parametrize(
    "waveform", [torch.zeros(2, 1, 200), torch.zeros(2, 1, 4_000).int()], ids=["short", "integers"]
)
def test_errors_of_the_caller_remain_those_of_the_caller(driver, waveform):
    with pytest.raises(ValueError, match="must be"):
        ComplexSpectrogram(CONFIG)(waveform)
    assert not driver.launches


@pytest.fixture
def cuda(monkeypatch):
    """A device of which only its state is asked."""
    state = {"capturing": False, "fault": None}

    def synchronize(device):
        assert device == torch.device("cuda", 1)
        assert not state["capturing"]
        if state["fault"]:
            raise RuntimeError(state["fault"])

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: state["capturing"])
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    return state


def test_a_device_that_has_failed_is_an_error_whatever_was_requested(cuda):
    """After an access to invalid memory, every call raises, also those of the reference."""
    error = RuntimeError(f"{CUDA}an illegal memory access was encountered")
    failures.check_device(torch.device("cuda", 1), error)  # it answers, so it was the kernel
    cuda["fault"] = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later"
    with pytest.raises(DeviceError, match=r"cuda:1 has failed, .* an illegal memory .* any earlier kernel") as raised:
        failures.check_device(torch.device("cuda", 1), error)
    assert "CUDA_LAUNCH_BLOCKING=1" in raised.value.tip
    assert raised.value.__cause__ is error


def test_a_first_call_in_a_graph_capture_is_an_error_and_the_device_is_left_alone(cuda):
    cuda["capturing"] = True
    with pytest.raises(BackendError, match=r"captured: RuntimeError: .*not permitted.*once before the capture"):
        failures.check_device(torch.device("cuda", 1), RuntimeError(f"{CUDA}operation not permitted when capturing"))


def test_a_failed_device_is_not_taken_for_a_kernel_that_cannot_be_launched(driver, monkeypatch, caplog):
    def check(device, error):
        raise DeviceError("cuda:0 has failed")

    monkeypatch.setattr(backend, "check_device", check)
    driver.on_launch = raising(RuntimeError(f"{CUDA}an illegal memory access was encountered"))
    spectrogram = ComplexSpectrogram(CONFIG)
    for _ in range(2):
        with pytest.raises(DeviceError, match="has failed"):
            spectrogram(noise(2, 1, 4_000))
    assert not caplog.records
