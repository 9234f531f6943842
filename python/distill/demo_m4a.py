"""Writes M4A files with ALAC for the demo: valid, but without compression, so that no encoder is needed."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

_FRAMES_IN_PACKET = 4_096
_BITS = 16
# Bits before the samples of a packet and behind them: the element (1 or 2 channels), with the number of frames, not
# compressed; and its end.
_HEAD_BITS, _END_BITS = 23 + 32, 3


def write_m4a(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write samples as 16-bit ALAC in an MP4 container.

    Parameters
    ----------
    path : Path
        The file.
    samples : ndarray of shape [n] or [n, channels]
        One or two channels, in -1..1.
    rate : int
        Sample rate, Hz; below 65536.
    """
    levels = np.round(np.clip(samples, -1, 1) * (2 ** (_BITS - 1) - 1)).astype(np.int16).reshape(len(samples), -1)
    packets = [_packet(levels[start : start + _FRAMES_IN_PACKET]) for start in range(0, len(levels), _FRAMES_IN_PACKET)]
    head = _box(b"ftyp", b"M4A \0\0\0\0M4A mp42isom")
    # Its size does not depend on where the samples start.
    size = len(head) + len(_moov(packets, levels.shape, rate, 0)) + 8
    path.write_bytes(head + _moov(packets, levels.shape, rate, size) + _box(b"mdat", *packets))


def _packet(levels: np.ndarray) -> bytes:
    """Return an ALAC packet of [n, channels]."""
    frames, channels = levels.shape
    # Element, four bits of its number and twelve unused; flags: has a number of frames, no shifted bytes, verbatim.
    head = (channels - 1) << 20 | 0b1001
    bits = np.unpackbits(np.frombuffer(struct.pack(">II", head, frames), np.uint8))[64 - _HEAD_BITS :]
    end = np.ones(_END_BITS, np.uint8)
    return np.packbits(np.concatenate([bits, np.unpackbits(levels.astype(">i2").view(np.uint8)), end])).tobytes()


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _full(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", flags), *parts)


def _moov(packets: list[bytes], shape: tuple[int, ...], rate: int, offset: int) -> bytes:
    """Return the header, for packets that start at `offset`."""
    frames, channels = shape
    matrix = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    mvhd = struct.pack(">IIIIIH10x", 0, 0, rate, frames, 1 << 16, 1 << 8) + matrix + struct.pack(">24xI", 2)
    tkhd = struct.pack(">IIIII8xHHHH", 0, 0, 1, 0, frames, 0, 0, 1 << 8, 0) + matrix + bytes(8)
    config = struct.pack(">IBBBBBBHIII", _FRAMES_IN_PACKET, 0, _BITS, 40, 10, 14, channels, 255, 0, 0, rate)
    entry = bytes(6) + struct.pack(">H8xHHIHH", 1, channels, _BITS, 0, rate, 0) + _full(b"alac", config)
    whole, rest = divmod(frames, _FRAMES_IN_PACKET)
    times = [(count, length) for count, length in ((whole, _FRAMES_IN_PACKET), (1, rest)) if count and length]
    stbl = _box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1), _box(b"alac", entry)),
        _full(b"stts", struct.pack(">I", len(times)), *(struct.pack(">II", *time) for time in times)),
        _full(b"stsc", struct.pack(">IIII", 1, 1, len(packets), 1)),
        _full(b"stsz", struct.pack(f">II{len(packets)}I", 0, len(packets), *map(len, packets))),
        _full(b"stco", struct.pack(">II", 1, offset)),
    )
    data = _box(b"dinf", _full(b"dref", struct.pack(">I", 1), _full(b"url ", flags=1)))
    mdia = _box(
        b"mdia",
        _full(b"mdhd", struct.pack(">IIIIHH", 0, 0, rate, frames, 0x55C4, 0)),
        _full(b"hdlr", struct.pack(">I4s12x", 0, b"soun"), b"sound\0"),
        _box(b"minf", _full(b"smhd", bytes(4)), data, stbl),
    )
    return _box(b"moov", _full(b"mvhd", mvhd), _box(b"trak", _full(b"tkhd", tkhd, flags=3), mdia))
