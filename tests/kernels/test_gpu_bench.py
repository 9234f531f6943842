"""bench/gpu.py without a GPU: the kernel is interpreted, in another process, and the clock is fake."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]

# Modules that a machine with a GPU need not have.
MISSING = ["distill._native", "soundfile", "soxr", "safetensors", "tyro", "rich", "matplotlib", "scipy"]
MISSING += ["pytest", "hypothesis", "librosa", "torchaudio"]
PROLOGUE = f"""
import json, sys
sys.modules.update(dict.fromkeys({MISSING}))
sys.path[:0] = {[str(ROOT / "bench"), str(ROOT / "tests")]}
import gpu, torch
from interpreted import replace_the_language_once

replace_the_language_once()

class FakeClock:
    times = [12.0, 10.0, 11.0]

    def __call__(self, call, buffers):
        assert len(buffers) == 1 or not torch.equal(buffers[0], buffers[1])
        call(buffers[0])
        self.times = [time + 1 for time in self.times]
        return self.times

    def graph(self, call, buffers):
        call(buffers[0])
        return [9.0]

    def free(self):
        pass

setup = gpu.Setup(
    torch.device("cpu"), FakeClock(), sizes=(1, 2), clip_samples=2_000, parity_shape=(2, 3_501),
    without=("compiled reference",),
)
"""


def in_a_process(code, **environment):
    """Return the output of Python code, run after `PROLOGUE` in a process that interprets kernels."""
    command = [sys.executable, "-c", PROLOGUE + code]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env=os.environ | {"TRITON_INTERPRET": "1"} | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The report that a run writes, and the table that it prints."""
    folder = tmp_path_factory.mktemp("out")
    code = """
report = gpu.run(setup._replace(shapes=gpu.SHAPES[-1:]))
print(gpu.write(report))
print(gpu.table(report))
"""
    path, _, table = in_a_process(code, OUT=str(folder)).partition("\n")
    assert path == str(folder / "cpu.json")
    return json.loads(Path(path).read_text()), table


def of(report, method):
    return [row for row in report["results"] if row["method"] == method]


def test_a_run_checks_the_kernel_and_its_baselines(written):
    report, _ = written
    assert report["parity"].keys() == {"random", "tonal"}
    for errors in report["parity"].values():
        assert errors.keys() == report["gates"].keys()
        assert all(0 < error <= report["gates"][name] for name, error in errors.items())
    # A baseline that disagrees with the reference would be left out.
    for method in ("distill", "ComplexSpectrogram", "eager reference", "cuFFT + pointwise"):
        assert [row["clips"] for row in of(report, method)] == [1, 2]
        assert all("us" in row for row in of(report, method)), method


def test_omitted_methods_are_reported_with_the_reason(written):
    report, table = written
    for method, reason in {
        "compiled reference": "not requested",
        "torchaudio": "not importable",
        "flashmel": "not importable",
    }.items():
        for row in of(report, method):
            assert reason in row["left_out"]
        assert f"{method:20} left out: {reason}" in table


def test_a_report_holds_what_comparisons_need(written):
    report, _ = written
    assert report["gpu"] == "cpu"
    assert report["versions"]["torch"] == torch.__version__
    assert report["versions"].keys() == {"python", "numpy", "torch", "triton", "cuda", "driver"}
    assert np.datetime64(report["date"].removesuffix("+00:00")) > np.datetime64("2025-01-01")
    assert report["config"]["n_fft"] == 2048
    assert report["sizes"] == [1, 2]
    assert report["clocks"] == report["failed"] == report["disagrees"] == {}
    assert report["kernels"] == []
    row = of(report, "distill")[0]
    assert row.keys() == {
        *("method", "clips", "seconds", "channels", "us", "us_per_audio_second", "gb_per_s", "share_of_io_floor"),
        *("ratio_to_distill", "graph_us"),
    }
    assert row["us"].keys() == {"median", "p10", "p90", "samples"}
    assert row["seconds"] == 2_000 / 48_000
    assert row["graph_us"]["median"] == 9.0
    assert [target["name"] for target in report["targets"]][-1] == "ours, times flashmel"
    assert report["sweep"][0]["shape"] == {"rows": 4, "maxnreg": None}
    assert report["sweep"][0]["us_per_audio_second"] > 0


