"""Makes random changes to a folder, and after every few changes compares a scan with the hashes of all files.

In most rounds the clock of this process is ten seconds ahead, so that all stamps count as old and are trusted; a pause
longer than a tick of the file system's clock replaces the two seconds after which a scan trusts a stamp. In the other
rounds the clock is right, all stamps are young, and all files are hashed.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from blake3 import blake3
from shimmed import arguments, report, set_clock

from distill.index import Dataset, FileTable, Manifest, Scan

TICK_S = 0.012
NAMES = [
    f"{folder}{name}.wav" for folder in ("", "a/", "a/b/", "a-b/", "z/") for name in ("k", "kick", "é", "a-", "s 1")
]


class Folder:
    """A dataset, and the random operations that change it."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.random, self.writes = root, random.Random(seed), 0
        self.outside = root.with_name(f"{root.name}-outside")
        for folder in (root, self.outside):
            folder.mkdir(parents=True)
        self.operations: list[Callable[[], None]] = [
            *(
                self.write,
                self.write,
                self.rewrite,
                self.rewrite,
                self.append,
                self.truncate,
                self.touch,
                self.backdate,
            ),
            *(self.rewrite_and_restore, self.rename, self.swap, self.rename_folder, self.hard_link, self.copy),
            *(self.replace, self.delete, self.recreate, self.link, self.chmod, self.empty),
        ]

    def content(self, size: int | None = None) -> bytes:
        self.writes += 1
        # Few sizes, so that a change seldom shows in the size; and some contents occur again.
        number = self.random.randrange(40) if self.random.random() < 0.3 else self.writes
        return (b"OggS%012d" % number).ljust(size or self.random.choice((32, 64)), b".")

    def some(self) -> Path:
        """Return an existing file, or sometimes a new name."""
        files = [path for path in self.root.rglob("*.wav") if path.is_file()]
        return self.random.choice(files) if files and self.random.random() < 0.95 else self.name()

    def name(self) -> Path:
        path = self.root / self.random.choice(NAMES)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self) -> None:
        self.name().write_bytes(self.content())

    def rewrite(self) -> None:
        """In place, of the same size."""
        path = self.some()
        with path.open("r+b") as file:
            file.write(self.content(os.fstat(file.fileno()).st_size or 32))

    def append(self) -> None:
        with self.some().open("ab") as file:
            file.write(b"more")

    def truncate(self) -> None:
        os.truncate(self.some(), 20)

    def touch(self) -> None:
        os.utime(self.some())

    def backdate(self) -> None:
        os.utime(self.some(), (1, self.random.randrange(10**9)))

    def rewrite_and_restore(self) -> None:
        """Other bytes, the same size and modification time."""
        path = self.some()
        status = path.stat()
        with path.open("r+b") as file:
            file.write(self.content(status.st_size or 32))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def rename(self) -> None:
        self.some().replace(self.name())

    def swap(self) -> None:
        one, other, aside = self.some(), self.some(), self.root / "aside"
        one.replace(aside)
        other.replace(one)
        aside.replace(other)

    def rename_folder(self) -> None:
        folders = [path for path in self.root.iterdir() if path.is_dir() and not path.is_symlink()]
        if folders:
            self.random.choice(folders).replace(self.root / f"moved-{self.random.randrange(3)}")

    def hard_link(self) -> None:
        name = self.name()
        name.unlink(missing_ok=True)
        os.link(self.some(), name)

    def copy(self) -> None:
        """With its times, as `cp -p` does."""
        shutil.copy2(self.some(), self.name())

    def replace(self) -> None:
        """Through a temporary name, as editors do."""
        aside = self.root / ".aside"
        aside.write_bytes(self.content())
        aside.replace(self.some())

    def delete(self) -> None:
        self.some().unlink()

    def recreate(self) -> None:
        """Delete a file and make a new one with the same size and time, perhaps with the same inode."""
        path = self.some()
        status = path.stat()
        path.unlink()
        path.write_bytes(self.content(status.st_size or 32))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def link(self) -> None:
        target = self.some() if self.random.random() < 0.7 else self.outside / "far.wav"
        (self.outside / "far.wav").write_bytes(self.content())
        name = self.name()
        name.unlink(missing_ok=True)
        name.symlink_to(os.path.relpath(target, name.parent))

    def chmod(self) -> None:
        self.some().chmod(self.random.choice((0o600, 0o644)))

    def empty(self) -> None:
        self.some().write_bytes(b"")

    def work(self, count: int) -> None:
        for _ in range(count):
            # An operation on a missing file does nothing.
            with suppress(OSError):
                self.random.choice(self.operations)()

    def truth(self) -> dict[str, str | None]:
        """Return the hash of each file, or None if it cannot be used."""
        found: dict[str, str | None] = {}
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                if name.startswith(".") or not name.endswith(".wav"):
                    continue
                inside = os.path.realpath(path).startswith(f"{os.path.realpath(self.root)}/")
                content = path.read_bytes() if inside and os.path.isfile(path) else b""  # noqa: PTH113 - no loops
                found[str(path.relative_to(self.root))] = blake3(content).hexdigest() if content else None
        return found


