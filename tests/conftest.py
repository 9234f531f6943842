"""Fixtures for all tests. Tests that need CUDA, or a program, are deselected and listed where there is none."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_not_run: list[str] = []
_lacking: dict[str, list[str]] = {}


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    parser.addoption("--soak", action="store_true", help="run tests/proof with large numbers, for minutes")
    # On a GPU machine there may be no plugins. Their options in pyproject.toml are then accepted and ignored.
    if not pluginmanager.hasplugin("benchmark"):
        parser.addoption("--benchmark-skip", action="store_true", help="of pytest-benchmark, which is not installed")
        parser.addoption("--benchmark-group-by", help="of pytest-benchmark, which is not installed")
    if not pluginmanager.hasplugin("timeout"):
        parser.addini("timeout", "of pytest-timeout, which is not installed")


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts background jobs with SIGINT ignored; then the tests of Ctrl-C would wait until they time out.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu and not _has_gpu():
        _not_run.extend(item.nodeid for item in gpu)
        config.hook.pytest_deselected(items=gpu)
        items[:] = [item for item in items if item not in gpu]
    lacking = {item.nodeid: tools for item in items if (tools := _missing_tools(item))}
    if lacking:
        _lacking.update(lacking)
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in lacking])
        items[:] = [item for item in items if item.nodeid not in lacking]


def _missing_tools(item: pytest.Item) -> list[str]:
    return [tool for mark in item.iter_markers("needs") for tool in mark.args if not shutil.which(tool)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _not_run:
        terminalreporter.section(f"{len(_not_run)} tests need a CUDA device and were not run")
        for name in _not_run:
            terminalreporter.write_line(f"  {name}")
    if _lacking:
        tools = ", ".join(sorted({tool for tools in _lacking.values() for tool in tools}))
        terminalreporter.section(f"{len(_lacking)} tests need programs that are missing ({tools}) and were not run")
        for name, missing in _lacking.items():
            terminalreporter.write_line(f"  {name}: {', '.join(missing)}")


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
            return torch.ops.distill.complex_mel(rows_with_gaps(waveform, gap, dtype), *spec, "rust").numpy()

    return compute