def test_ratios_are_relative_to_our_kernel_at_the_same_size(written):
    report, table = written
    ours = {row["clips"]: row["us"]["median"] for row in of(report, "distill")}
    for row in of(report, "cuFFT + pointwise"):
        assert row["ratio_to_distill"] == row["us"]["median"] / ours[row["clips"]] > 1
    assert table.count("1.00") >= 2


def test_a_kernel_that_disagrees_is_reported_with_its_features_and_the_others_are_timed(tmp_path):
    code = """
launch = gpu.launch
gpu.launch = lambda *given, **named: 1.001 * launch(*given, **named)
gpu.run(setup._replace(sizes=(1,)))
"""
    in_a_process(code, OUT=str(tmp_path))
    report = json.loads((tmp_path / "cpu.json").read_text())
    assert report["parity"]["random"]["channel_0"] > report["gates"]["channel_0"]
    assert report["disagrees"]["random"].startswith("disagrees with the float64 reference: channel_0")
    assert "disagrees" in of(report, "distill")[0]["left_out"]
    assert "us" in of(report, "eager reference")[0]
    with np.load(tmp_path / "cpu.npz") as features:
        assert features["random"].shape == features["tonal"].shape == (2, 2, 128, 7)
        assert features["random"].std() > 0.1


def test_a_step_that_fails_loses_nothing_of_the_others(tmp_path):
    """Also if the kernel cannot be launched, or the device fails in the middle."""
    code = """
def fail(*given, **named):
    raise RuntimeError("CUDA error: an illegal memory access\\nwas encountered")
gpu.launch = gpu.copy_bandwidth = fail
gpu.run(setup._replace(sizes=(1,)))
"""
    in_a_process(code, OUT=str(tmp_path))
    report = json.loads((tmp_path / "cpu.json").read_text())
    reason = "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert {step: report["failed"][step] for step in ("check", "copies")} == {"check": reason, "copies": reason}
    assert {row["left_out"] for row in of(report, "distill")} <= {reason}
    assert report["versions"]["torch"] == torch.__version__


def test_a_baseline_that_disagrees_or_fails_is_omitted_and_the_others_are_timed(tmp_path):
    code = """
from gpu_baselines import Method
from triton.runtime.errors import PTXASError
def fail(x):
    raise torch.OutOfMemoryError("tried to allocate more than there is")
def fail_when_large(x):
    return launch(x) if x.shape[0] != 1 else fail(x)
def fail_to_assemble(x):
    raise PTXASError("not one of ptxas's days")
launch = gpu.method_of(gpu.plan_for(setup.device)).call
gpu.baselines = lambda *_: {
    "wrong": Method(lambda x: torch.zeros_like(launch(x)), 2), "failing": Method(fail, 2),
    "large": Method(fail_when_large, 2), "not assembled": Method(fail_to_assemble, 2),
}
print(json.dumps(gpu.run(setup)["results"]))
"""
    rows = json.loads(in_a_process(code, OUT=str(tmp_path)))
    outcome = {(row["method"], row["clips"]): row.get("left_out", "timed") for row in rows}
    assert outcome["wrong", 1].startswith("disagrees with the float64 reference: channel_0")
    assert outcome["failing", 1] == "OutOfMemoryError: tried to allocate more than there is"
    assert outcome["not assembled", 1].startswith("PTXASError: ")
    assert outcome["large", 1] == "does not fit the memory"
    assert outcome["large", 2] == outcome["distill", 1] == outcome["distill", 2] == "timed"


