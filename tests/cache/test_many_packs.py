"""A cache of thousands of packs, in a process that may have few files open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_many_packs_need_few_open_files(request, tmp_path):
    """Training, export, verify, status and clean with at most 256 descriptors, the limit of macOS."""
    packs = 5_000 if request.config.getoption("--soak") else 1_500
    paths = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", HERE / "many_packs.py", tmp_path, str(packs)],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-8_000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["rows"] == packs
    assert result["open"] < 128
