"""Check the distributions in a folder, and try those that fit this machine, each in a fresh environment.

Usage: python .ci/check_dist.py FOLDER

uv must be on the path. It installs each distribution with its dependencies and nothing else, for the oldest and for the
newest Python at hand, and a small job runs there.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
JOB = """
import subprocess, sys
from importlib.metadata import version
from pathlib import Path
import numpy as np, soundfile, torch
import distill
from distill.audio import ComplexSpectrogram

assert Path(distill.__file__).is_relative_to(sys.prefix), distill.__file__
assert distill.__version__ == version("distill") == sys.argv[1], distill.__version__
Path("sounds").mkdir()
time = np.arange(48_000) / 48_000
for hertz in range(200, 2_000, 100):
    soundfile.write(f"sounds/{hertz}.wav", 0.5 * np.sin(2 * np.pi * hertz * time), 48_000)
waveform = torch.from_numpy(soundfile.read("sounds/1000.wav", dtype="float32")[0])[None, None]
expected = ComplexSpectrogram(backend="reference")(waveform)
assert expected.max() > 1
torch.testing.assert_close(ComplexSpectrogram(backend="rust")(waveform)[:, 0], expected[:, 0], atol=1e-4, rtol=0)

command = Path(sys.executable).with_name("distill")
for arguments in (["--version"], ["preprocess", "sounds"], ["status", "sounds"]):
    subprocess.run([command, *arguments], check=True)
options = ["--preset", "quick", "--epochs", "1", "--preview-epochs", "0", "--no-analyze", "--out", "run"]
subprocess.run([sys.executable, "-I", "-m", "distill.train", "sounds", *options], check=True)
subprocess.run([command, "generate", "run", "--out", "new"], check=True)
assert soundfile.read(next(Path("new").glob("*.wav")))[0].std() > 0
"""


def main(folder: Path) -> None:
    """Check and try everything in a folder."""
    files = sorted(folder.iterdir())
    wheels = [path for path in files if path.suffix == ".whl"]
    if not files:
        sys.exit(f"error: {folder} is empty\ntip: make wheels")
    version = files[0].name.split("-")[1].removesuffix(".tar.gz")
    tool("twine", "check", "--strict", *files)
    for path in files:
        check_contents(path)
    if wheels:
        tool("check-wheel-contents", *wheels)
        tool("abi3audit", "--strict", *wheels)
    for path in wheels:
        if "manylinux" in path.name:
            tool("auditwheel", "show", path)
    checked = [f"checked: {path.name}" for path in files]
    for path in files:
        if fits(path):
            # A wheel is for all versions of Python; a source distribution would be built for each.
            for python in pythons() if path.suffix == ".whl" else pythons()[:1]:
                attempt(path, python, version)
                checked.append(f"installed and tried with Python {python}: {path.name}")
        else:
            checked.append(f"not tried, because this machine is {sys.platform} {platform.machine()}: {path.name}")
    print("\n".join(checked))


def tool(*command: str | Path) -> None:
    """Run a tool in an environment of its own; end with its status if it fails."""
    print("+", *command, flush=True)
    done = subprocess.run(["uv", "tool", "run", "--quiet", *command], check=False)
    if done.returncode:
        sys.exit(f"error: {command[0]} failed")


def check_contents(path: Path) -> None:
    """End unless a distribution holds the package with the kernel, its licence, and in a wheel nothing else."""
    package = {f"distill/{file.relative_to(ROOT / 'python/distill')}" for file in (ROOT / "python").rglob("*.py")}
    # python/distill/kernels is a link, which rglob does not follow.
    package |= {f"distill/kernels/{file.name}" for file in (ROOT / "kernels").glob("*.py")} | {"distill/py.typed"}
    if path.suffix == ".whl":
        found = set(zipfile.ZipFile(path).namelist())
        others = {name for name in found if not name.startswith("distill/") and ".dist-info/" not in name}
        missing = (package | {"distill/_native.abi3.so", "distill/_native.pyi"}) - found
        licensed = any(name.endswith(".dist-info/licenses/LICENSE") for name in found)
    else:
        with tarfile.open(path) as archive:
            found = {name.partition("/")[2] for name in archive.getnames()}
        others = {name for name in found if name.endswith(".so")}
        package = {f"python/{name}" for name in package}
        missing = (package | {"Cargo.lock", "README.md", "rust/python/Cargo.toml"}) - found
        licensed = "LICENSE" in found
    if others or missing or not licensed:
        sys.exit(f"error: {path.name}: should not hold {sorted(others)}; lacks {sorted(missing)}; LICENSE: {licensed}")


def fits(path: Path) -> bool:
    """Whether a distribution can be installed on this machine."""
    if path.suffix != ".whl":
        return True
    system = {"linux": "manylinux", "darwin": "macosx"}.get(sys.platform, sys.platform)
    return system in path.name and any(machine in path.name for machine in (platform.machine(), "universal2"))


def pythons() -> list[str]:
    """Return the oldest and the newest supported version of Python at hand."""
    found = [version for version in (f"3.{minor}" for minor in range(10, 15)) if find(version)]
    return list(dict.fromkeys([found[0], found[-1]]))


def find(version: str) -> bool:
    """Whether uv finds a version of Python."""
    command = ["uv", "python", "find", "--no-python-downloads", version]
    return subprocess.run(command, env=search_path(), capture_output=True, check=False).returncode == 0


def search_path() -> dict[str, str]:
    """Return the environment for uv, with all versions of pyenv on the path, not only the selected one."""
    versions = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser().glob("versions/*/bin")
    return os.environ | {"PATH": os.pathsep.join([*map(str, versions), os.environ["PATH"]])}


def attempt(path: Path, python: str, version: str) -> None:
    """Install a distribution into a fresh environment, and run the job with nothing else on the path."""
    print(f"+ trying {path.name} with Python {python}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "environment"
        subprocess.run(["uv", "venv", "--quiet", "--python", python, environment], env=search_path(), check=True)
        install = ["uv", "pip", "install", "--quiet", "--python", environment, path.absolute()]
        subprocess.run(install, env=search_path(), check=True)
        bare = {"PATH": "/usr/bin:/bin", "HOME": folder}
        subprocess.run([environment / "bin/python", "-I", "-c", JOB, version], cwd=folder, env=bare, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
