"""Frames of MPEG audio and of AAC in ADTS, to tell them from other bytes."""

from __future__ import annotations

import re

from distill.audio.readers.protocol import Readable

# Frames in a row from which on bytes count as sound.
_ROW, _ROW_AT_START = 4, 2
_TAGS = (b"TAG", b"APE", b"LYR", b"ID3")
_SYNC = re.compile(rb"\xff[\xe2-\xff]", re.DOTALL)
# kbit/s by layer, for MPEG 1 and for MPEG 2.
_RATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HEADER_BYTES = 6
_LONGEST_FRAME = 8192


def find_frames(source: Readable, start: int, searched: int) -> str | None:
    """Return "mpeg" or "aac" if frames begin at `start` or within the next `searched` bytes, else None."""
    # Mostly the first byte is that of a frame.
    for length in (_LONGEST_FRAME, searched):
        for match in _SYNC.finditer(source.read_at(start, length)):
            at = start + match.start()
            # A file may be as short as a frame; among other bytes more is needed. Frames that do not give their length
            # are found in all kinds of samples.
            if at != start and (source.read_at(at + 2, 1) or b"\0")[0] < 0x10 and match[0][1] & 6:
                continue
            kind = _row(source, at, _ROW_AT_START if at == start else _ROW)
            if kind is not None:
                return kind
    return None


def _row(source: Readable, at: int, needed: int) -> str | None:
    """Return the kind of the frames at `at` if as many as needed follow each other, up to the end of the sound."""
    first, found = None, 0
    while found < needed:
        frame = _frame(source, at)
        if frame is None or (first is not None and frame[:2] != first[:2]):
            ends = source.read_at(at, 3) in _TAGS
            break
        first, found, at = frame, found + 1, at + frame[2]
        ends = at >= source.size
        if ends:
            break
    if first is None:
        return None
    return first[0] if found == needed or (ends and found >= needed - 1) else None


def _frame(source: Readable, at: int) -> tuple[str, int, int] | None:
    """Return kind, what stays the same from frame to frame, and length of a frame; None if there is none."""
    head = source.read_at(at, _HEADER_BYTES)
    if len(head) < _HEADER_BYTES or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        same = (head[1] & 0xFE) << 8 | head[2] & 0xFC
        return ("aac", same, length) if length >= 7 and head[2] >> 2 & 15 < 13 else None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate_index, frequency = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or rate_index == 15 or frequency == 3:
        return None
    same = (head[1] & 0xFE) << 8 | head[2] & 0x0C
    if rate_index == 0:
        distance = _to_next(source, at, head)
        return None if distance is None else ("mpeg", same, distance)
    rate = 1000 * _RATES[1 if version == 3 else 2, layer][rate_index - 1]
    sample_rate = (44_100, 48_000, 32_000)[frequency] >> {3: 0, 2: 1, 0: 2}[version]
    padding = head[2] >> 1 & 1
    if layer == 1:
        return "mpeg", same, (12 * rate // sample_rate + padding) * 4
    coefficient = 72 if layer == 3 and version != 3 else 144
    return "mpeg", same, coefficient * rate // sample_rate + padding


def _to_next(source: Readable, at: int, head: bytes) -> int | None:
    """Return the distance to the next frame like that at `at`, whose header does not give its length."""
    found = re.compile(re.escape(head[:2]) + b"[%b%b]" % (re.escape(head[2:3]), re.escape(bytes([head[2] ^ 2]))))
    match = found.search(source.read_at(at, _LONGEST_FRAME), 4)
    return match and match.start()
