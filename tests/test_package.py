"""What is installed is what was written: a wheel is built from the source tree and looked into."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run(command, check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_one_wheel_serves_every_python_from_3_10(wheel):
    assert wheel.name.startswith("distill-0.1.0-cp310-abi3-")


def test_the_wheel_holds_every_module_the_extension_and_its_types(wheel):
    found = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "python"
    assert {path.relative_to(source).as_posix() for path in source.rglob("*.py")} <= found
    assert {"distill/_native.pyi", "distill/py.typed", "distill/_native.abi3.so"} <= found


def test_the_wheel_works_where_nothing_else_of_the_source_tree_is(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = """
import sys
import distill
assert "torch" not in sys.modules, "importing distill imports torch"
from distill._native import hash_bytes
print(distill.__file__, hash_bytes(b"").hex())
"""
    command = [sys.executable, "-S", "-c", code]
    result = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    # The BLAKE3 of nothing.
    assert result.stdout.split() == [
        str(tmp_path / "distill" / "__init__.py"),
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    ]
