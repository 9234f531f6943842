"""Fixtures for all tests. Tests that need CUDA, or a program, are deselected and listed where there is none."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

# Tests start hundreds of processes, and each would compile torch and its like again, for seconds. Only this process
# writes bytecode: others may be killed, or have no room.
if os.environ.get("PYTHONDONTWRITEBYTECODE"):
    os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parent.parent / ".pytest_cache" / "bytecode")
    sys.pycache_prefix, sys.dont_write_bytecode = os.environ["PYTHONPYCACHEPREFIX"], False
# With `pytest -n`, torch and its like would start as many threads in each process as there are cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests that are left out, and why: "needs" and what they need, or a reason of pytest.
_not_run: dict[str, str] = {}
_tried: Counter[str] = Counter()
_failed: set[str] = set()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    parser.addoption("--soak", action="store_true", help="run tests with large numbers, for minutes")
    parser.addoption("--screenshot", metavar="RUN", help="write docs/play.png, which shows this run")
    # On a GPU machine there may be no plugins. Their options in pyproject.toml are then accepted and ignored.
    if not pluginmanager.hasplugin("benchmark"):
        parser.addoption("--benchmark-skip", action="store_true", help="of pytest-benchmark, which is not installed")
        parser.addoption("--benchmark-group-by", help="of pytest-benchmark, which is not installed")
    if not pluginmanager.hasplugin("timeout"):
        parser.addini("timeout", "of pytest-timeout, which is not installed")


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts background jobs with SIGINT ignored; then the tests of Ctrl-C would wait until they time out.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@functools.cache
def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    needs = {item.nodeid: f"needs {need}" for item in items if (need := _need(item))}
    if needs:
        _not_run.update(needs)
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in needs])
        items[:] = [item for item in items if item.nodeid not in needs]


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note the files that cannot be imported without what they need, as the kernel without a recent triton."""
    _note_skipped(report)


def _note_skipped(report: pytest.CollectReport | pytest.TestReport) -> None:
    # A test or file that finds out by itself what it lacks skips itself. Benchmarks are not tests.
    if report.skipped and isinstance(report.longrepr, tuple) and "--benchmark-skip" not in report.longrepr[2]:
        _not_run[report.nodeid] = report.longrepr[2].removeprefix("Skipped: ")


def _need(item: pytest.Item) -> str:
    """Return what a test needs and this machine lacks."""
    if item.get_closest_marker("gpu") and not _has_gpu():
        return "a CUDA device"
    if item.get_closest_marker("soak") and not item.config.getoption("--soak"):
        return "--soak"
    needs = dict.fromkeys(need for mark in item.iter_markers("needs") for need in mark.args)
    return ", ".join(need for need in needs if not _is_there(need))


@functools.cache
def _is_there(need: str) -> bool:
    if "=" in need:
        package = Requirement(need)
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return package.specifier.contains(importlib.metadata.version(package.name))
        return False
    if need == "torchaudio":
        return _imports_torchaudio()
    if need == "chromium":
        from browsing import chromium

        return chromium() is not None
    # Python packages are not on the path.
    return shutil.which(need) is not None or importlib.util.find_spec(need) is not None


def _imports_torchaudio() -> bool:
    """Whether torchaudio works with this torch: its last release refuses those for another CUDA."""
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def pytest_sessionfinish(session: pytest.Session) -> None:
    # With `pytest -n`, tests are collected by the workers only, and the summary is written by their parent.
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["not run"] = _not_run


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    # All workers collect the same tests; one that crashed has no output.
    _not_run.update(getattr(node, "workeroutput", {}).get("not run", {}))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what the tests of `proof` tried and what was skipped; reports of workers arrive here, too."""
    if report.failed and "proof/" in report.nodeid:
        _failed.add(report.nodeid)
    _note_skipped(report)
    if report.when == "teardown":
        for name, counts in report.user_properties:
            if name == "tried":
                _tried.update(counts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _tried:
        terminalreporter.section("proof")
        counts = ", ".join(f"{count} {what}" for what, count in sorted(_tried.items()))
        terminalreporter.write_line(f"{counts}; failures {len(_failed)}")
    for reason in sorted(set(_not_run.values())):
        names = [name for name in _not_run if _not_run[name] == reason]
        _, needed, need = reason.partition("needs ")
        why = f"need {need} and were not run" if needed else f"were not run: {reason}"
        terminalreporter.section(f"{len(names)} tests {why}")
        for name in names:
            terminalreporter.write_line(f"  {name}")


@pytest.fixture(scope="session")
def small_config():
    """A configuration whose features and model take milliseconds."""
    from distill.config import AugmentationConfig, ComplexSpectrogramConfig, SpectrogramConfig, TrainingConfig

    numbers = {"sample_rate": 16_000, "n_fft": 512, "hop_length": 256, "n_mels": 32}
    return TrainingConfig(
        complex_spectrogram=ComplexSpectrogramConfig(**numbers),
        spectrogram=SpectrogramConfig(**numbers),
        augmentation=AugmentationConfig(),
        augmentation_expansion=1,
        chunk_samples=8_000,
        val_fraction=0.25,
        latent_dim=8,
        epochs=3,
        batch_size=16,
        preview_epochs=0,
        device="cpu",
    )


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's 60 sounds; tests that change a dataset copy it."""
    from distill.demo import write_dataset

    folder = tmp_path_factory.mktemp("sounds")
    write_dataset(folder)
    return folder


@pytest.fixture(scope="session")
def cache(sounds: Path, small_config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of `sounds` for `small_config`."""
    from distill.index import Dataset
    from distill.preprocess.pipeline import preprocess

    return preprocess(Dataset(sounds, cache_dir=tmp_path_factory.mktemp("cache")), small_config).cache_dir


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A temporary folder, for a test about permissions: the test does not run as root, who may read everything."""
    is_root = os.geteuid() == 0
    if is_root:
        # Python may be installed where only root can read, so lazily imported modules are imported now.
        import rich.progress  # noqa: F401
        import tyro  # noqa: F401

        from distill.cli.main import COMMANDS, load

        load("distill.cli.parsing:parse")
        for command in COMMANDS.values():
            load(command.runner)
        os.seteuid(65_534)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            for path in Path(folder).rglob("*"):
                if not path.is_symlink():
                    path.chmod(0o700)
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def run(capsys):
    """Run a command; return its exit status, standard output and standard error."""

    def call(*argv, command=None):
        from distill.cli.main import main

        capsys.readouterr()
        try:
            code = (command or main)([str(argument) for argument in argv])
        except SystemExit as left:
            code = left.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="module")
def one_thread():
    """Limit torch to one thread: small operations are slower with several, and much slower on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def interpreted():
    """A function that computes features with the interpreted Triton kernel; parameters as `interpreted.compute`."""
    from interpreted import interpreter

    pytest.importorskip("triton", "3.6")
    with interpreter() as compute:
        yield compute


@pytest.fixture(scope="session")
def rust():
    """A function that computes features with the Rust kernel; parameters as `interpreted.compute`, without a plan's."""
    import torch

    from distill.features import ops  # noqa: F401 - defines the operator
    from interpreted import new_memory_is_nan, rows_with_gaps

    def compute(waveform, spec, *, dtype="float32", gap=0):
        with new_memory_is_nan():
            return torch.ops.distill.complex_mel(rows_with_gaps(waveform, gap, dtype), *spec.arguments("rust")).numpy()

    return compute
