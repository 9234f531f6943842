"""What Vorbis and Opus streams say about themselves, and how many frames their packets hold."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Protocol

from distill.audio.readers.protocol import SoundError
from distill.types import Reason

_OPUS_RATE = 48_000
# Frames at 48 kHz in each frame of a packet, by the five high bits of its first byte.
_OPUS_FRAMES = (480, 960, 1920, 2880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4
# No packet is longer than 120 ms.
_MOST_OPUS_FRAMES = 5760
_AMBISONIC_MATRIX = 3
_NO_COMMENTS = bytes(8)

OTHER_STREAMS = {
    b"\x7fFLAC": "FLAC",
    b"Speex   ": "Speex",
    b"\x80theora": "Theora video",
    b"BBCD\x00": "Dirac video",
    b"OVP80": "VP8 video",
    b"PCM     ": "Ogg PCM",
    b"CELT    ": "CELT",
    b"\x80kate": "Kate subtitles",
    b"fishead": "Ogg Skeleton",
}
"""First bytes of streams that are not read here, and what they are."""


class Codec(Protocol):
    """A stream's codec, which counts the frames of its packets.

    Attributes
    ----------
    magic, header_count : bytes, int
        How its first packet begins, and how many packets its header has.
    kind : str
        Its name.
    sample_rate, channels : int
        Those of what is decoded.
    skipped : int
        Frames before the first one that is to be heard.
    starts_early : bool
        Whether a stream may begin before position 0, from where on it is to be heard.
    headers : list of bytes
        The packets from which a decoder can be set up.
    """

    magic: bytes
    header_count: int
    kind: str
    sample_rate: int
    channels: int
    skipped: int
    starts_early: bool
    headers: list[bytes]

    def __init__(self, packets: list[bytes]) -> None: ...

    def frames(self, packets: Iterable[bytes]) -> int:
        """Return how many frames the next packets give, from the first two bytes of each."""


class Opus:
    """An Opus stream, which is always decoded at 48 kHz. The rate in its header is that of what was encoded.

    Parameters
    ----------
    packets : list of bytes
        Its header packets.
    """

    kind, magic, header_count = "Opus", b"OpusHead", 2
    sample_rate, starts_early = _OPUS_RATE, False

    def __init__(self, packets: list[bytes]) -> None:
        head = packets[0]
        if len(head) < 19 or head[8] > 15:
            raise SoundError(Reason("its Opus header is damaged, or of a later version", "damaged"))
        self.channels, self.skipped, _, gain, family = struct.unpack_from("<BHIhB", head, 9)
        if family == _AMBISONIC_MATRIX:
            raise SoundError(Reason("is Opus with a matrix of ambisonic channels, which is not read", "not-decodable"))
        mapping = head[19 : 21 + self.channels] if family else b""
        if self.channels == 0 or (family == 0 and self.channels > 2) or (family and len(mapping) < 2 + self.channels):
            raise SoundError(Reason("its Opus header is damaged", "damaged"))
        # What is skipped is left to the caller, who knows where the stream begins.
        fixed = struct.pack("<8sBBHIhB", self.magic, 1, self.channels, 0, _OPUS_RATE, gain, family)
        self.headers = [fixed + mapping, b"OpusTags" + _NO_COMMENTS]

    def frames(self, packets: Iterable[bytes]) -> int:
        """Return how many frames the next packets give."""
        return sum(map(_opus_frames, packets))


def _opus_frames(packet: bytes) -> int:
    if not packet:
        return 0
    each, layout = _OPUS_FRAMES[packet[0] >> 3], packet[0] & 3
    if layout < 3:
        return each if layout == 0 else 2 * each
    frames = each * (packet[1] & 63) if len(packet) > 1 else 0
    return frames if frames <= _MOST_OPUS_FRAMES else 0


class Vorbis:
    """A Vorbis stream.

    Parameters
    ----------
    packets : list of bytes
        Its header packets.
    """

    kind, magic, header_count = "Vorbis", b"\x01vorbis", 3
    skipped, starts_early = 0, True

    def __init__(self, packets: list[bytes]) -> None:
        head, _, setup = packets
        if len(head) < 30 or not setup.startswith(b"\x05vorbis"):
            raise SoundError(Reason("its Vorbis header is damaged", "damaged"))
        self.channels, self.sample_rate = struct.unpack_from("<BI", head, 11)
        if self.channels == 0:
            raise SoundError(Reason("its Vorbis header is damaged", "damaged"))
        long_blocks = _vorbis_modes(setup)
        sizes = 1 << (head[28] & 15), 1 << (head[28] >> 4)
        bits = (len(long_blocks) - 1).bit_length()
        # The block size by the first byte of a packet; 0 if that is no packet of audio.
        self._blocks = [
            sizes[long_blocks[mode]]
            if not byte & 1 and (mode := byte >> 1 & ((1 << bits) - 1)) < len(long_blocks)
            else 0
            for byte in range(256)
        ]
        self._previous = 0
        self.headers = [head[:30], b"\x03vorbis" + _NO_COMMENTS + b"\x01", setup]

    def frames(self, packets: Iterable[bytes]) -> int:
        """Return how many frames the next packets give. Blocks overlap, so the first one of a stream gives none."""
        total, previous = 0, self._previous
        for packet in packets:
            block = self._blocks[packet[0]] if packet else 0
            if block:
                if previous:
                    total += (previous + block) // 4
                previous = block
        self._previous = previous
        return total


def _vorbis_modes(setup: bytes) -> list[bool]:
    """Return for each mode of a stream whether its blocks are long. The modes are the last part of the setup header.

    Each has 41 bits: whether it is long, 32 zeros and a mapping, after 6 bits that are their number less one. They are
    read from the end, because what is before them can be understood only with all code books.
    """
    bits = int.from_bytes(setup, "little")
    place = bits.bit_length() - 1  # the last bit that is set ends the header
    modes: list[bool] = []
    found: list[bool] = []
    while place >= 47 and len(modes) < 64:
        place -= 41
        mode = bits >> place & ((1 << 41) - 1)
        if mode >> 1 & 0xFFFF_FFFF or mode >> 33 > 63:
            break
        modes.insert(0, bool(mode & 1))
        if bits >> place - 6 & 63 == len(modes) - 1:
            found = modes.copy()
    if not found:
        raise SoundError(Reason("its Vorbis header is damaged", "damaged"))
    return found


CODECS = (Vorbis, Opus)
