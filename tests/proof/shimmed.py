"""What scripts that run under the shim have in common."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from distill.audio import load_cache_manifest
from distill.cache import CacheReader

COUNT, KILL, TEAR, FAIL = range(4)
CAUGHT, THROUGH, WRONG = 3, 4, 9

shim = ctypes.CDLL(None)


def arm(folder: Path, at: int, action: int, error: int = 0) -> None:
    """From now on, let the call number `at` that changes `folder` have a fate."""
    shim.faults_arm(os.fsencode(folder), ctypes.c_long(at), action, error)


def set_clock(seconds: int) -> None:
    """Move the clock of this process."""
    shim.faults_clock(ctypes.c_longlong(seconds))


def fork(run: Callable[[], int | None]) -> int:
    """Run something in a child, which ends with what it returns."""
    child = os.fork()
    if not child:
        code = WRONG
        try:
            code = run() or 0
        except BaseException:  # noqa: BLE001 - a child must never return into its parent's code
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return child


def wait(child: int) -> int:
    """Exit status of a child; negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check_rows(cache_dir: Path, expected: dict[bytes, np.ndarray]) -> set[bytes]:
    """The contents that a cache has; every row of them is right, and it holds as many as it says."""
    reader = CacheReader(cache_dir)
    assert reader.header["total_spectrograms"] == len(reader)
    rows = reader.read(np.arange(len(reader)))
    for index, content in enumerate(reader.content_hashes):
        np.testing.assert_array_equal(rows[reader.source == index], expected[content])
    return set(reader.content_hashes)


def check_tidy(cache_dir: Path) -> None:
    """Nothing is on the disk but what the manifest names."""
    named = {f"packs/{pack['name']}" for pack in load_cache_manifest(cache_dir)["packs"]}
    left = {str(path.relative_to(cache_dir)) for path in cache_dir.rglob("*") if path.is_file()}
    assert left == {"manifest.json", "lock"} | named, left


def arguments() -> dict[str, Any]:
    """What the test asked for."""
    return json.loads(sys.argv[1])


def tell(**told: Any) -> None:
    """What the test is told."""
    sys.stdout.write(json.dumps(told))
