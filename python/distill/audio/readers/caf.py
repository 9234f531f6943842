"""Core Audio files of uncompressed samples."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from distill.audio.readers.chunks import CAF, find, is_chunk, walk
from distill.audio.readers.pcm import Encoding, Part, PcmSound, promised
from distill.audio.readers.protocol import NotForMeError, Readable, SoundError
from distill.audio.readers.views import behind_first_header
from distill.types import Reason

_FIRST = 8
_IS_FLOAT, _IS_LITTLE_ENDIAN = 1, 2


def open_caf(source: Readable) -> PcmSound:
    """Open a Core Audio file of uncompressed samples."""
    source = behind_first_header(source)
    return PcmSound(source, _parts(source))


def _parts(source: Readable) -> Iterator[Part]:
    description = data = None
    for chunk in walk(source, _FIRST, CAF):
        if chunk.name == b"desc":
            description = description or chunk
        elif chunk.name == b"data":
            data = chunk
            break
    description = description or find(source, b"desc", _FIRST, CAF)
    stored = b"" if description is None else source.read_at(description.offset, 32)
    if len(stored) < 32:
        raise SoundError(Reason("is damaged: it does not say what it holds", "not-decodable"))
    rate, kind, flags, packet_bytes, packet_frames, channels, bits = struct.unpack(">d4s5I", stored)
    encoding = _encoding(kind, flags, packet_bytes // max(1, channels) // max(1, packet_frames), bits)
    data = data or find(source, b"data", _FIRST, CAF)
    if data is None:
        raise SoundError(Reason("is a CAF file without samples: it has no data chunk", "no-samples"))
    # The samples follow a count of edits. SoX writes to a pipe that there is nothing else.
    offset = data.offset + 4
    is_empty = data.size == 4 and is_chunk(source, offset, CAF)
    size = 0 if is_empty else promised(data.size - 4 if data.size > 0 else -1, source, offset)
    yield Part(_whole(rate), channels, encoding, offset, size)


def _encoding(kind: bytes, flags: int, width: int, bits: int) -> Encoding:
    if kind in (b"ulaw", b"alaw"):
        return Encoding("mulaw" if kind == b"ulaw" else "alaw")
    if kind != b"lpcm":
        raise NotForMeError(f"CAF codec {kind!r}")
    is_big_endian = not flags & _IS_LITTLE_ENDIAN
    return Encoding("float" if flags & _IS_FLOAT else "signed", width or (bits + 7) // 8, is_big_endian)


def _whole(rate: float) -> int:
    return round(rate) if 0 < rate < 1 << 31 else 0
