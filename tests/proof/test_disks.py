"""Mounted file systems: a disk that fills up, and a file system in the dataset whose stamps cannot be trusted.

Without permission to mount, a limit on file sizes replaces the full disk, and /proc the other file system.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from distill.audio import load_cache_manifest
from distill.cache import pack
from distill.cache.export import export
from distill.errors import StorageError
from distill.index import Dataset, Manifest
from distill.preprocess.pipeline import preprocess
from mounts import MAY_MOUNT, REMOUNT, mount, mounted
from sounds import age, rows_by_content, slot_of, training, write_dataset

ROW_BYTES = 2 * 32 * 32 * 4


class Tmpfs:
    """A disk of 40 MB that another program fills up while we write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def leave(self, size: int) -> None:
        free = os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_frsize
        with self._ballast.open("ab") as file:
            file.write(bytes(free - size))

    def enlarge(self) -> None:
        assert mount("tmpfs", self.folder, "size=80m", REMOUNT) == 0


class Limited:
    """A limit on the size of a file, beyond which a write fails half-way."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def leave(self, size: int) -> None:
        sys.dont_write_bytecode = True  # or the bytecode of a module may be cut
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, self._limit[1]))

    def enlarge(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limit)
        sys.dont_write_bytecode = False


@pytest.fixture(params=["tmpfs", "limit"] if MAY_MOUNT else ["limit"])
def disk(request, tmp_path) -> Iterator[Tmpfs | Limited]:
    if request.param == "limit":
        limited = Limited(tmp_path / "disk")
        yield limited
        limited.enlarge()
        return
    with mounted("tmpfs", tmp_path / "disk", "size=40m") as folder:
        yield Tmpfs(folder)


def test_a_disk_that_fills_up_loses_only_unfinished_files(tmp_path, disk, monkeypatch, tried: Counter[str]):
    """Packs of two files each. The disk has space for two and a half packs, the limit for half of one."""
    monkeypatch.setattr(pack, "MAX_PACK_BYTES", 1024 + 8 * (ROW_BYTES + 8))
    root, cache_dir = tmp_path / "dataset", disk.folder / "cache"
    write_dataset(root, 10, 4)
    expected = rows_by_content(preprocess(Dataset(root, cache_dir=tmp_path / "whole"), training()).cache_dir)
    assert sum(map(len, expected.values())) == 40
    filled = []

    def fill(stage: str, current: int, total: int) -> None:
        if isinstance(disk, Tmpfs):
            if stage == "features" and not filled:
                filled.append(disk.leave(2 * 8 * ROW_BYTES + 5 * ROW_BYTES))
        elif stage == "features" and current == 4 and not filled:
            filled.append(disk.leave(1024 + 5 * ROW_BYTES))

    with pytest.raises(StorageError) as caught:
        preprocess(Dataset(root, cache_dir=cache_dir), training(), workers=1, progress=fill)
    assert filled
    assert str(caught.value).startswith(f"{cache_dir}: the disk is full")
    assert caught.value.tip == "make room, or choose a place for the cache with --cache-dir DIR"
    packs = {path: path.read_bytes() for path in (slot_of(cache_dir) / "packs").iterdir()}
    kept = rows_by_content(cache_dir)
    assert 4 <= len(kept) < 8
    assert {path.name for path in packs} == {entry["name"] for entry in load_cache_manifest(cache_dir)["packs"]}
    assert all(np.array_equal(expected[content], rows) for content, rows in kept.items())

    disk.enlarge()
    result = preprocess(Dataset(root, cache_dir=cache_dir), training())
    assert (result.decoded, result.rows) == (10 - len(kept), 40)
    assert {path: path.read_bytes() for path in packs} == packs
    found = rows_by_content(cache_dir)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(expected[content], rows) for content, rows in found.items())
    tried[f"disks filled up ({type(disk).__name__.lower()})"] += 1


@pytest.mark.parametrize("kind", ["pt", "npy", "safetensors"])
def test_an_export_to_a_full_disk_removes_what_it_wrote(tmp_path, disk, kind, tried: Counter[str]):
    root = tmp_path / "dataset"
    write_dataset(root)
    cache_dir = preprocess(root, training()).cache_dir
    disk.leave(7 * ROW_BYTES // 2 if isinstance(disk, Tmpfs) or kind != "pt" else ROW_BYTES // 2)
    before = sorted(disk.folder.iterdir())
    with pytest.raises(StorageError, match="the disk is full; what was written is removed") as caught:
        export(cache_dir, disk.folder / "out", kind)
    name = "features" if kind == "npy" else "00000"
    assert str(caught.value).startswith(f"{disk.folder / 'out' / name}")
    assert caught.value.tip == "make room, or choose another folder"
    assert sorted(disk.folder.iterdir()) == before
    disk.enlarge()
    assert export(cache_dir, disk.folder / "out", kind) == 10
    tried["exports to a full disk"] += 1


def entries(manifest: Path) -> dict[str, dict]:
    return {entry["path"]: entry for entry in json.loads(manifest.read_text())["files"]}


def assert_coarse(entry: dict) -> None:
    assert (entry["inode"], entry["mtime_ns"] % 10**9, entry["ctime_ns"] % 10**9) == (0, 0, 0)


def assert_exact(entry: dict, path: Path) -> None:
    status = path.stat()
    assert (entry["inode"], entry["mtime_ns"], entry["ctime_ns"]) == (
        status.st_ino,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def test_stamps_of_a_listed_file_are_trusted_depending_on_its_file_system(tmp_path):
    """/proc needs no mount, and its stamps mean nothing."""
    (near,) = write_dataset(tmp_path, 1)
    manifest = Manifest()
    manifest.apply(Dataset("/", files=[near, "/proc/version"]).scan(manifest))
    for content_hash in {bytes.fromhex(file["content_hash"]) for file in manifest.files() if file["content_hash"]}:
        manifest.set_content(content_hash, [], 0, [0.0] * 5, "not decoded in this test")
    manifest.save(tmp_path / "manifest.json")
    found = entries(tmp_path / "manifest.json")
    assert_exact(found[str(near.relative_to("/"))], near)
    assert_coarse(found["proc/version"])


@pytest.mark.parametrize("follow_links", [False, True])
def test_stamps_of_a_walked_file_are_trusted_depending_on_its_file_system(tmp_path, follow_links, tried: Counter[str]):
    """A ramfs in the dataset, and one that a link leads to. ramfs is not among the file systems that are trusted."""
    root, far = tmp_path / "dataset", tmp_path / "far"
    write_dataset(root)
    with ExitStack() as mounts:
        if MAY_MOUNT:
            for folder in (root / "mounted", far):
                mounts.enter_context(mounted("ramfs", folder))
            write_dataset(root / "mounted", 2)
            write_dataset(far, 1, 3)
            (root / "link.wav").symlink_to(far / "deep" / "er" / "sound-0.wav")
            age(far)
        age(root)
        for _ in range(2):
            # Once to record the stamps, and again when they are old enough on any file system.
            cache_dir = preprocess(Dataset(root, follow_links=follow_links), training()).cache_dir
            time.sleep(2)
        found = entries(cache_dir / "manifest.json")
        elsewhere = {path for path in found if path.startswith("mounted/")}
        if follow_links:
            elsewhere |= {"link.wav"} & found.keys()
        assert len(elsewhere) == (2 + follow_links if MAY_MOUNT else 0)
        for path, entry in found.items():
            if path in elsewhere:
                assert_coarse(entry)
                assert not entry["racy"]
            elif path != "link.wav":
                assert_exact(entry, root / path)
        scan = Dataset(root, follow_links=follow_links).scan(Manifest.load(cache_dir / "manifest.json"))
        assert (scan.unchanged, scan.refreshed, scan.todo) == (len(found), 0, [])
        tried["filesystems mounted in a dataset"] += len(elsewhere) > 0
