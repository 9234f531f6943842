"""A dataset for the tests of the index."""

from __future__ import annotations

from pathlib import Path

import pytest

from scans import audio


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "dataset"
    for name in (
        "a.wav",
        "b.WAV",
        "notes.txt",
        "deep/er/c.flac",
        ".hidden.wav",
        ".cache/d.wav",
        "a-b/e.mp3",
        "a/f.ogg",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(audio(name))
    return root
