"""WAV files: RIFF, RIFX, RF64, BW64 and Wave64."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from distill.audio.readers.chunks import (
    RIFF,
    RIFX,
    WAVE64,
    Chunk,
    Layout,
    after,
    check_number,
    chunk_at,
    find,
    is_chunk,
)
from distill.audio.readers.pcm import Encoding, Part, PcmSound, promised
from distill.audio.readers.protocol import NotForMeError, Readable, SoundError, needs_ffmpeg
from distill.audio.readers.views import View, behind_first_header
from distill.types import Reason

NAMES = (b"RIFF", b"RIFX", b"RF64", b"BW64")
_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
# ADPCM of several makers, GSM and MPEG; and PCM of odd widths, to be refused in other words.
_COMPRESSED = (_PCM, _FLOAT, _EXTENSIBLE, 0x02, 0x11, 0x14, 0x31, 0x38, 0x40, 0x50, 0x55)
_GSM, _GSM_FRAMES = 0x31, 320
_UNKNOWN_SIZE = 0xFFFF_FFFF
_WRAP = 1 << 32
_LONGEST_FORMAT = 1 << 10


@dataclass(frozen=True)
class Format:
    """What a format chunk says."""

    tag: int
    channels: int
    sample_rate: int
    align: int
    """Bytes of a frame."""
    bits: int
    """Of a sample; 0 if it does not say."""
    extra: bytes = b""
    big_endian: bool = False


def open_wav(source: Readable) -> PcmSound:
    """Open a WAV file of uncompressed samples."""
    layout = RIFX if source.read_at(0, 4) == b"RIFX" else RIFF
    return PcmSound(source, _parts(source, layout, 12))


def open_wave64(source: Readable) -> PcmSound:
    """Open a Wave64 file of uncompressed samples."""
    source = behind_first_header(source)
    return PcmSound(source, _parts(source, WAVE64, 40))


def _parts(source: Readable, layout: Layout, at: int) -> Iterator[Part]:
    """Yield the data chunks of a file, which may be several, and stand before their format."""
    form: Format | None = None
    found = False
    waiting: list[Chunk] = []
    for chunk in _chunks(source, layout, at):
        name = chunk.name[:4]
        if name == b"fmt ":
            form = _format(source, chunk, layout)
            yield from (_part(source, form, data) for data in waiting)
            waiting.clear()
        elif name == b"data":
            found = True
            if form is None:
                waiting.append(chunk)
            else:
                yield _part(source, form, chunk)
    if form is not None and found:
        return
    # A chunk with a wrong size hides the others.
    form = form or _found_format(source, layout, at)
    data: Sequence[Chunk | None] = waiting or [find(source, b"data", at, layout)]
    for found_data in data:
        if found_data is None:
            raise SoundError(Reason("is a WAV file without samples: it has no data chunk", "no-samples"))
        yield _part(source, form, _sized(source, found_data, layout, 0))


def _found_format(source: Readable, layout: Layout, at: int) -> Format:
    chunk = find(source, b"fmt ", at, layout)
    if chunk is None:
        raise SoundError(Reason("is a WAV file without a format chunk", "not-decodable"))
    return _format(source, chunk, layout)


def _chunks(source: Readable, layout: Layout, at: int) -> Iterator[Chunk]:
    """Yield chunks, those of data with their true size, or -1 if it is not known."""
    size_64, number = 0, 0
    while (chunk := chunk_at(source, at, layout)) is not None:
        check_number(number)
        number += 1
        if chunk.name in NAMES and source.read_at(chunk.offset, 4) == b"WAVE":
            at = chunk.offset + 4  # another file was appended to this one
            continue
        if chunk.name == b"ds64" and chunk.size >= 16:
            size_64 = struct.unpack("<8xq", source.read_at(chunk.offset, 16).ljust(16, b"\0"))[0]
        if chunk.name[:4] == b"data":
            chunk = _sized(source, chunk, layout, size_64)
        yield chunk
        if chunk.size < 0:
            return
        at = after(source, chunk, layout)


def _sized(source: Readable, chunk: Chunk, layout: Layout, size_64: int) -> Chunk:
    """Return a data chunk with the size that its samples really have, or -1 if only the end of the file says."""
    size, rest = chunk.size, source.size - chunk.offset
    if layout is not WAVE64 and size_64 > 0 and (size == _UNKNOWN_SIZE or size_64 % _WRAP == size):
        size = size_64
    elif layout is not WAVE64 and size == 0 and not is_chunk(source, chunk.offset, layout) and rest > 0:
        size = -1
    elif layout is not WAVE64 and rest - size >= _WRAP - 8 and not is_chunk(source, chunk.offset + size, layout):
        # Files of more than 4 GiB whose size did not fit into the field.
        size += (rest - size + 8) // _WRAP * _WRAP
    elif layout is WAVE64 and size <= 0:
        size = -1
    if size > 0 and promised(size, source, chunk.offset) is None:
        size = -1
    return chunk._replace(size=size)


def _part(source: Readable, form: Format, data: Chunk) -> Part:
    encoding = _encoding(source, form, data.offset)
    return Part(form.sample_rate, form.channels, encoding, data.offset, None if data.size < 0 else data.size)


def _format(source: Readable, chunk: Chunk, layout: Layout) -> Format:
    stored = source.read_at(chunk.offset, max(0, min(chunk.size, 64)))
    order = ">" if layout is RIFX else "<"
    if len(stored) < 14:
        raise SoundError(Reason("is damaged: its format chunk is too short", "not-decodable"))
    tag, channels, rate, _, align = struct.unpack_from(f"{order}HHIIH", stored)
    bits = struct.unpack_from(f"{order}H", stored, 14)[0] if len(stored) >= 16 else 0
    if tag == _EXTENSIBLE and len(stored) >= 40:
        # The first bytes of the GUID are the tag, or in that of another codec no tag that is known here.
        tag = struct.unpack_from(f"{order}I", stored, 24)[0]
    return Format(tag, channels, rate, align, bits, stored[18:], big_endian=layout is RIFX)


def _encoding(source: Readable, form: Format, offset: int) -> Encoding:
    """Return the encoding of samples.

    Raises
    ------
    NotForMeError
        If they are compressed.
    """
    width = (form.bits + 7) // 8
    if form.tag in (_ALAW, _MULAW):
        return Encoding("alaw" if form.tag == _ALAW else "mulaw")
    if width == 0:
        width = form.align // max(1, form.channels) or 1
    if form.tag == _FLOAT:
        return Encoding("float", width, form.big_endian)
    # Some programs write the extensible tag without what should follow it.
    if form.tag not in (_PCM, _EXTENSIBLE):
        raise NotForMeError(f"format tag {form.tag:#x}")
    if width == 1:
        return Encoding("unsigned")
    if width == 3 and form.align == 4 * form.channels:
        return _in_32_bits(source.read_at(offset, 4096), form)
    if width == 4 and form.extra == b"\1\0":
        return Encoding("float", 4, form.big_endian, full_scale=2.0**15)
    return Encoding("signed", width, form.big_endian)


def _in_32_bits(first: bytes, form: Format) -> Encoding:
    """Return the encoding of 24-bit samples that take 4 bytes: left-justified, or floats as Cool Edit wrote them."""
    samples = np.frombuffer(first[: len(first) // 4 * 4], np.uint8).reshape(-1, 4)
    if samples[:, 3 if form.big_endian else 0].any():
        return Encoding("float", 4, form.big_endian, full_scale=2.0**23)
    return Encoding("signed", 4, form.big_endian)


def compressed(source: Readable) -> tuple[View, Reason | None, int | None]:
    """Return a WAV file of compressed samples with a header that is right.

    Also why sound is missing at its end, and the number of frames where libsndfile does not know it.
    """
    layout = RIFX if source.read_at(0, 4) == b"RIFX" else RIFF
    found: dict[bytes, Chunk] = {}
    for chunk in _chunks(source, layout, 12):
        found.setdefault(chunk.name, chunk)
    hidden = None if b"data" in found else find(source, b"data", 12, layout)
    if hidden is not None:
        found[b"data"] = _sized(source, hidden, layout, 0)
    data, form_chunk = found.get(b"data"), found.get(b"fmt ") or find(source, b"fmt ", 12, layout)
    if form_chunk is None or data is None:
        raise SoundError(Reason("is a WAV file without a format or data chunk", "not-decodable"))
    rest = source.size - data.offset
    length = rest if data.size < 0 else min(data.size, rest)
    missing = None
    if data.size > rest:
        text = f"cut short: its header promises {data.size} bytes of sound, the file holds {rest}"
        missing = Reason(text, "cut-short")
    form = _format(source, form_chunk, layout)
    if form.tag not in _COMPRESSED:
        raise needs_ffmpeg(f"is a WAV file with the codec {form.tag:#06x}")
    # Of an odd number of bytes libsndfile makes a block too many.
    frames = length // form.align * _GSM_FRAMES if form.tag == _GSM and form.align else None
    kept = [form_chunk, found[b"fact"]] if b"fact" in found else [form_chunk]
    return View(source, data.offset, length, prefix=_header(source, kept, length, layout)), missing, frames


def _header(source: Readable, chunks: list[Chunk], length: int, layout: Layout) -> bytes:
    """Return the header of a WAV file with these chunks and `length` bytes of sound."""
    order, body = (">" if layout is RIFX else "<"), b""
    for chunk in chunks:
        stored = source.read_at(chunk.offset, min(chunk.size, _LONGEST_FORMAT))
        body += struct.pack(f"{order}4sI", chunk.name, len(stored)) + stored + b"\0" * (len(stored) % 2)
    size = min(length, _UNKNOWN_SIZE - _LONGEST_FORMAT)
    body = b"WAVE" + body + struct.pack(f"{order}4sI", b"data", size)
    outer = b"RIFX" if layout is RIFX else b"RIFF"
    return struct.pack(f"{order}4sI", outer, min(len(body) + length, _UNKNOWN_SIZE)) + body
