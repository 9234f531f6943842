"""Scans after arbitrary file operations."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from distill.index import Manifest, hash_bytes
from scans import audio, names, update


class FileOperations(RuleBasedStateMachine):
    """After arbitrary file operations the manifest has the hash of each file's current bytes."""

    paths = st.sampled_from(["a.wav", "b.wav", "d/c.wav", "d/e.wav"])

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name) / "dataset"
        (self.root / "d").mkdir(parents=True)
        self.manifest = Manifest()

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(path=paths, content=st.integers(0, 3))
    def write(self, path: str, content: int) -> None:
        (self.root / path).write_bytes(audio(content))

    @rule(path=paths, content=st.integers(0, 3))
    def replace(self, path: str, content: int) -> None:
        temporary = self.root / "temporary"
        temporary.write_bytes(audio(content))
        temporary.replace(self.root / path)

    @rule(path=paths, content=st.integers(0, 3))
    def write_and_restore_the_mtime(self, path: str, content: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            stat = (self.root / path).stat()
            (self.root / path).write_bytes(audio(content))
            os.utime(self.root / path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    @rule(path=paths, seconds=st.sampled_from([0, 1_000_000_000, 4_000_000_000]))
    def touch(self, path: str, seconds: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.root / path, (seconds, seconds))

    @rule(one=paths, other=paths)
    def rename(self, one: str, other: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.root / one).rename(self.root / other)

    @rule(one=paths, other=paths)
    def swap(self, one: str, other: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.root / other).stat()
            (self.root / one).rename(self.root / "temporary")
            (self.root / other).rename(self.root / one) if one != other else None
            (self.root / "temporary").rename(self.root / other)

    @rule(one=paths, other=paths)
    def hard_link(self, one: str, other: str) -> None:
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            (self.root / other).hardlink_to(self.root / one)

    @rule(path=paths, size=st.integers(0, 6))
    def truncate(self, path: str, size: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.truncate(self.root / path, size)

    @rule(path=paths)
    def remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    @rule(has_copy=st.booleans())
    def reload(self, has_copy: bool) -> None:
        path = Path(self.folder.name) / "manifest.json"
        self.manifest.save(path)
        if has_copy:
            self.manifest.save_copy(path)
        self.manifest = Manifest.load(path)

    @invariant()
    def hashes_are_current(self) -> None:
        before = {file["path"]: file["content_hash"] for file in self.manifest.files()}
        known = {content for content in before.values() if content}
        scan = update(self.manifest, self.root)
        data = {name: (self.root / name).read_bytes() for name in names(self.root)}
        expected = {name: hash_bytes(data[name]).hex() if data[name] else None for name in data}
        assert {file["path"]: file["content_hash"] for file in self.manifest.files()} == expected
        new = {name for name, content in expected.items() if content and name not in before}
        assert {*scan.added, *(new_name for _, new_name in scan.renamed)} == new
        assert {*scan.removed, *(old for old, _ in scan.renamed)} == before.keys() - expected.keys()
        assert set(scan.changed) == {
            name for name in before.keys() & expected.keys() if before[name] != expected[name]
        } | {name for name, reason in scan.skipped if name in before and name in scan.changed}
        # A renamed file has the same content under both names.
        for old, new_name in scan.renamed:
            assert before[old] == expected[new_name]
        assert not {content.hex() for _, content, _ in scan.todo} & known


TestFileOperations = FileOperations.TestCase
TestFileOperations.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
