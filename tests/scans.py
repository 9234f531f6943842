"""Scans of small folders, whose files only look like audio."""

from __future__ import annotations

import os
import time
from pathlib import Path

from distill.index import AUDIO_EXTENSIONS, Dataset, Manifest


def audio(seed: object = 0) -> bytes:
    return b"OggS" + repr(seed).encode()


def names(root: Path) -> set[str]:
    """All audio files that are not hidden, found by os.walk; links are not handled."""
    found = set()
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and name.rpartition(".")[2].lower() in AUDIO_EXTENSIONS:
                found.add(os.path.relpath(Path(folder) / name, root))
    return found


def scan_dataset(manifest, root, *, known=None, hash_added=True, progress=None, workers=None, **options):
    dataset = Dataset(root, **options)
    return dataset.scan(manifest, known=known, workers=workers, hash_added=hash_added, progress=progress)


def update(manifest: Manifest, root: Path, **options):
    """Scan, apply the scan, and record an empty result for each content."""
    scan = scan_dataset(manifest, root, **options)
    manifest.apply(scan)
    for _, content, _ in scan.todo:
        manifest.set_content(content, [], 0, [0.0] * 5)
    return scan


def age(root: Path) -> None:
    """Wait until no file under ``root`` is racy: all changed more than two seconds ago."""
    times = [max(s.st_mtime, s.st_ctime) for s in (path.lstat() for path in root.rglob("*"))]
    time.sleep(max(0.0, max(times) + 2.05 - time.time()))
