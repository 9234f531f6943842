"""A fixed serial number for Ogg files: libsndfile draws it at random, but equal sounds are to give equal files."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

_HEADER_BYTES = 27
_SERIAL = 1
_BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def fix_serial_number(file: BinaryIO) -> None:
    """Set the serial number of a file with one stream to 1, and the checksum of each page to what is then right."""
    start = 0
    while True:
        file.seek(start)
        head = file.read(_HEADER_BYTES)
        if len(head) < _HEADER_BYTES:
            return
        lengths = file.read(head[26])
        body = file.read(sum(lengths))
        head = head[:14] + struct.pack("<I", _SERIAL) + head[18:22] + bytes(4) + head[26:]
        file.seek(start)
        file.write(head[:22] + struct.pack("<I", _checksum(head + lengths + body)) + head[26:])
        start += len(head) + len(lengths) + len(body)


def _checksum(page: bytes) -> int:
    """CRC-32 as Ogg has it: that of zlib with the order of bits reversed, and nothing inverted."""
    value = zlib.crc32(page.translate(_BITS_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{value:032b}"[::-1], 2)
