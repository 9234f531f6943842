"""The README: its Python example runs, and its commands exist."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_python_example_runs(sounds, tmp_path, monkeypatch):
    shutil.copytree(sounds / "metal", tmp_path / "recordings")
    first = sorted((tmp_path / "recordings").glob("*.wav"))[0]
    first.rename(tmp_path / "recordings" / "bell.wav")
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(example, names)  # noqa: S102 - from this repository
    assert names["features"].shape[:3] == (1, 2, 128)
    assert names["again"].shape == (1, 2, 128, 94)
    magnitude = names["rows"][0][0]
    error = (names["again"][0, 0] - magnitude).square().mean()
    assert error < magnitude.var()


@pytest.mark.parametrize("command", re.findall(r"`distill (\w+) ", README))
def test_every_command_in_the_readme_exists(command):
    from distill.cli.main import COMMANDS

    assert command in COMMANDS
