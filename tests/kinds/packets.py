"""Ogg pages, MPEG audio frames, tags and MP4 boxes: just enough to find and change them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

_BITRATES = {
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def mp3_frames(content: bytes, start: int = 0) -> list[int]:
    """Return where the frames of layer 3 begin that follow each other from `start`, and where the last one ends."""
    starts = [start]
    while start + 4 <= len(content) and content[start] == 0xFF and content[start + 1] >= 0xE0:
        version = content[start + 1] >> 3 & 3
        bitrate = _BITRATES[1 if version == 3 else 2, 3][content[start + 2] >> 4]
        rate, padding = _RATES[version][content[start + 2] >> 2 & 3], content[start + 2] >> 1 & 1
        start += (144 if version == 3 else 72) * 1_000 * bitrate // rate + padding
        starts.append(start)
    return starts


def id3v2(body: bytes = b"", padding: int = 50) -> bytes:
    """Return an ID3v2.3 tag with a title and `body`."""
    frames = _id3_frame(b"TIT2", b"\x00a title") + body + bytes(padding)
    size = len(frames)
    return b"ID3\x03\x00\x00" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + frames


def _id3_frame(name: bytes, body: bytes) -> bytes:
    return name + struct.pack(">IH", len(body), 0) + body


def cover(size: int) -> bytes:
    """Return the picture frame of an ID3v2 tag, in which every second byte is 0xFF, as in the sync word of MPEG."""
    picture = b"\xff\xd8" + b"\xff\xfb\x90\x64" * (size // 4)
    return _id3_frame(b"APIC", b"\x00image/jpeg\x00\x03\x00" + picture)


def id3v1() -> bytes:
    """Return an ID3v1 tag."""
    return b"TAG" + b"a title".ljust(30) + bytes(95)


def ape_tag() -> bytes:
    """Return an APEv2 tag with a header."""
    item = struct.pack("<II", 5, 0) + b"Title\x00" + b"a tag"
    numbers = struct.pack("<III", 2_000, len(item) + 32, 1)
    parts = (struct.pack("<I8x", flags) for flags in (0xA000_0000, 0x8000_0000))
    header, footer = (b"APETAGEX" + numbers + flags for flags in parts)
    return header + item + footer


def lyrics_tag() -> bytes:
    """Return a Lyrics3v2 tag; an ID3v1 tag follows it."""
    body = b"LYRICSBEGIN" + b"IND0000200" + b"LYR00005words"
    return body + b"%06d" % len(body) + b"LYRICS200" + id3v1()


class Page(NamedTuple):
    """A page of an Ogg file."""

    start: int
    end: int
    flags: int
    granule: int
    serial: int
    body: int
    """Where its packets begin."""


def pages(content: bytes) -> Iterator[Page]:
    """Yield the pages of an Ogg file."""
    start = 0
    while start < len(content):
        assert content[start : start + 4] == b"OggS", start
        flags, granule, serial = struct.unpack_from("<BqI", content, start + 5)
        body = start + 27 + content[start + 26]
        end = body + sum(content[start + 27 : body])
        yield Page(start, end, flags, granule, serial, body)
        start = end


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        crc = value << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C1_1DB7) & 0xFFFF_FFFF if crc & 1 << 31 else crc << 1
        table.append(crc)
    return table


_CRC = _crc_table()


def edit_pages(content: bytes, edit: Callable[[int, Page, bytearray], bool | None]) -> bytes:
    """Change each page, given its number and bytes; it is left out if `edit` returns False. Its checksum is right."""
    kept = []
    for number, page in enumerate(pages(content)):
        octets = bytearray(content[page.start : page.end])
        if edit(number, page, octets) is False:
            continue
        octets[22:26] = bytes(4)
        crc = 0
        for octet in octets:
            crc = (crc << 8 & 0xFFFF_FFFF) ^ _CRC[crc >> 24 ^ octet]
        octets[22:26] = struct.pack("<I", crc)
        kept.append(bytes(octets))
    return b"".join(kept)


def boxes(content: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, start and end of the MP4 boxes between two positions."""
    end = len(content) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", content, start)
        yield kind, start, start + size
        start += size


def box(kind: bytes, *parts: bytes) -> bytes:
    """Return an MP4 box."""
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def with_itunsmpb(content: bytes, delay: int, padding: int, frames: int) -> bytes:
    """Add iTunes's note of delay, padding and length to an M4A whose moov box is the last one and has no udta box."""
    ((_, start, end),) = (found for found in boxes(content) if found[0] == b"moov")
    assert end == len(content)
    text = f" 00000000 {delay:08X} {padding:08X} {frames:016X} 00000000".encode()
    note = box(
        b"----",
        box(b"mean", bytes(4), b"com.apple.iTunes"),
        box(b"name", bytes(4), b"iTunSMPB"),
        box(b"data", struct.pack(">II", 1, 0), text),
    )
    handler = box(b"hdlr", bytes(8), b"mdirappl", bytes(9))
    moov = b"".join(content[low:high] for kind, low, high in boxes(content, start + 8, end) if kind != b"udta")
    return content[:start] + box(b"moov", moov, box(b"udta", box(b"meta", bytes(4), handler, box(b"ilst", note))))
