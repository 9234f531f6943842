"""Ogg files taken apart into pages and put together again, in plain Python after RFC 3533."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

_HEADER = struct.Struct("<4sBBqIIIB")
CONTINUED, FIRST, LAST = 1, 2, 4


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFF_FFFF
        table.append(value)
    return table


_TABLE = _table()


@dataclass(frozen=True)
class Page:
    flags: int
    position: int
    serial: int
    sequence: int
    lacing: bytes
    body: bytes

    def __bytes__(self) -> bytes:
        fields = (b"OggS", 0, self.flags, self.position, self.serial, self.sequence)
        page = _HEADER.pack(*fields, 0, len(self.lacing)) + self.lacing + self.body
        value = 0
        for byte in page:
            value = (value << 8 & 0xFFFF_FFFF) ^ _TABLE[value >> 24 ^ byte]
        return page[:22] + struct.pack("<I", value) + page[26:]


def pages_of(file: Path | bytes) -> list[Page]:
    """Take a good file apart."""
    data = file if isinstance(file, bytes) else file.read_bytes()
    pages, start = [], 0
    while start < len(data):
        magic, _, flags, position, serial, sequence, _, segments = _HEADER.unpack_from(data, start)
        assert magic == b"OggS"
        body = start + _HEADER.size + segments
        lacing = data[body - segments : body]
        start = body + sum(lacing)
        pages.append(Page(flags, position, serial, sequence, lacing, data[body:start]))
    return pages


def join(path: Path, *parts: Page | bytes) -> Path:
    """Write pages, and other bytes between them."""
    path.write_bytes(b"".join(bytes(part) for part in parts))
    return path


def moved(pages: list[Page], frames: int) -> list[Page]:
    """Add to the granule positions of pages with sound."""
    return [replace(page, position=page.position + frames) if page.position > 0 else page for page in pages]


def changed_header(page: Page, start: int, value: bytes) -> Page:
    """Replace bytes of a header page."""
    return replace(page, body=page.body[:start] + value + page.body[start + len(value) :])


def encoded(path: Path, subtype: str, samples: np.ndarray, rate: int) -> Path:
    """Write a file with libsndfile."""
    soundfile.write(path, samples, rate, format="OGG", subtype=subtype)
    return path
