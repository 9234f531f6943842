"""AIFF and AIFF-C files."""

from __future__ import annotations

import math
import struct

from distill.audio.readers.chunks import IFF, Chunk, find, walk
from distill.audio.readers.pcm import Encoding, Part, PcmSound, is_placeholder, promised
from distill.audio.readers.protocol import NotForMeError, Readable, SoundError
from distill.types import Reason

_FIRST = 12
# Types of AIFF-C with samples of a width of their own; in the others it follows from the number of bits.
_TYPES = {
    b"raw ": Encoding("unsigned"),
    b"in24": Encoding("signed", 3, big_endian=True),
    b"42ni": Encoding("signed", 3),
    b"42n1": Encoding("signed", 3),
    b"in32": Encoding("signed", 4, big_endian=True),
    b"23ni": Encoding("signed", 4),
    b"fl32": Encoding("float", 4, big_endian=True),
    b"fl64": Encoding("float", 8, big_endian=True),
    b"ulaw": Encoding("mulaw"),
    b"alaw": Encoding("alaw"),
}


def open_aiff(source: Readable) -> PcmSound:
    """Open an AIFF or AIFF-C file of uncompressed samples."""
    return PcmSound(source, iter([_part(source)]))


def _part(source: Readable) -> Part:
    common = sound = None
    for chunk in walk(source, _FIRST, IFF):
        if chunk.name == b"COMM":
            common = common or chunk
        elif chunk.name == b"SSND":
            sound = sound or chunk
        if common and sound:
            break
    common = common or find(source, b"COMM", _FIRST, IFF)
    sound = sound or find(source, b"SSND", _FIRST, IFF)
    if common is None:
        raise SoundError(Reason("is an AIFF file without a COMM chunk", "not-decodable"))
    if sound is None:
        raise SoundError(Reason("is an AIFF file without samples: it has no SSND chunk", "no-samples"))
    # The type of AIFF-C is read whatever the size of the chunk is, which may be wrong.
    stored = source.read_at(common.offset, 22)
    if len(stored) < 18:
        raise SoundError(Reason("is cut short: it ends in its header", "cut-short"))
    channels, frames, bits = struct.unpack_from(">HIH", stored)
    kind = stored[18:22] if source.read_at(8, 4) == b"AIFC" and len(stored) == 22 else b"NONE"
    # Without a type, another chunk follows.
    is_without = common.size < 22 and kind.isupper() and kind != b"NONE"
    encoding = _encoding(b"NONE" if is_without else kind, bits)
    return _sized(source, sound, Part(_rate(stored[8:18]), channels, encoding, 0, None), frames)


def _sized(source: Readable, sound: Chunk, part: Part, frames: int) -> Part:
    """Return `part` with its place: that of the chunk, since the number of frames is often wrong."""
    skipped = struct.unpack(">I", source.read_at(sound.offset, 4).ljust(4, b"\0"))[0]
    offset = sound.offset + 8 + (skipped if skipped <= source.size else 0)
    length = sound.size - (offset - sound.offset)
    if promised(sound.size, source, sound.offset) is None:
        length = -1
    if length <= 0:
        # A pipe: only the number of frames may be known.
        length = 0 if is_placeholder(frames) else frames * max(1, part.frame_bytes)
    return Part(part.sample_rate, part.channels, part.encoding, offset, promised(length, source, offset))


def _encoding(kind: bytes, bits: int) -> Encoding:
    width = (bits + 7) // 8
    if kind in (b"NONE", b"twos"):
        return Encoding("signed", width, big_endian=True)
    if kind == b"sowt":
        return Encoding("signed", width)
    encoding = _TYPES.get(kind) or _TYPES.get(kind.lower())
    if encoding is None:
        raise NotForMeError(f"AIFF-C type {kind!r}")
    return encoding


def _rate(extended: bytes) -> int:
    """Return a sample rate from an 80-bit float."""
    exponent, mantissa = struct.unpack(">HQ", extended)
    try:
        return round(math.ldexp(mantissa, exponent - 16383 - 63))
    except OverflowError:
        return 0
