"""Ends a run of benchmarks with what they are for: ratios, and not times."""

from __future__ import annotations

import pytest

_told: list[tuple[str, dict[str, object]]] = []


def pytest_runtest_teardown(item: pytest.Item) -> None:
    benchmark = getattr(item, "funcargs", {}).get("benchmark")
    if benchmark is not None and benchmark.extra_info:
        _told.append((item.name, benchmark.extra_info))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _told:
        return
    terminalreporter.section("ratios, each to its baseline in this run")
    for name, figures in _told:
        terminalreporter.write_line(name)
        for figure, value in figures.items():
            terminalreporter.write_line(f"  {figure.replace('_', ' '):52} {value}")
