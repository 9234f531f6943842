"""Scans of a folder, compared with os.walk, os.stat and inotify."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill.index import Manifest
from scans import age, audio, names, scan_dataset, update


def test_a_walk_finds_the_same_files_as_os_walk(tree: Path):
    scan = scan_dataset(Manifest(), tree)
    assert scan.added == sorted(names(tree), key=os.fsencode)
    assert scan.n_files == len(scan.added) == 5
    assert scan.total_bytes == sum((tree / name).stat().st_size for name in scan.added)
    assert [path for path, _, _ in scan.todo] == [os.fsencode(name) for name in scan.added]


def test_the_slots_of_the_cache_are_not_walked_and_files_beside_them_are(tree: Path):
    (tree / "a" / "slots").mkdir()
    (tree / "a" / "f.ogg").rename(tree / "a" / "slots" / "f.ogg")
    (tree / "a" / "g.ogg").write_bytes(audio("g"))
    added = scan_dataset(Manifest(), tree, cache_dir=tree / "a").added
    assert "a/slots/f.ogg" not in added
    assert "a/g.ogg" in added


def test_each_kind_of_change_is_reported(tree: Path):
    manifest = Manifest()
    update(manifest, tree)
    (tree / "a.wav").write_bytes(audio("other"))
    os.utime(tree / "b.WAV", (1, 1))
    (tree / "a/f.ogg").rename(tree / "moved.ogg")
    (tree / "a-b/e.mp3").unlink()
    (tree / "new.wav").write_bytes(audio("new"))
    (tree / "copy.wav").write_bytes(audio("new"))
    scan = scan_dataset(manifest, tree)
    assert scan.changed == ["a.wav"]
    assert scan.renamed == [("a/f.ogg", "moved.ogg")]
    assert scan.removed == ["a-b/e.mp3"]
    assert scan.added == ["copy.wav", "new.wav"]
    assert scan.counts == {"unchanged": 2, "added": 2, "changed": 1, "renamed": 1, "removed": 1, "skipped": 0}
    # Equal contents are listed once, known contents never.
    assert [path for path, _, _ in scan.todo] == [b"a.wav", b"copy.wav"]
    assert manifest.apply(scan)
    assert not manifest.apply(scan_dataset(manifest, tree))


def test_files_are_not_hashed_again_for_a_new_configuration(tree: Path):
    manifest = Manifest()
    first = update(manifest, tree)
    age(tree)
    update(manifest, tree)
    known = manifest.file_table()
    assert len(known) == len(manifest.files())
    events = []
    scan = scan_dataset(Manifest(), tree, known=known, progress=lambda *event: events.append(event))
    assert scan.todo == first.todo
    assert not any(stage == "hash" for stage, _, _ in events)
    assert any(stage == "hash" for stage, _, _ in _events(manifest, tree, trust="content"))


def _events(manifest: Manifest, root: Path, **options) -> list[tuple[str, int, int]]:
    events = []
    scan_dataset(manifest, root, progress=lambda *event: events.append(event), **options)
    return events


@pytest.mark.skipif(sys.platform != "linux", reason="inotify exists on Linux only")
def test_a_second_scan_opens_no_file(tree: Path):
    manifest = Manifest()
    update(manifest, tree)
    age(tree)
    update(manifest, tree)  # no longer racy
    assert _opened(tree, lambda: scan_dataset(manifest, tree)) == set()
    (tree / "a.wav").touch()
    assert _opened(tree, lambda: scan_dataset(manifest, tree)) == {"a.wav"}


def _opened(root: Path, action) -> set[str]:
    """Names of the files under ``root`` that `action` opens, from inotify."""
    in_open, in_isdir, nonblock = 0x20, 0x40000000, os.O_NONBLOCK
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(nonblock)
    assert fd >= 0
    try:
        for folder, _, _ in os.walk(root):
            assert libc.inotify_add_watch(fd, os.fsencode(folder), in_open) >= 0
        action()
        names = set()
        with contextlib.suppress(BlockingIOError):
            while events := os.read(fd, 1 << 16):
                while events:
                    _, mask, _, length = struct.unpack_from("iIII", events)
                    name = events[16 : 16 + length].rstrip(b"\0")
                    if name and not mask & in_isdir:
                        names.add(os.fsdecode(name))
                    events = events[16 + length :]
        return names
    finally:
        os.close(fd)


def test_unusable_files_are_skipped_with_a_reason_and_nothing_hangs(tmp_path: Path):
    root = tmp_path / "dataset"
    root.mkdir()
    outside = tmp_path / "outside.wav"
    outside.write_bytes(audio())
    (root / "good.wav").write_bytes(audio())
    (root / "empty.wav").touch()
    (root / "text.wav").write_bytes(b"hello")
    with (root / "sparse.wav").open("wb") as file:
        file.write(audio())
        file.truncate(1 << 40)
    os.mkfifo(root / "fifo.wav")
    (root / "inside.wav").symlink_to("good.wav")
    (root / "outside.wav").symlink_to(outside)
    (root / "dangling.wav").symlink_to("nothing")
    (root / "loop.wav").symlink_to("loop.wav")
    (root / "self").symlink_to(".")
    deep = root.joinpath(*["d" * 50] * 60)
    deep.mkdir(parents=True)
    (deep / "deep.wav").write_bytes(audio("deep"))
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(root, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{folder}/socket.wav" if sys.platform == "linux" else str(root / "socket.wav"))
        os.close(folder)
    scan = scan_dataset(Manifest(), root)
    assert set(scan.added) == {"good.wav", "text.wav", "inside.wav", os.path.relpath(deep / "deep.wav", root)}
    reasons = dict(scan.skipped)
    assert {name: reason.split(":")[0] for name, reason in reasons.items()} == {
        "empty.wav": "empty file",
        "sparse.wav": "too large",
        "fifo.wav": "not a regular file",
        "socket.wav": "not a regular file",
        "outside.wav": "a link that leads out of the dataset",
        "dangling.wav": "a link that leads nowhere",
        "loop.wav": "a link that leads nowhere",
    }
    assert scan.counts["skipped"] == len(reasons)
    followed = scan_dataset(Manifest(), root, follow_links=True)
    assert set(followed.added) == {*scan.added, "outside.wav"}


def test_each_folder_is_visited_once_with_followed_links(tmp_path: Path):
    root = tmp_path / "dataset"
    for name in ("b/real", "c"):
        (root / name).mkdir(parents=True)
        (root / name / "x.wav").write_bytes(audio(name))
    (root / "a").symlink_to("b")
    (root / "b/real/up").symlink_to("..")
    (root / "c/other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/y.wav").write_bytes(audio("y"))
    assert scan_dataset(Manifest(), root).added == ["b/real/x.wav", "c/x.wav"]
    assert scan_dataset(Manifest(), root, follow_links=True).added == ["b/real/x.wav", "c/other/y.wav", "c/x.wav"]


def test_an_unreadable_folder_is_a_fault_and_its_files_stay_known(unprivileged):
    root = unprivileged
    for name in ("a/1.wav", "a/2.wav", "b.wav"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(audio(name))
    manifest = Manifest()
    update(manifest, root)
    (root / "a").chmod(0)
    scan = scan_dataset(manifest, root)
    assert scan.faults == [("a", "unreadable: permission denied")]
    assert scan.removed == []
    assert scan.unchanged == 3


def test_a_missing_root_or_manifest_raises_the_usual_os_error(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError) as error:
        scan_dataset(Manifest(), tmp_path / "gone")
    assert error.value.filename == str(tmp_path / "gone")
    with pytest.raises(NotADirectoryError):
        scan_dataset(Manifest(), tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        Manifest.load(tmp_path / "none.json")


def test_ctrl_c_stops_a_scan_within_200_ms(tmp_path: Path):
    with (tmp_path / "long.wav").open("wb") as file:
        file.write(audio())
        file.truncate(60 << 30)  # sparse: ten seconds of hashing
    waited: list[float] = []
    # Again if it takes longer, for a machine that does something else at that moment.
    while len(waited) < 5 and min(waited, default=1.0) >= 0.2:
        handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
        start = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            with pytest.raises(KeyboardInterrupt):
                scan_dataset(Manifest(), tmp_path)
        finally:
            signal.signal(signal.SIGALRM, handler)
        waited.append(time.monotonic() - start - 0.1)
    assert min(waited) < 0.2, waited


def test_an_exception_in_progress_ends_the_scan(tree: Path):
    def progress(stage: str, current: int, total: int) -> None:
        raise RuntimeError(stage)

    with pytest.raises(RuntimeError, match=r"scan|hash"):
        scan_dataset(Manifest(), tree, progress=progress)


def test_the_number_of_workers_does_not_change_the_result(tmp_path: Path):
    for index in range(300):
        (tmp_path / f"{index}.ogg").write_bytes(audio(index) + bytes(50_000))
    one = scan_dataset(Manifest(), tmp_path)
    assert scan_dataset(Manifest(), tmp_path, workers=4).todo == one.todo
    assert len(one.todo) == 300


def test_importing_the_index_imports_no_torch():
    code = "import sys, distill.index; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
