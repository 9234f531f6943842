"""Hashes and row checksums, compared with the BLAKE3 package and the official test vectors."""

from __future__ import annotations

import os
from pathlib import Path

import blake3
import pytest

from distill.index import Manifest, hash_bytes, hash_file, row_checksums
from scans import audio, scan_dataset

# From the official test vectors of BLAKE3: input bytes count up modulo 251.
BLAKE3_VECTORS = {
    0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    1: "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
    1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
    1025: "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
}


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