def test_the_pointwise_baseline_computes_other_bands_too():
    code = """
from distill.features.mel import MelSpec
from distill.features.reference import complex_mel
from gpu_baselines import cufft_and_pointwise
from gpu_check import errors_of
torch.use_deterministic_algorithms(True)  # fills new memory with NaN
assert torch.empty(1).isnan()
spec = MelSpec(16_000, 512, 160, 80)
for signal in gpu.signals((3, 4_001), setup.device).values():
    expected = complex_mel(signal.double(), spec)
    features = cufft_and_pointwise(spec, setup.device).call(signal)
    assert features.shape == expected.shape and expected[:, 1].std() > 0.1
    errors = errors_of(features, expected)
    print(json.dumps([errors, gpu.disagreement(errors)]))
"""
    for line in in_a_process(code).splitlines():
        errors, reason = json.loads(line)
        assert errors["channel_0"] > 0
        assert reason is None


@pytest.mark.needs("torchaudio")
def test_torchaudio_agrees_in_its_one_channel():
    import gpu_baselines
    import gpu_check

    device = torch.device("cpu")
    method = gpu_baselines.baselines(gpu_check.SPEC, device)["torchaudio"]
    assert method.channels == 1
    errors = gpu_check.check(method, gpu_check.signals((2, 12_001), device))
    assert all(gpu_check.disagreement(error) is None for error in errors.values())


def test_the_pointwise_baseline_compiles():
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    import gpu_baselines
    import gpu_check

    tables = gpu_baselines.pointwise_tables(gpu_check.SPEC, torch.device("cpu"))
    bands = {"N_BINS": 1024, "M": 128, "FRAMES": 4, "WIDTHS": tables.widths, "STARTS": tables.starts}
    pointers = dict.fromkeys(("spectrum_p", "out_p", "weight_p", "offset_p", "scale_p"), "*fp32") | {"first_p": "*i32"}
    scalars = {"n_frames": "i32", "T": "i32", "threshold": "fp32"}
    frames = {"x_p": "*fp32", "frames_p": "*fp32", "S": "i32", "T": "i32", "x_stride": "i32"}
    for kernel, arguments, constants in (
        (gpu_baselines.band_kernel, pointers | scalars, bands),
        (gpu_baselines.frame_kernel, frames, {"HOP": 512, "N_FFT": 2048}),
    ):
        signature = arguments | dict.fromkeys(constants, "constexpr")
        signature = {name: signature[name] for name in kernel.arg_names}
        source = ASTSource(kernel, signature, constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True})
        assert compiled.asm["cubin"]


def test_triton_keeps_compiled_kernels_where_the_benchmark_looks():
    """Attributes of Triton's that `gpu.compiled_kernels` reads and that are not documented."""
    import triton
    from triton.compiler import CompiledKernel

    import distill.kernels  # noqa: F401 - which has a function of the name of its module

    kernel = sys.modules["distill.kernels.complex_mel"].complex_mel_kernel
    assert isinstance(kernel, triton.JITFunction)
    assert isinstance(kernel.device_caches, dict)
    source = inspect.getsource(CompiledKernel)
    assert all(f"self.{name}" in source for name in ("n_regs", "n_spills", "metadata"))


def test_without_a_gpu_it_exits_with_the_reason():
    command = [sys.executable, ROOT / "bench" / "gpu.py", "--quick"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 1
    assert done.stderr.startswith("torch finds no CUDA device")
    assert not done.stdout


def test_gpu_tests_are_counted_without_plugins_and_extension():
    code = f"""
import sys
sys.modules.update(dict.fromkeys({sorted(set(MISSING) - {"pytest"})}))
import pytest
sys.exit(pytest.main(["tests/kernels", "-m", "gpu", "-p", "no:cacheprovider"]))
"""
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment
    )
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout + done.stderr
    assert "tests need a CUDA device and were not run" in done.stdout
    for name in ("within_the_gates[tonal-defaults]", "thousand_million_samples", "replays_it", "opcheck", "gradient"):
        assert name in done.stdout
