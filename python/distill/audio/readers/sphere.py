"""NIST SPHERE files (.sph, .nist, .wav of speech corpora)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from distill.audio.readers.pcm import Encoding, Form, Part, PcmSound
from distill.audio.readers.protocol import Readable, SoundError
from distill.text import printable
from distill.types import Reason

MAGIC = b"NIST_1A"
_MOST_HEADER_BYTES = 1 << 16
_LONGEST_SHOWN = 32
_FIELD = re.compile(rb"^(\w+) -(?:i|r|s\d+) (\S+)", re.MULTILINE)
_FORMS: dict[str, Form] = {"pcm": "signed", "ulaw": "mulaw", "mu-law": "mulaw", "alaw": "alaw"}


def open_sphere(source: Readable) -> PcmSound:
    """Open a NIST SPHERE file of uncompressed samples."""
    return PcmSound(source, _parts(source))


def _parts(source: Readable) -> Iterator[Part]:
    size = re.match(rb"NIST_1A\r?\n *(\d+)", source.read_at(0, 32))
    header_bytes = min(int(size[1]), _MOST_HEADER_BYTES) if size else 1024
    head = source.read_at(0, header_bytes).partition(b"end_head")[0]
    fields = {name.decode(): value.decode("latin-1") for name, value in _FIELD.findall(head)}
    coding, _, compression = fields.get("sample_coding", "pcm").partition(",")
    if compression:
        name = _short(compression.removeprefix("embedded-").partition("-")[0].capitalize())
        text = f"is a SPHERE file compressed with {name}, which distill does not read: decompress it with sph2pipe"
        raise SoundError(Reason(text, "not-decodable"))
    if coding not in _FORMS:
        raise SoundError(Reason(f"is a SPHERE file of the unknown coding '{_short(coding)}'", "not-decodable"))
    if fields.get("channels_interleaved") == "FALSE":
        text = "is a SPHERE file with one channel after the other, which distill does not read: convert it with SoX"
        raise SoundError(Reason(text, "not-decodable"))
    form = _FORMS[coding]
    width = _whole(fields, "sample_n_bytes", 1 if form != "signed" else 2)
    is_big_endian = fields.get("sample_byte_format") == "10"
    if form == "signed" and not 1 <= width <= 4:
        raise SoundError(Reason(f"is a SPHERE file with samples of {width} bytes", "not-decodable"))
    encoding = Encoding(form, width if form == "signed" else 1, is_big_endian)
    channels, rate = _whole(fields, "channel_count", 1), _whole(fields, "sample_rate", 0)
    frames = _whole(fields, "sample_count", 0)
    length = max(frames * channels * encoding.width, source.size - header_bytes)
    yield Part(rate, channels, encoding, header_bytes, length)


def _short(value: str) -> str:
    """Return a value of the header as it may stand in a message."""
    return printable(value[:_LONGEST_SHOWN])


def _whole(fields: dict[str, str], name: str, default: int) -> int:
    value = fields.get(name, "")
    return int(value) if re.fullmatch(r"\d{1,15}", value) else default
