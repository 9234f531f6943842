"""Kills a writer at every call that changes the cache, or lets that call and all later ones fail.

One process imports torch, and forks a child for each call: the child runs on a copy of a dataset until that call. The
parent then reads the cache, completes it, and compares every row with those of an undisturbed run.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from shimmed import (
    CAUGHT,
    FAIL,
    KILL,
    TEAR,
    THROUGH,
    WRONG,
    arguments,
    arm,
    check_rows,
    check_tidy,
    fork,
    report,
    shim,
    wait,
)

from distill import _native
from distill.cache import CacheReader, binary, pack, writer
from distill.cache.compaction import clean
from distill.errors import StorageError
from distill.preprocess.pipeline import preprocess
from sounds import slot_of, training, write_dataset

ROW_BYTES = 2 * 32 * 32 * 4
FATES = {"kill": (KILL, 0), "tear": (TEAR, 0), "ENOSPC": (FAIL, errno.ENOSPC), "EIO": (FAIL, errno.EIO)}

torch.set_num_threads(1)
pack.MAX_PACK_BYTES = 1024 + 3 * (ROW_BYTES + 8)
binary.COPY_FROM_BYTES = 0


class Scenario(NamedTuple):
    """A dataset, perhaps with a cache, and what is run on it."""

    template: Path
    run: Callable[[Path], object]
    before: set[bytes]
    """Contents of the dataset that are in the cache already."""
    other_slot: Path | None = None
    """A slot that must stay as it is."""


def contents(root: Path) -> set[bytes]:
    return {_native.hash_file(path) for path in root.rglob("*.wav")}


def scenario(name: str, work: Path) -> Scenario:
    root = work / name / "template"
    paths = write_dataset(root, 10 if name in ("remove", "clean") else 5)
    run: Callable[[Path], object] = lambda copy: preprocess(copy, training(), workers=2)  # noqa: E731
    # Each pack is committed. In "parts" only the first is, and the last; the others are kept as parts in between.
    writer._COMMIT_EVERY = 1e9 if name == "parts" else 0
    if name in ("first", "parts"):
        return Scenario(root, run, set())
    if name == "update":
        aside = [path.rename(work / path.name) for path in paths[1::2]]
        preprocess(root, training())
        before = contents(root)
        for path in aside:
            path.rename(root / path.name)
        (slot_of(root) / ".manifest.json.1-0.tmp").write_text("what a killed writer leaves")
        return Scenario(root, run, before)
    if name == "copy":
        # The run copies its rows from a slot with more variants.
        return Scenario(root, run, set(), preprocess(root, training(augmentation_expansion=1)).cache_dir)
    slot = preprocess(root, training()).cache_dir
    if name == "move":
        # The layout before there were slots.
        for part in ("manifest.json", "packs"):
            (slot / part).rename(root / ".cache" / part)
        shutil.rmtree(slot.parent)
        return Scenario(root, run, contents(root))
    for path in paths[1 : 8 if name == "remove" else 3]:
        path.unlink()
    if name == "clean":
        preprocess(root, training())
        run = lambda copy: clean(copy / ".cache")  # noqa: E731
    return Scenario(root, run, contents(root))


def try_points(name: str, fate: str, work: Path, stride: int) -> Counter[str]:
    template, run, before, other_slot = scenario(name, work)
    expected = undisturbed(template, work / name / "whole")
    points, ended, tried = 0, False, Counter()
    while not ended:
        copy = work / name / f"{fate}-{points}"
        shutil.copytree(template, copy)

        def child(copy: Path = copy, at: int = points) -> int:
            arm(copy / ".cache", at, *FATES[fate])
            try:
                run(copy)
            except StorageError as error:
                return CAUGHT if "--cache-dir" in error.tip else WRONG
            return 0 if shim.faults_calls() <= at else THROUGH

        status = wait(fork(child))
        ended = status == 0
        # With failing calls, the run may also end without an error: a failed compaction is only a warning.
        allowed = {0, CAUGHT, THROUGH} if FATES[fate][0] == FAIL else {0, -signal.SIGKILL}
        assert status in allowed, f"{name} {fate} {points}: {status}"
        if other_slot is not None:
            check_same(other_slot, copy / other_slot.relative_to(template))
            shutil.rmtree(copy / other_slot.relative_to(template))
        check_recovery(copy, expected, before)
        shutil.rmtree(copy)
        tried["points killed" if FATES[fate][0] != FAIL else "points failed"] += not ended
        points += stride
        assert points < 2_000, "the run does not end"
    return tried


def check_same(folder: Path, copy: Path) -> None:
    """Check that two folders hold the same files."""
    names = [{str(path.relative_to(each)) for path in each.rglob("*")} for each in (folder, copy)]
    assert names[0] == names[1]
    for path in folder.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (copy / path.relative_to(folder)).read_bytes(), path


def undisturbed(template: Path, whole: Path) -> dict[bytes, np.ndarray]:
    shutil.copytree(template, whole, ignore=shutil.ignore_patterns(".cache"))
    reader = CacheReader(preprocess(whole, training()).cache_dir)
    rows = reader.read(np.arange(len(reader)))
    return {content: rows[reader.source == index] for index, content in enumerate(reader.content_hashes)}


def check_recovery(root: Path, expected: dict[bytes, np.ndarray], before: set[bytes]) -> None:
    """Check that the cache is valid, has lost no content of `before`, and that the next run decodes only the rest."""
    cache_dir = root / ".cache"
    # Half of a cache without slots may have moved. What follows counts what is computed again.
    found = set(before) if (cache_dir / "manifest.json").exists() else set()
    if not found and list(cache_dir.glob("slots/*/manifest.json")):
        reader = CacheReader(cache_dir)
        assert reader.header["total_spectrograms"] == len(reader)
        rows = reader.read(np.arange(len(reader)))
        for index, content in enumerate(reader.content_hashes):
            # The old manifest may list contents of files that have been removed.
            if content in expected:
                np.testing.assert_array_equal(rows[reader.source == index], expected[content])
                found.add(content)
    assert before <= found, "contents that were in the cache are lost"
    for path in cache_dir.glob("slots/*/parts/*.part.json"):
        # A part file is renamed into place when it is whole, so each is valid.
        found |= {bytes.fromhex(file["content_hash"]) for file in _native.Manifest.load(path).files() if file["rows"]}
    assert preprocess(root, training()).decoded == len(expected) - len(found)
    assert check_rows(cache_dir, expected) == expected.keys()
    check_tidy(cache_dir)


def order_of_calls(work: Path) -> int:
    """Check that packs and their folder are flushed before the manifest that names them is renamed into place.

    Otherwise a power cut after the rename could lose them. Return the number of commits.
    """
    template, run, _, _ = scenario("first", work / "order")
    log = work / "calls"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)

    def child() -> None:
        shim.faults_log(descriptor)
        arm(template / ".cache", -1, 0)
        run(template)

    assert wait(fork(child)) == 0
    cache_dir = str(template / ".cache")
    dirty: set[str] = set()
    commits = 0
    for line in log.read_text().splitlines():
        call, path = line.split(" ", 1)
        if call == "create":
            dirty |= {path, str(Path(path).parent)}
        elif call in ("write", "truncate"):
            dirty.add(path)
        elif call == "fsync":
            dirty.discard(path)
        elif call == "rename":
            # The folder of the manifest itself is flushed after the rename.
            unflushed = {path for path in dirty if "/packs" in path or path.endswith(".tmp")}
            unfinished = {path for path in unflushed if path.endswith(".safetensors")}
            # No manifest names the pack that is still being written.
            assert len(unfinished) <= 1, unfinished
            assert unflushed <= unfinished | {str(Path(name).parent) for name in unfinished}, unflushed
            commits += path.endswith("manifest.json")
            dirty.add(str(Path(path).parent))
    assert not {cache_dir, str(slot_of(template))} & dirty, "the last rename was not flushed"
    assert commits > 2
    return commits


def main() -> None:
    options = arguments()
    work, tried = Path(options["work"]), Counter()
    for name in options["scenarios"]:
        for fate in options["fates"]:
            tried += try_points(name, fate, work / fate, options["stride"])
    tried["commits in the right order"] = order_of_calls(work)
    report(tried)


if __name__ == "__main__":
    main()
