"""The public interface of the index, compared with independent implementations."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import blake3
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from distill._native import Live
from distill.index import (
    AUDIO_EXTENSIONS,
    Dataset,
    Manifest,
    ManifestError,
    hash_bytes,
    hash_file,
    row_checksums,
)

CHECKSUM = "0" * 64
# From the official test vectors of BLAKE3: input bytes count up modulo 251.
BLAKE3_VECTORS = {
    0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    1: "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
    1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
    1025: "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
}


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


def scan_dataset(manifest, root, *, hash_added=True, progress=None, workers=None, **options):
    return Dataset(root, **options).scan(manifest, workers=workers, hash_added=hash_added, progress=progress)


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


def test_hashes_are_those_of_the_official_test_vectors():
    for length, digest in BLAKE3_VECTORS.items():
        data = bytes(i % 251 for i in range(length))
        for buffer in (data, bytearray(data), memoryview(data)):
            assert hash_bytes(buffer).hex() == digest


def test_row_checksums_are_prefixes_of_hashes():
    rows = [os.urandom(700_000) for _ in range(5)]
    data = b"".join(rows)
    expected = b"".join(hash_bytes(row)[:8] for row in rows)
    assert row_checksums(data, 700_000) == expected
    assert row_checksums(memoryview(bytearray(data)).cast("B", (5, 700_000)), 700_000) == expected
    assert row_checksums(b"", 3) == b""
    with pytest.raises(ValueError, match="multiple of row_bytes=3"):
        row_checksums(b"1234", 3)
    with pytest.raises(ValueError, match="row_bytes=0"):
        row_checksums(b"1234", 0)


def test_hashes_are_those_of_the_blake3_package(tmp_path: Path):
    path = tmp_path / "large.ogg"
    path.write_bytes(audio() + os.urandom(3_000_001))
    digest = blake3.blake3(path.read_bytes()).digest()
    ((_, content, size),) = scan_dataset(Manifest(), tmp_path).todo
    assert (content, size) == (digest, path.stat().st_size)
    assert hash_file(path) == digest
    with pytest.raises(FileNotFoundError):
        hash_file(tmp_path / "gone.ogg")


def test_a_walk_finds_the_same_files_as_os_walk(tree: Path):
    scan = scan_dataset(Manifest(), tree)
    assert scan.added == sorted(names(tree), key=os.fsencode)
    assert scan.n_files == len(scan.added) == 5
    assert scan.total_bytes == sum((tree / name).stat().st_size for name in scan.added)
    assert [path for path, _, _ in scan.todo] == [os.fsencode(name) for name in scan.added]


def test_the_cache_folder_is_not_walked(tree: Path):
    assert "a/f.ogg" not in scan_dataset(Manifest(), tree, cache_dir=tree / "a").added


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


def test_python_can_read_a_manifest_as_json(tree: Path, tmp_path: Path):
    odd = b'caf\xe9 \xff\n"\\\xc3\xa9.wav'
    with contextlib.suppress(OSError):  # some filesystems only allow UTF-8
        (tree / os.fsdecode(odd)).write_bytes(audio("odd"))
    manifest = Manifest()
    manifest.header = json.dumps({"config": {"n_fft": 1024}}, indent=2)
    scan = scan_dataset(manifest, tree)
    manifest.apply(scan)
    pack = manifest.add_pack("p.safetensors", 100, 12345, CHECKSUM, "cpu", 1, 2)
    sums = [3.0, 0.1, 1e-300, -1 / 3, 2.0**60]
    for index, (_, content, _) in enumerate(scan.todo):
        manifest.set_content(content, [(pack, 2 * index, 1), (pack, 2 * index + 1, 1)], index, sums)
    path = tmp_path / "manifest.json"
    manifest.save(path)

    read = json.loads(path.read_text("utf-8"))
    assert read["version"] == 1
    assert read["header"] == {"config": {"n_fft": 1024}}
    assert [file["path"] for file in read["files"]] == scan.added
    for file in read["files"]:
        stat = (tree / file["path"]).stat()
        key = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        assert (file["size"], file["mtime_ns"], file["ctime_ns"], file["inode"]) == key
        assert file["racy"] is True
    assert all(content["sums"] == sums for content in read["contents"])
    assert [c["hash"] for c in read["contents"]] == sorted(content.hex() for _, content, _ in scan.todo)
    text = path.read_bytes()
    assert read["checksum"] == hash_bytes(text[: text.rindex(b'"checksum"')]).hex()

    again = Manifest.load(path)
    assert again.files() == manifest.files()
    assert json.loads(again.header) == {"config": {"n_fft": 1024}}
    assert again.live() == manifest.live()
    totals = again.totals()
    assert (totals.contents, totals.rows, totals.dead_rows) == (len(scan.todo), 2 * len(scan.todo), 100 - totals.rows)
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == text


def test_live_rows_are_sorted_by_hash(tree: Path):
    manifest = Manifest()
    scan = scan_dataset(manifest, tree)
    manifest.apply(scan)
    pack = manifest.add_pack("p", 10, 1, CHECKSUM, "cpu", 1, 2)
    for index, (_, content, _) in enumerate(scan.todo):
        manifest.set_content(content, [(pack, index, 1)], 10 + index, [1.0] * 5)
    live = manifest.live()
    order = sorted(range(len(scan.todo)), key=lambda i: scan.todo[i][1])
    assert live.content_hashes == [scan.todo[i][1] for i in order]
    assert live.content_hashes is live.content_hashes
    assert _segments(live) == [(n, pack, i, 1) for n, i in enumerate(order)]
    assert live.silent.tolist() == [10 + i for i in order]
    for column in (live.content, live.pack, live.first, live.rows, live.silent):
        assert (column.dtype, column.flags.writeable) == ("int64", False)


def _segments(live: Live) -> list[tuple[int, ...]]:
    columns = (live.content, live.pack, live.first, live.rows)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_live_rows_may_have_several_segments_and_contents_without_rows_are_left_out(tree: Path):
    manifest = Manifest()
    assert _segments(manifest.live()) == manifest.live().content_hashes == []
    scan = scan_dataset(manifest, tree)
    manifest.apply(scan)
    for name in "pq":
        manifest.add_pack(name, 10, 1, CHECKSUM, "cpu", 1, 2)
    empty, one, two = sorted(content for _, content, _ in scan.todo)[:3]
    manifest.set_content(empty, [], 7, [0.0] * 5)
    manifest.set_content(two, [(0, 4, 2), (1, 0, 3)], 0, [1.0] * 5)
    manifest.set_content(one, [(1, 5, 5)], 0, [1.0] * 5)
    manifest.set_content(b"h" * 32, [(0, 0, 1)], 0, [1.0] * 5)  # no file has it
    live = manifest.live()
    assert live.content_hashes == [one, two]
    assert _segments(live) == [(0, 1, 5, 5), (1, 0, 4, 2), (1, 1, 0, 3)]


def test_live_tables_are_equal_if_all_fields_are(tree: Path):
    manifest = Manifest()
    scan = scan_dataset(manifest, tree)
    manifest.apply(scan)
    first, second = (content for _, content, _ in scan.todo[:2])

    def live(content: bytes = first, segment: tuple[int, int, int] = (0, 1, 2), silent: int = 3) -> Live:
        manifest.clear_contents()
        for name in "pq":
            manifest.add_pack(name, 10, 1, CHECKSUM, "cpu", 1, 2)
        manifest.set_content(content, [segment], silent, [1.0] * 5)
        return manifest.live()

    assert live() == live()
    assert not live() != live()  # noqa: SIM202 - the other operator
    for other in (
        live(second),
        live(segment=(1, 1, 2)),
        live(segment=(0, 2, 2)),
        live(segment=(0, 1, 1)),
        live(silent=4),
    ):
        assert live() != other
    assert live() != Manifest().live()
    assert live() != (first, (0, 1, 2), 3)


def test_files_without_a_recorded_content_are_not_saved(tree: Path, tmp_path: Path):
    manifest = Manifest()
    scan = scan_dataset(manifest, tree)
    manifest.apply(scan)
    manifest.set_content(scan.todo[0][1], [], 0, [0.0] * 5, "no sound in it")
    manifest.save(tmp_path / "m.json")
    (file,) = Manifest.load(tmp_path / "m.json").files()
    assert (file["path"], file["skipped"]) == (os.fsdecode(scan.todo[0][0]), "no sound in it")


def test_files_are_not_hashed_again_for_a_new_configuration(tree: Path):
    manifest = Manifest()
    first = update(manifest, tree)
    age(tree)
    update(manifest, tree)
    manifest.clear_contents()
    events = []
    scan = scan_dataset(manifest, tree, progress=lambda *event: events.append(event))
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
    assert set(scan.added) == {"good.wav", "inside.wav", os.path.relpath(deep / "deep.wav", root)}
    reasons = dict(scan.skipped)
    assert {name: reason.split(":")[0] for name, reason in reasons.items()} == {
        "empty.wav": "empty file",
        "text.wav": "not an audio file",
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


def test_listed_files_are_used_instead_of_walking(tree: Path):
    scan = scan_dataset(Manifest(), tree, files=["a.wav", tree / "deep/er/../er/c.flac", "gone.wav"])
    assert scan.added == ["a.wav", "deep/er/c.flac"]
    assert scan.faults == [("gone.wav", "no such file")]
    with pytest.raises(ValueError, match=r"\.\./x\.wav.*inside the dataset"):
        scan_dataset(Manifest(), tree, files=["../x.wav"])
    with pytest.raises(ValueError, match="absolute"):
        Manifest().scan(tree, extensions=["wav"], files=[b"/x.wav"])


def test_a_listed_file_may_be_given_by_any_path_to_it(tree: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "link").symlink_to(tree)
    (tree / "..odd.wav").write_bytes(audio("odd"))
    monkeypatch.chdir(tree.parent)
    paths = ["a.wav", "./a.wav", "deep/../a.wav", "../dataset/a.wav", tree / "a.wav", tmp_path / "link" / "a.wav"]
    for root in (tree, tree.name, f"../{tmp_path.name}/dataset", tmp_path / "link", "link"):
        for path in paths:
            if path == "../dataset/a.wav" and "link" in str(root):
                continue
            assert scan_dataset(Manifest(), root, files=[path]).added == ["a.wav"], (root, path)
    assert scan_dataset(Manifest(), tree, files=["..odd.wav"]).added == ["..odd.wav"]
    for outside in ("..", ".", "", "../x.wav", "deep/../../x.wav", tmp_path / "x.wav", f"{tree}-2/a.wav", tree):
        with pytest.raises(ValueError, match="inside the dataset"):
            scan_dataset(Manifest(), tree, files=[outside])


def test_plain_names_of_listed_files_are_not_resolved(tree: Path, monkeypatch):
    resolved = []
    realpath = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path, **named: resolved.append(path) or realpath(path, **named))
    files = [f"deep/{number}.wav" for number in range(500)]
    scan_dataset(Manifest(), tree, files=[*files, *(tree / file for file in files)])
    assert len(resolved) <= 1


def test_a_damaged_file_is_a_manifest_error(tree: Path, tmp_path: Path):
    manifest = Manifest()
    update(manifest, tree)
    path = tmp_path / "m.json"
    manifest.save(path)
    text = path.read_bytes()
    for bad in (b"", b"{}", text[:-1], text.replace(b"a.wav", b"b.wav"), text + b"\n"):
        path.write_bytes(bad)
        with pytest.raises(ManifestError, match="checksum"):
            Manifest.load(path)


@pytest.mark.parametrize("header", ["", "[]", "1", "{", "{} {}", "nonsense"])
def test_a_header_must_be_a_json_object(header: str):
    with pytest.raises(ValueError, match="header"):
        Manifest().header = header


def test_invalid_contents_are_rejected():
    manifest = Manifest()
    pack = manifest.add_pack("p", 10, 1, CHECKSUM, "cpu", 1, 2)
    for segments in ([(pack, 0, 11)], [(pack, 10, 1)], [(1, 0, 1)], [(pack, 0, 0)], [(pack, 2**64 - 1, 2)]):
        with pytest.raises(ValueError, match="segment"):
            manifest.set_content(b"h" * 32, segments, 0, [0.0] * 5)
    with pytest.raises(ValueError, match="finite"):
        manifest.set_content(b"h" * 32, [], 0, [float("nan")] * 5)
    with pytest.raises(ValueError, match="32 bytes"):
        manifest.has_content(b"short")
    assert not manifest.has_content(b"h" * 32)


def test_ctrl_c_stops_a_scan_within_200_ms(tmp_path: Path):
    with (tmp_path / "long.wav").open("wb") as file:
        file.write(audio())
        file.truncate(60 << 30)  # sparse: ten seconds of hashing
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            scan_dataset(Manifest(), tmp_path)
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert time.monotonic() - start < 0.1 + 0.2


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

    @rule()
    def reload(self) -> None:
        path = Path(self.folder.name) / "manifest.json"
        self.manifest.save(path)
        self.manifest = Manifest.load(path)

    @invariant()
    def hashes_are_current(self) -> None:
        before = {file["path"]: file["content_hash"] for file in self.manifest.files()}
        known = {content for content in before.values() if content}
        scan = update(self.manifest, self.root)
        data = {name: (self.root / name).read_bytes() for name in names(self.root)}
        expected = {name: hash_bytes(data[name]).hex() if data[name][:4] == b"OggS" else None for name in data}
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
