"""Sun and NeXT audio files (.au, .snd)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from distill.audio.readers.pcm import Encoding, Form, Part, PcmSound, promised
from distill.audio.readers.protocol import NotForMeError, Readable, SoundError
from distill.types import Reason

_HEADER_BYTES = 24
_ENCODINGS: dict[int, tuple[Form, int]] = {
    1: ("mulaw", 1),
    2: ("signed", 1),
    3: ("signed", 2),
    4: ("signed", 3),
    5: ("signed", 4),
    6: ("float", 4),
    7: ("float", 8),
    27: ("alaw", 1),
}


def open_au(source: Readable) -> PcmSound:
    """Open a Sun audio file of uncompressed samples."""
    return PcmSound(source, _parts(source))


def _parts(source: Readable) -> Iterator[Part]:
    head = source.read_at(0, _HEADER_BYTES)
    if len(head) < _HEADER_BYTES:
        raise SoundError(Reason("is cut short: it ends in its header", "cut-short"))
    is_big_endian = head.startswith(b".snd")
    offset, size, code, rate, channels = struct.unpack_from(f"{'>' if is_big_endian else '<'}5I", head, 4)
    if code not in _ENCODINGS:
        raise NotForMeError(f"AU encoding {code}")
    offset = max(offset, _HEADER_BYTES)
    yield Part(rate, channels, Encoding(*_ENCODINGS[code], is_big_endian), offset, promised(size, source, offset))
