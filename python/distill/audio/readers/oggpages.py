"""Pages of Ogg files: finding, checking and writing them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from distill.audio.readers.protocol import Readable

CONTINUED, FIRST, LAST = 1, 2, 4
"""Flags: the page begins with the rest of a packet; it is the first, or the last page of its stream."""
NO_POSITION = -1
"""The granule position of a page on which no packet ends."""
SEQUENCES = 1 << 32
"""The number after which the numbers of pages begin again."""

_MAGIC = b"OggS"
_HEADER = struct.Struct("<4sBBqIIIB")
# Bytes read at a time, at first and in the end: another reader may begin again with those of the first pages.
_FIRST_WINDOW, _WINDOW = 1 << 14, 1 << 20
_MOST_SEGMENTS = 255
# Stops a search through bytes that look like the start of a page again and again, which would take hours.
_MOST_FALSE_STARTS = 4096
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Page(NamedTuple):
    """A page that is complete and has the right checksum."""

    flags: int
    position: int
    """Granule position."""
    serial: int
    """Number of its stream."""
    sequence: int
    """Number of the page in its stream."""
    lacing: bytes
    """Sizes of its segments. A packet ends with a segment of less than 255 bytes."""
    raw: bytes
    """All of the page."""
    is_behind_others: bool = False
    """Whether bytes before it are no good page."""

    @property
    def body(self) -> bytes:
        """What follows its header."""
        return self.raw[_HEADER.size + len(self.lacing) :]

    def changed(self, *, flags: int, position: int, sequence: int) -> Page:
        """Return the page with other values in its header."""
        if (flags, position, sequence) == (self.flags, self.position, self.sequence):
            return self
        return page_of(flags, position, self.serial, sequence, self.lacing, self.body)


def page_of(flags: int, position: int, serial: int, sequence: int, lacing: bytes, body: bytes) -> Page:
    """Return a page with the right checksum."""
    header = (_MAGIC, 0, flags, position, serial, sequence)
    unchecked = _HEADER.pack(*header, 0, len(lacing)) + lacing + body
    checked = _HEADER.pack(*header, _checksum(unchecked), len(lacing)) + unchecked[_HEADER.size :]
    return Page(flags, position, serial, sequence, lacing, checked)


def read_pages(source: Readable) -> Iterator[Page]:
    """Yield all good pages of a file; what is between them is passed over.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    buffer, offset, ended, false_starts = b"", 0, False, 0
    window = _FIRST_WINDOW
    place = good = 0  # in the buffer: where to look, and where the last page ends
    while false_starts < _MOST_FALSE_STARTS:
        start = buffer.find(_MAGIC, place)
        page, end = (None, 0) if start < 0 else _page_at(buffer, start)
        if page is not None:
            yield page._replace(is_behind_others=start > good)
            place, good, false_starts = end, end, 0
        elif start >= 0 and (end or ended):
            place, false_starts = start + 1, false_starts + 1
        elif ended:
            return
        else:
            # The last bytes may be the start of the magic number.
            kept = start if start >= 0 else max(place, len(buffer) - 3)
            more = source.read_at(offset, window)
            buffer, place, good = buffer[kept:] + more, 0, good - kept
            offset, ended = offset + len(more), len(more) < window
            window = min(2 * window, _WINDOW)


def _page_at(buffer: bytes, start: int) -> tuple[Page | None, int]:
    """Return the page at `start` and its end; (None, 0) if `buffer` ends before the page, (None, 1) if it is bad."""
    lacing_start = start + _HEADER.size
    if len(buffer) < lacing_start:
        return None, 0
    _, version, flags, position, serial, sequence, checksum, segments = _HEADER.unpack_from(buffer, start)
    if version != 0:
        return None, 1
    body_start = lacing_start + segments
    lacing = buffer[lacing_start:body_start]
    end = body_start + sum(lacing)
    if len(lacing) < segments or len(buffer) < end:
        return None, 0
    checksum_start = lacing_start - 5
    if _checksum(buffer[start:checksum_start] + bytes(4) + buffer[checksum_start + 4 : end]) != checksum:
        return None, 1
    return Page(flags, position, serial, sequence, lacing, buffer[start:end]), end


def _checksum(page: bytes) -> int:
    """Return the CRC of Ogg: that of zlib with all bits in reverse order, and not inverted."""
    reversed_sum = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int.from_bytes(reversed_sum.to_bytes(4, "big").translate(_REVERSED_BITS), "little")


def header_pages(packets: list[bytes], serial: int, following: int) -> list[Page]:
    """Return the pages that begin a stream with some packets, if possible numbered up to the one that follows.

    The first packet has a page of its own.
    """
    parts = [(_lacing(packets[0]), packets[0])]
    lacing, body = b"".join(map(_lacing, packets[1:])), b"".join(packets[1:])
    start = 0
    for first in range(0, len(lacing), _MOST_SEGMENTS):
        sizes = lacing[first : first + _MOST_SEGMENTS]
        parts.append((sizes, body[start : start + sum(sizes)]))
        start += sum(sizes)
    pages: list[Page] = []
    number, flags = max(following - len(parts), 0), FIRST
    for sizes, content in parts:
        position = NO_POSITION if min(sizes) == 255 else 0
        pages.append(page_of(flags, position, serial, number + len(pages), sizes, content))
        flags = CONTINUED if sizes[-1] == 255 else 0
    return pages


def _lacing(packet: bytes) -> bytes:
    return b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255])
