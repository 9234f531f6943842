"""IRCAM and BICSF files (.sf, .ircam)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from distill.audio.readers.pcm import Encoding, Form, Part, PcmSound
from distill.audio.readers.protocol import Readable, SoundError
from distill.types import Reason

_HEADER_BYTES = 1024
_MOST_CHANNELS = 1024
_ENCODINGS: dict[int, tuple[Form, int]] = {
    1: ("signed", 1),
    2: ("signed", 2),
    3: ("signed", 3),
    4: ("float", 4),
    8: ("float", 8),
    0x10001: ("alaw", 1),
    0x20001: ("mulaw", 1),
    0x40004: ("signed", 4),
}


def open_ircam(source: Readable) -> PcmSound:
    """Open an IRCAM file."""
    return PcmSound(source, _parts(source))


def _parts(source: Readable) -> Iterator[Part]:
    head = source.read_at(0, 16)
    if source.size < _HEADER_BYTES:
        raise SoundError(Reason("is cut short: it ends in its header", "cut-short"))
    # The order of the bytes is that in which the number of channels makes sense.
    is_big_endian = struct.unpack_from("<I", head, 8)[0] > _MOST_CHANNELS
    rate, channels, code = struct.unpack_from(f"{'>' if is_big_endian else '<'}fII", head, 4)
    if code not in _ENCODINGS:
        raise SoundError(Reason(f"is an IRCAM file with samples of the unknown type {code:#x}", "not-decodable"))
    rate = round(rate) if 0 < rate < 1 << 31 else 0
    yield Part(rate, channels, Encoding(*_ENCODINGS[code], is_big_endian), _HEADER_BYTES, None)
