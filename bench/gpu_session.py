"""All that a GPU is wanted for, in the order of its worth, for the quarter of an hour in which there is one.

    python bench/gpu_session.py [--minutes 9] [--wheels FOLDER] [--dry-run]

The steps are the benchmark, the tests, and the tools of CUDA that are there. Each has a time limit, ends without ending
the others, and leaves its output in $OUT (or bench/results/session): `<step>.log`, and `session.json` for all of them.
The wheels in FOLDER, those of flashmel and what it needs, are installed beside the results first:

    pip download -d FOLDER --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 \\
        --platform manylinux2014_x86_64 \\
        flashmel nvidia-mathdx nvidia-cuda-cccl cuda-python cuda-bindings cuda-pathfinder

With --dry-run, the steps run on a CPU, with launches that do nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CUDA_TOOLS = ("/usr/local/cuda/bin", "/opt/cuda/bin")


class Step(NamedTuple):
    """A command, and the most seconds that it may take."""

    name: str
    command: list[str]
    seconds: float


def steps(out: Path, wheels: Path | None, *, dry_run: bool) -> list[Step]:
    """Return the steps, in order."""
    python, dry = sys.executable, ["--dry-run"] if dry_run else []
    bench = [python, "bench/gpu.py", *dry]
    # Their warnings are about versions of Python and numpy that this machine happens to have.
    tests = [python, "-m", "pytest", "tests/kernels", "-m", "gpu", "-W", "default", "-p", "no:cacheprovider"]
    # A test compiles for a quarter of a minute, on one core.
    tests += ["-n", "6"] if importlib.util.find_spec("xdist") else []
    sanitizer = ["compute-sanitizer", "--error-exitcode", "3", "--kernel-name", "kns=complex_mel_kernel", "--tool"]
    # The clocks stay as they are: the machine may be lent.
    profiler = ["ncu", "--set", "full", "--clock-control", "none", "--kernel-name", "complex_mel_kernel"]
    profiler += ["--launch-count", "1", "--force-overwrite", "--export", str(out / "ncu")]
    install = [python, "-m", "pip", "install", "--no-index", "--no-deps", "--target", str(out / "packages")]
    found = sorted(map(str, wheels.glob("*.whl"))) if wheels else []
    return [
        *([Step("flashmel", [*install, *found], 60)] if found else []),
        Step("benchmark", [*bench, "--quick", "--sweep"], 240),
        Step("tests", tests, 200),
        Step("memcheck", [*sanitizer, "memcheck", *bench, "--once"], 60),
        Step("racecheck", [*sanitizer, "racecheck", *bench, "--once"], 60),
        Step("ncu", [*profiler, *bench, "--once"], 60),
    ]


def run(step: Step, out: Path, seconds_left: float) -> str:
    """Run a step, and return how it ended."""
    path = os.pathsep.join((os.environ.get("PATH", ""), *CUDA_TOOLS))
    if shutil.which(step.command[0], path=path) is None:
        return f"left out: no {step.command[0]} here"
    seconds = min(step.seconds, seconds_left)
    if seconds <= 0:
        return "left out: no time left"
    folder = out / step.name
    folder.mkdir(exist_ok=True)
    packages = os.pathsep.join(filter(None, (str(out / "packages"), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"OUT": str(folder), "PATH": path, "PYTHONPATH": packages, "PYTHONUNBUFFERED": "1"}
    with (out / f"{step.name}.log").open("w") as log:
        # A session of its own, so that what the command has started ends with it.
        process = subprocess.Popen(
            step.command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            return f"exit status {process.wait(seconds)}"
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Run all steps; the exit status is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=9.0, help="the time for all steps")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="wheels of flashmel and what it needs")
    parser.add_argument("--dry-run", action="store_true", help="run the steps on a CPU, with launches that do nothing")
    options = parser.parse_args(argv)
    out = Path(os.environ.get("OUT") or ROOT / "bench" / "results" / "session").resolve()
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    found: dict[str, str] = {}
    for step in steps(out, options.wheels, dry_run=options.dry_run):
        found[step.name] = run(step, out, end - time.monotonic())
        (out / "session.json").write_text(json.dumps(found, indent=2) + "\n")
        print(f"{step.name}: {found[step.name]}", flush=True)
    return int(any(not ended.startswith(("exit status 0", "left out")) for ended in found.values()))


if __name__ == "__main__":
    sys.exit(main())
