"""Prints the ratios to each baseline at the end of a benchmark run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import datetime, timezone
from pathlib import Path

import pytest

_VERSIONS = ("torch", "torchaudio", "librosa", "numpy", "soundfile", "soxr")

_figures: list[tuple[str, dict[str, object]]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--results", type=Path, metavar="FILE", help="write the ratios as a table, with machine and versions"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("benchmark_only", None) and config.getoption("dist", "no") != "no":
        raise pytest.UsageError("benchmarks are timed one at a time: leave out -n and --dist")


def pytest_runtest_teardown(item: pytest.Item) -> None:
    benchmark = getattr(item, "funcargs", {}).get("benchmark")
    if benchmark is not None and benchmark.extra_info:
        _figures.append((item.name, benchmark.extra_info))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _figures:
        return
    terminalreporter.section("ratios, each to its baseline in this run")
    for name, figures in _figures:
        terminalreporter.write_line(name)
        for figure, value in figures.items():
            terminalreporter.write_line(f"  {figure.replace('_', ' '):52} {value}")
    path = terminalreporter.config.getoption("--results")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_table(), "utf-8")


def _table() -> str:
    cpu = next((line.split(":")[1].strip() for line in _cpu_info() if line.startswith("model name")), "unknown")
    flags = next((line.split(":")[1].split() for line in _cpu_info() if line.startswith("flags")), [])
    vectors = next((name for name in ("avx512f", "avx2", "sse4_2") if name in flags), platform.machine())
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _VERSIONS)
    rows = [
        f"| {name} | {figure.replace('_', ' ')} | {value} |"
        for name, figures in _figures
        for figure, value in figures.items()
    ]
    head = [
        "# Ratios on a CPU",
        "",
        f"{datetime.now(timezone.utc):%Y-%m-%d}; {cpu}, {vectors}, {os.cpu_count()} cores, shared; "
        f"Python {platform.python_version()}, {versions}.",
        "Each is to its baseline in the same run; written by `make bench RESULTS=FILE`.",
        "",
        "| benchmark | figure | value |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""])


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
