"""The wheel and the source distribution hold everything that the source tree has, and work when installed."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import distill

ROOT = Path(__file__).parent.parent
KERNELS = ROOT / "kernels"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run(command, check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_is_for_all_pythons_from_3_10(wheel):
    assert wheel.name.startswith(f"distill-{distill.__version__}-cp310-abi3-")


def test_the_wheel_has_every_module_the_page_the_extension_and_its_types(wheel):
    found = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "python"
    kinds = (".py", ".html", ".css", ".js", ".svg")  # with the page of `distill play`
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.suffix in kinds}
    assert "distill/play/static/index.html" in files
    assert files <= found
    assert {"distill/_native.pyi", "distill/py.typed", "distill/_native.abi3.so"} <= found
    # A link in the source tree: rglob above does not follow it, and the builder drops it unless it is listed.
    assert {f"distill/kernels/{path.name}" for path in KERNELS.glob("*.py")} <= found
    # Not at the top level too, where another project may have a package of this name.
    assert not [name for name in found if name.startswith("kernels/")]


def test_the_source_distribution_has_the_kernel_as_files_and_not_as_a_link(tmp_path):
    command = [Path(sys.executable).parent / "uv", "build", "--sdist", "--quiet", "--out-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = {name.partition("/")[2]: archive.extractfile(name).read() for name in archive.getnames()}
    for path in KERNELS.glob("*.py"):
        assert files[f"python/distill/kernels/{path.name}"] == path.read_bytes()


def test_the_wheel_works_without_the_source_tree(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)  # noqa: S202 - built above
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
    # BLAKE3 of the empty string.
    assert result.stdout.split() == [
        str(tmp_path / "distill" / "__init__.py"),
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    ]


@pytest.fixture
def fresh(wheel, tmp_path) -> Path:
    """The Python of a new environment with the wheel, and with the packages of this one except distill."""
    venv.create(tmp_path / "fresh")
    python = tmp_path / "fresh" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(python), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    # Packages in a folder that a .pth file names are found, but .pth files in it are ignored, so that the editable
    # distill is not found.
    purelib = sysconfig.get_path("purelib", vars={"base": str(tmp_path / "fresh")})
    (Path(purelib) / "packages.pth").write_text(sysconfig.get_path("purelib"))
    return python


COMPUTE = """
import sys, torch
from distill.audio import ComplexSpectrogram
waveform = torch.sin(torch.arange(6_000) / 7)[None, None]
expected = ComplexSpectrogram()(waveform)
assert not {"triton", "distill.kernels"} & sys.modules.keys(), "computing on a CPU imports triton"
import distill.kernels
features = ComplexSpectrogram(backend="fused")(waveform)
print(distill.kernels.__file__, expected.max().item() > 1, (features - expected)[:, 0].abs().max().item() < 1e-4)
"""


@pytest.mark.needs("triton>=3.6")
def test_the_kernel_of_an_installed_wheel_works(fresh, tmp_path):
    env = {"TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(tmp_path / "triton")}
    result = subprocess.run([fresh, "-c", COMPUTE], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    path, *truths = result.stdout.split()
    assert Path(path).is_relative_to(tmp_path / "fresh")
    assert truths == ["True", "True"]


@pytest.mark.needs("triton>=3.6")
def test_the_kernel_of_an_editable_install_is_that_of_the_source_tree():
    code = "import distill.kernels; print(distill.kernels.__file__)"
    result = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True)
    assert Path(result.stdout.strip()).resolve() == KERNELS / "__init__.py", result.stderr
