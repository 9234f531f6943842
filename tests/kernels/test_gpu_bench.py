"""All that bench/gpu.py does but for the timings: interpreted, in a process of its own, with a false clock."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]

# What a machine with a GPU need not have. Interpreting needs a process of its own.
MISSING = ["distill._native", "soundfile", "soxr", "safetensors", "tyro", "rich", "matplotlib", "scipy"]
MISSING += ["pytest", "hypothesis", "librosa", "torchaudio"]
PROLOGUE = f"""
import json, sys
sys.modules.update(dict.fromkeys({MISSING}))
sys.path.insert(0, {str(ROOT / "bench")!r})
import gpu, torch

class FalseClock:
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
    torch.device("cpu"), FalseClock(), sizes=(1, 2), clip_samples=2_000, parity_shape=(2, 3_501),
    without=("compiled reference",),
)
"""


def in_a_process(code, **environment):
    """Standard output of Python code after `PROLOGUE`, in a process that interprets kernels."""
    command = [sys.executable, "-c", PROLOGUE + code]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env=os.environ | {"TRITON_INTERPRET": "1"} | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The report that a run writes, and what it prints."""
    folder = tmp_path_factory.mktemp("out")
    code = """
report = gpu.run(setup)
report["sweep"] = gpu.sweep(setup, gpu.SHAPES[-1:])
print(gpu.write(report))
print(gpu.table(report))
"""
    path, _, table = in_a_process(code, OUT=str(folder)).partition("\n")
    assert path == str(folder / "cpu.json")
    return json.loads(Path(path).read_text()), table


def of(report, method):
    return [row for row in report["results"] if row["method"] == method]


def test_a_run_checks_the_kernel_and_what_it_is_measured_against(written):
    report, _ = written
    assert report["parity"].keys() == {"random", "tonal"}
    for errors in report["parity"].values():
        assert errors.keys() == report["gates"].keys()
        assert all(0 < error <= report["gates"][name] for name, error in errors.items())
    # Baselines that disagree with the reference are left out, and these ran.
    for method in ("distill", "ComplexSpectrogram", "eager reference", "cuFFT + pointwise"):
        assert [row["clips"] for row in of(report, method)] == [1, 2]
        assert all("us" in row for row in of(report, method)), method


def test_what_is_left_out_says_why(written):
    report, table = written
    for method, reason in {
        "compiled reference": "not asked for",
        "torchaudio": "not importable",
        "flashmel": "not importable",
    }.items():
        for row in of(report, method):
            assert reason in row["left_out"]
        assert f"{method:20} left out: {reason}" in table


def test_a_report_holds_what_it_takes_to_compare_it(written):
    report, _ = written
    assert report["gpu"] == "cpu"
    assert report["versions"]["torch"] == torch.__version__
    assert report["versions"].keys() == {"torch", "triton", "cuda", "driver"}
    assert np.datetime64(report["date"].removesuffix("+00:00")) > np.datetime64("2025-01-01")
    assert report["config"]["n_fft"] == 2048
    assert report["sizes"] == [1, 2]
    assert report["clocks"] == {}
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


def test_ratios_are_to_ours_at_the_same_size(written):
    report, table = written
    ours = {row["clips"]: row["us"]["median"] for row in of(report, "distill")}
    for row in of(report, "cuFFT + pointwise"):
        assert row["ratio_to_distill"] == row["us"]["median"] / ours[row["clips"]] > 1
    assert table.count("1.00") >= 2


def test_a_kernel_that_disagrees_is_not_timed():
    code = """
launch = gpu.launch
gpu.launch = lambda *given, **named: 1.001 * launch(*given, **named)
try:
    gpu.run(setup)
except SystemExit as left:
    print(left)
"""
    assert "the kernel, random waveforms: disagrees" in in_a_process(code)


def test_a_baseline_that_disagrees_or_fails_is_left_out_alone():
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
    rows = json.loads(in_a_process(code))
    told = {(row["method"], row["clips"]): row.get("left_out", "timed") for row in rows}
    assert told["wrong", 1].startswith("disagrees with the float64 reference: channel_0")
    assert told["failing", 1] == "OutOfMemoryError: tried to allocate more than there is"
    assert told["not assembled", 1].startswith("PTXASError: ")
    assert told["large", 1] == "does not fit the memory"
    assert told["large", 2] == told["distill", 1] == told["distill", 2] == "timed"


def test_the_pointwise_baseline_computes_other_bands_too():
    code = """
from distill.features.reference import complex_mel
from gpu_baselines import cufft_and_pointwise
from gpu_check import errors_of
torch.use_deterministic_algorithms(True)  # fills what is allocated with NaN
assert torch.empty(1).isnan()
numbers = {"sample_rate": 16_000, "n_fft": 512, "hop_length": 160, "n_mels": 80}
for signal in gpu.signals((3, 4_001), setup.device).values():
    expected = complex_mel(signal.double(), **numbers)
    features = cufft_and_pointwise(numbers, 1e-5, setup.device).call(signal)
    assert features.shape == expected.shape and expected[:, 1].std() > 0.1
    errors = errors_of(features, expected)
    print(json.dumps([errors, gpu.disagreement(errors)]))
"""
    for line in in_a_process(code).splitlines():
        errors, reason = json.loads(line)
        assert errors["channel_0"] > 0
        assert reason is None


def test_torchaudio_agrees_in_its_one_channel():
    import gpu_baselines
    import gpu_check

    device = torch.device("cpu")
    method = gpu_baselines.baselines(gpu_check.NUMBERS, gpu_check.THRESHOLD, device)["torchaudio"]
    assert method.channels == 1
    errors = gpu_check.check(method, gpu_check.signals((2, 12_001), device))
    assert all(gpu_check.disagreement(error) is None for error in errors.values())


def test_the_pointwise_baseline_compiles():
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    import gpu_baselines
    import gpu_check

    tables = gpu_baselines.pointwise_tables(gpu_check.NUMBERS, torch.device("cpu"))
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
        compiled = triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32))
        assert compiled.asm["cubin"]


def test_without_a_gpu_it_says_so():
    command = [sys.executable, ROOT / "bench" / "gpu.py", "--quick"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 1
    assert done.stderr.startswith("torch finds no CUDA device")
    assert not done.stdout


def test_gpu_tests_are_counted_where_pytest_stands_alone():
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
