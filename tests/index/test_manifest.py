"""The manifest, as Python reads and changes it."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from distill._native import Live
from distill.index import Manifest, ManifestError, hash_bytes
from scans import audio, scan_dataset, update

CHECKSUM = "0" * 64


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
    assert read["version"] == 3
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
        manifest = Manifest()
        manifest.apply(scan)
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
        manifest.set_content(b"short", [], 0, [0.0] * 5)
