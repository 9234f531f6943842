"""Rows that are read from packs: their values, their checksums, and what is read from the disk for them."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import blake3
import numpy as np
import pytest
from safetensors.numpy import load_file

from distill import _native
from distill.cache import CacheReader
from distill.cache.pack import PackWriter
from distill.cache.pack_info import PackInfo
from distill.cache.pack_reader import PackReader
from distill.errors import DamagedPackError, UnreadablePackError
from distill.preprocess.pipeline import preprocess
from sounds import noise, slot_of, training, write

ROW = (2, 64, 100)


def pack_of(folder: Path, rows: np.ndarray, dtype: str = "float32") -> PackReader:
    writer = PackWriter(folder, rows.shape[1:], dtype)
    writer.append(rows)
    info = writer.close()
    return PackReader(folder / info.name, info, rows.shape[1:], dtype)


def crc64_nvme(data: bytes) -> int:
    """The definition, bit by bit: reflected polynomial, start and end inverted."""
    value = 2**64 - 1
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x9A6C9329AC4BC9B5 if value & 1 else 0)
    return value ^ 2**64 - 1


def earlier_pack(path: Path, rows: np.ndarray) -> PackInfo:
    """Write a pack as earlier versions did, with checksums by BLAKE3."""
    size = rows.nbytes
    entries = {
        "features": {"dtype": "F32", "shape": list(rows.shape), "data_offsets": [0, size]},
        "checksums": {"dtype": "U64", "shape": [len(rows)], "data_offsets": [size, size + 8 * len(rows)]},
    }
    header = (1016).to_bytes(8, "little") + json.dumps(entries, separators=(",", ":")).encode().ljust(1016)
    sums = b"".join(blake3.blake3(row.tobytes()).digest()[:8] for row in rows)
    path.write_bytes(header + rows.tobytes() + sums)
    return PackInfo(path.name, len(rows), path.stat().st_size, blake3.blake3(header + sums).hexdigest(), 0, 0)


def test_checksums_are_crc64_nvme(tmp_path):
    assert crc64_nvme(b"123456789") == 0xAE8B14860A799888  # the published check value
    rows = np.random.default_rng(0).standard_normal((3, 2, 5, 7)).astype(np.float32)
    reader = pack_of(tmp_path, rows)
    assert load_file(reader.path)["checksums"].tolist() == [crc64_nvme(row.tobytes()) for row in rows]


def test_packs_of_earlier_versions_are_read_and_checked(tmp_path):
    rows = np.random.default_rng(0).standard_normal((4, *ROW)).astype(np.float32)
    path = tmp_path / "earlier.safetensors"
    info = earlier_pack(path, rows)
    reader = PackReader(path, info, ROW, "float32")
    np.testing.assert_array_equal(reader.read(np.array([3, 0, 3])), rows[[3, 0, 3]])
    assert [bad.tolist() for _, bad in reader.damaged_rows()] == [[]]
    content = bytearray(path.read_bytes())
    content[1024 + 2 * rows[0].nbytes + 77] ^= 4
    path.write_bytes(content)
    reader = PackReader(path, info, ROW, "float32")
    np.testing.assert_array_equal(reader.read(np.array([1])), rows[[1]])
    with pytest.raises(DamagedPackError, match="row 2 does not match"):
        reader.read(np.array([1, 2]))
    assert [bad.tolist() for _, bad in reader.damaged_rows()] == [[2]]


def test_all_halves_are_converted_as_numpy_does(tmp_path):
    """Every 16-bit pattern: normal, subnormal, infinite and not a number."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(4, 2, 64, 128)
    reader = pack_of(tmp_path, halves, "float16")
    stored = reader.read(np.arange(4))
    np.testing.assert_array_equal(stored.view(np.uint16), halves.view(np.uint16))
    out = np.empty((4, 2 * 64 * 128), np.float32)
    index, packs = np.arange(4), [reader.open()]
    assert _native.read_rows(packs, 0 * index, index, index[::-1].copy(), 1024, out, "float16", None, None) is None
    np.testing.assert_array_equal(out[::-1].reshape(halves.shape), halves.astype(np.float32))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_are_normalised_as_numpy_does(tmp_path, dtype):
    """Bit for bit."""
    write(tmp_path / "dataset" / "long.wav", noise(3, 600_000))
    config = training(cache_dtype=dtype, chunk_samples=24_000)
    reader = CacheReader(preprocess(tmp_path / "dataset", config).cache_dir)
    plain = reader.read(np.arange(len(reader)))
    mean = np.array([0.3, -0.02], np.float32).reshape(2, 1, 1)
    scale = np.array([1.7, 0.9], np.float32).reshape(2, 1, 1)
    order = np.random.default_rng(0).integers(0, len(reader), 2 + 4_000_000 // plain[0].nbytes)
    np.testing.assert_array_equal(reader.read(order, mean, scale), (plain[order] - mean) * scale)
    assert plain.std() > 0.1


def test_rows_out_of_memory_cost_what_they_hold(tmp_path):
    """Rows of a pack that is not in memory are read from the disk, and nothing around them."""
    rows = np.random.default_rng(0).standard_normal((400, 2, 128, 94)).astype(np.float32)
    reader = pack_of(tmp_path, rows)
    descriptor = os.open(reader.path, os.O_RDONLY)
    counters = Path("/proc/self/io")
    if not counters.exists():
        pytest.skip("the system does not count what is read from the disk")
    read_bytes = lambda: int(counters.read_text().split("read_bytes:")[1].split()[0])  # noqa: E731
    chosen = np.random.default_rng(1).choice(400, 32, replace=False)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    before = read_bytes()
    np.testing.assert_array_equal(reader.read(chosen), rows[chosen])
    taken = (read_bytes() - before) / (32 * rows[0].nbytes)
    if taken == 0:
        pytest.skip("the folder of temporary files is in memory")
    assert taken <= 1.2


def test_an_error_while_a_row_is_read_names_the_pack(tmp_path, monkeypatch):
    rows = np.random.default_rng(0).standard_normal((4, *ROW)).astype(np.float32)
    reader = pack_of(tmp_path, rows)
    read = _native.read_stored_rows
    fault = OSError(errno.EIO, os.strerror(errno.EIO))
    monkeypatch.setattr(_native, "read_stored_rows", lambda *_: (1, fault))
    with pytest.raises(UnreadablePackError, match=f"{reader.path}: cannot be read now: Input/output error"):
        reader.read(np.arange(2))
    # The file of a network disk was replaced: it is opened again, once.
    stale = [(0, OSError(errno.ESTALE, os.strerror(errno.ESTALE)))]
    monkeypatch.setattr(_native, "read_stored_rows", lambda *given: stale.pop() if stale else read(*given))
    np.testing.assert_array_equal(reader.read(np.arange(4)), rows)
    assert not stale


def test_a_pack_that_shrinks_while_it_is_open_is_damaged(tmp_path):
    write(tmp_path / "dataset" / "one.wav", noise(3, 200_000))
    preprocess(tmp_path / "dataset", training())
    reader = CacheReader(tmp_path / "dataset" / ".cache")
    (path,) = (slot_of(tmp_path / "dataset") / "packs").iterdir()
    os.truncate(path, 1024 + 5)
    with pytest.raises(DamagedPackError, match=f"{path.name}.*cut short"):
        reader.read(np.arange(len(reader)))
