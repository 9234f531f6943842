"""Functions shared by the scripts that run under the shim."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distill.audio import load_cache_manifest
from distill.cache import CacheReader
from sounds import slot_of

COUNT, KILL, TEAR, FAIL = range(4)
CAUGHT, THROUGH, WRONG = 3, 4, 9

shim = ctypes.CDLL(None)


def arm(folder: Path, at: int, action: int, error: int = 0) -> None:
    """Count calls that change `folder` from now on; apply `action` to call number `at`."""
    shim.faults_arm(os.fsencode(folder), ctypes.c_long(at), action, error)


def set_clock(seconds: int) -> None:
    """Shift the clock of this process."""
    shim.faults_clock(ctypes.c_longlong(seconds))


def fork(run: Callable[[], int | None]) -> int:
    """Run a function in a child process, whose exit status is what it returns. Return the process id."""
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
    """Wait for a child and return its exit status; negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check_rows(cache_dir: Path, expected: dict[bytes, np.ndarray]) -> set[bytes]:
    """Check every row of a cache and the number of rows. Return its content hashes."""
    reader = CacheReader(cache_dir)
    assert reader.header["total_spectrograms"] == len(reader)
    rows = reader.read(np.arange(len(reader)))
    for index, content in enumerate(reader.content_hashes):
        np.testing.assert_array_equal(rows[reader.source == index], expected[content])
    return set(reader.content_hashes)


def check_tidy(cache_dir: Path) -> None:
    """Check that a cache of one slot holds only its own files and those that the manifest names.

    The binary copies may be missing: nothing needs them.
    """
    slot = slot_of(cache_dir).relative_to(cache_dir)
    named = {f"{slot}/packs/{pack['name']}" for pack in load_cache_manifest(cache_dir)["packs"]}
    left = {str(path.relative_to(cache_dir)) for path in cache_dir.rglob("*") if path.is_file()}
    left -= {"files.bin", f"{slot}/manifest.bin"}
    assert left == {"lock", "files.json", "CACHEDIR.TAG", ".gitignore", f"{slot}/manifest.json"} | named, left


def arguments() -> dict[str, Any]:
    """Return the arguments that the test passed."""
    return json.loads(sys.argv[1])


def report(counts: Mapping[str, int]) -> None:
    """Return counts to the test."""
    sys.stdout.write(json.dumps(counts))
