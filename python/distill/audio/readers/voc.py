"""Creative Voice files (.voc)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from distill.audio.readers.chunks import check_number
from distill.audio.readers.pcm import Encoding, Form, Part, PcmSound, promised
from distill.audio.readers.protocol import Readable, needs_ffmpeg

MAGIC = b"Creative Voice File\x1a"
_END, _SOUND, _MORE, _EXTENDED, _NEW_SOUND = 0, 1, 2, 8, 9
_ENCODINGS: dict[int, tuple[Form, int]] = {0: ("unsigned", 1), 4: ("signed", 2), 6: ("alaw", 1), 7: ("mulaw", 1)}


def open_voc(source: Readable) -> PcmSound:
    """Open a Creative Voice file of uncompressed samples."""
    return PcmSound(source, _parts(source))


def _parts(source: Readable) -> Iterator[Part]:
    """Yield the blocks with sound. Those of silence, repetitions and texts are left out."""
    at = struct.unpack("<H", source.read_at(20, 2).ljust(2, b"\0"))[0] or 26
    extended: tuple[int, int] | None = None
    last: Part | None = None
    without_sound = 0
    while len(head := source.read_at(at, 4)) == 4 and head[0] != _END:
        offset, size = at + 4, int.from_bytes(head[1:], "little")
        if head[0] == _EXTENDED:
            constant, stereo = struct.unpack("<HxB", source.read_at(offset, 4).ljust(4, b"\0"))
            channels = 1 + (stereo == 1)
            extended = 256_000_000 // (channels * (65536 - constant)), channels
        elif head[0] in (_SOUND, _NEW_SOUND):
            last = _part(source, head[0], offset, size, extended)
            extended = None
            yield last
        elif head[0] == _MORE and last is not None:
            last = Part(last.sample_rate, last.channels, last.encoding, offset, promised(size, source, offset))
            yield last
        if last is not None and last.length is None:
            return
        without_sound = 0 if head[0] in (_SOUND, _MORE, _NEW_SOUND) else without_sound + 1
        check_number(without_sound)
        at = offset + size


def _part(source: Readable, block: int, offset: int, size: int, extended: tuple[int, int] | None) -> Part:
    header_bytes = 2 if block == _SOUND else 12
    head = source.read_at(offset, header_bytes).ljust(header_bytes, b"\0")
    if block == _SOUND:
        rate, channels = extended or (1_000_000 // (256 - head[0]), 1)
        code = head[1]
    else:
        rate, channels, code = struct.unpack("<IxBH4x", head)
    if code not in _ENCODINGS:
        raise needs_ffmpeg(f"is a VOC file with samples of type {code}")
    length = None if size == 0 else promised(max(1, size - header_bytes), source, offset + header_bytes)
    return Part(rate, channels, Encoding(*_ENCODINGS[code]), offset + header_bytes, length)
