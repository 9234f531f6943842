"""Samples of the Akai MPC 2000 (.snd)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from distill.audio.readers.pcm import Encoding, Part, PcmSound
from distill.audio.readers.protocol import Readable

_HEADER_BYTES = 42
_LOWEST_RATE = 4000
# The name, its padding, level, tuning and whether it is stereo.
_START = re.compile(rb"\x01\x04[\x20-\x7e\x00]{17}[\x00-\xc8][\x00-\xff][\x00\x01]", re.DOTALL)


def is_sample(head: bytes) -> bool:
    """Return whether a file begins like a sample of the MPC 2000: its mark alone is too short to tell."""
    if len(head) < _HEADER_BYTES or not _START.match(head):
        return False
    (rate,) = struct.unpack_from("<H", head, _HEADER_BYTES - 2)
    return bool(rate >= _LOWEST_RATE)


def open_mpc2000(source: Readable) -> PcmSound:
    """Open a sample of the MPC 2000."""
    return PcmSound(source, _parts(source))


def _parts(source: Readable) -> Iterator[Part]:
    is_stereo, frames, rate = struct.unpack("<21xB8xI6xH", source.read_at(0, _HEADER_BYTES).ljust(_HEADER_BYTES, b"\0"))
    channels = 2 if is_stereo else 1
    # Some programs write a wrong number of frames.
    length = max(frames * 2 * channels, source.size - _HEADER_BYTES)
    yield Part(rate, channels, Encoding("signed", 2), _HEADER_BYTES, length)