def scan_and_apply(slot: str, root: Path, tried: Counter[str]) -> tuple[Manifest, Scan]:
    """Scan for a slot, record new contents as preprocessing does, and save its manifest and the table of files."""
    path, table_path = root.with_name(f"{root.name}-{slot}.json"), root.with_name(f"{root.name}-files.json")
    manifest = Manifest.load(path) if path.exists() else Manifest()
    table = FileTable.load(table_path) if table_path.exists() else FileTable()
    hashed = []
    scan = Dataset(root).scan(
        manifest,
        known=table,
        progress=lambda stage, current, total: hashed.append(total) if stage == "hash" else None,
    )
    manifest.apply(scan)
    if table.apply(scan):
        table.save(table_path)
    for _, content_hash, _ in scan.todo:
        manifest.set_content(content_hash, [], 1, [0.0] * 5)
    manifest.save(path)
    if slot == "a":
        # What is loaded from now on is the binary copies.
        manifest.save_copy(path)
        if table_path.exists():
            table.save_copy(table_path)
    tried["scans that trusted every stamp"] += not hashed
    return Manifest.load(path), scan


def compare(folder: Folder, manifest: Manifest, scan: Scan) -> None:
    truth = folder.truth()
    table = {entry["path"]: entry["content_hash"] for entry in manifest.files()}
    assert table == truth, {path: (table.get(path), truth.get(path)) for path in table.keys() ^ truth.keys()} or [
        path for path in truth if table[path] != truth[path]
    ]
    assert not {content_hash.hex() for _, content_hash, _ in scan.todo} - set(filter(None, truth.values()))
    assert scan.n_files == len(truth)


def rounds(folder: Folder, operations: int, tried: Counter[str]) -> None:
    while operations > 0:
        count = folder.random.randrange(6)
        set_clock(10 if folder.random.random() < 0.8 else 0)
        time.sleep(TICK_S)
        folder.work(count)
        time.sleep(TICK_S)
        # Each slot sees only some of the changes, and knows of the others by the table.
        manifest, scan = scan_and_apply(folder.random.choice("ab"), folder.root, tried)
        compare(folder, manifest, scan)
        operations -= max(count, 1)
        tried["operations"] += count
        tried["scans"] += 1


def concurrent_rounds(folder: Folder, scans: int, tried: Counter[str]) -> None:
    """Scan while files are changing, then again without changes: the second scan must find everything."""
    set_clock(0)
    for _ in range(scans):
        worker = threading.Thread(target=folder.work, args=(30,))
        worker.start()
        scan_and_apply("a", folder.root, tried)
        worker.join()
        manifest, scan = scan_and_apply(folder.random.choice("ab"), folder.root, tried)
        compare(folder, manifest, scan)
        tried["operations"] += 30
        tried["scans"] += 2


def main() -> None:
    options = arguments()
    tried: Counter[str] = Counter()
    for seed in range(options["seeds"]):
        rounds(Folder(Path(options["work"]) / f"{seed}", seed), options["operations"], tried)
        folder = Folder(Path(options["work"]) / f"concurrent-{seed}", 1_000 + seed)
        concurrent_rounds(folder, options["operations"] // 100, tried)
    report(tried)


if __name__ == "__main__":
    main()
