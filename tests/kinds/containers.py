"""Containers of PCM written byte by byte, so that any field of a header can be wrong."""

from __future__ import annotations

import io
import struct

import numpy as np
import soundfile

FORMATS = {"u8": 1, "s8": 1, "s16": 2, "s24": 3, "s32": 4, "f32": 4, "f64": 8}
"""Bytes of a sample."""


def sound(frames: int = 13_231, channels: int = 2, rate: int = 44_100, seed: int = 0) -> np.ndarray:
    """Return noise and a sine, [frames, channels], float64: no two stretches of it are alike."""
    random = np.random.default_rng([seed, frames, channels])
    time = np.arange(frames)[:, None] / rate
    tones = 0.3 * np.sin(2 * np.pi * 440 * (1 + np.arange(channels)) * time)
    return 0.6 * (tones + 0.1 * random.standard_normal((frames, channels)).clip(-3, 3))


def pcm(samples: np.ndarray, kind: str) -> tuple[bytes, np.ndarray]:
    """Return the bytes of `samples` and what they say, as float64; `kind` is such as "s16le" or "u8"."""
    name, order = kind.removesuffix("le").removesuffix("be"), ">" if kind.endswith("be") else "<"
    width = FORMATS[name]
    if name[0] == "f":
        values = samples.astype(f"{order}f{width}")
        return values.tobytes(), values.astype(np.float64)
    scale = 2.0 ** (8 * width - 1)
    levels = np.round(samples * (scale - 1)).astype(np.int64)
    written = levels / scale
    if name == "u8":
        return (levels + 128).astype(np.uint8).tobytes(), written
    octets = (levels[..., None] >> (8 * np.arange(width))).astype(np.uint8)
    return (octets[..., ::-1] if order == ">" else octets).tobytes(), written


LOG_ATOL = 0.02
"""µ-law and A-law have about 5 significant bits."""


def log_pcm(samples: np.ndarray, subtype: str) -> bytes:
    """Return the bytes of "ULAW" or "ALAW"."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 44_100, format="RAW", subtype=subtype)
    return buffer.getvalue()


def chunk(tag: bytes, body: bytes, *, size: int | None = None, order: str = "<") -> bytes:
    """Return a chunk of a RIFF or AIFF file, which may lie about its size."""
    return tag + struct.pack(f"{order}I", len(body) if size is None else size) + body + bytes(len(body) % 2)


def fmt(code: int, channels: int, rate: int, bits: int, *, block: int | None = None, order: str = "<") -> bytes:
    """Return a "fmt " chunk."""
    block = channels * ((bits + 7) // 8) if block is None else block
    return chunk(b"fmt ", struct.pack(f"{order}HHIIHH", code, channels, rate, rate * block, block, bits), order=order)


def extensible(code: int, channels: int, rate: int, bits: int, valid: int) -> bytes:
    """Return a "fmt " chunk of WAVE_FORMAT_EXTENSIBLE."""
    block = channels * bits // 8
    head = struct.pack("<HHIIHH", 0xFFFE, channels, rate, rate * block, block, bits)
    mask = (1 << channels) - 1
    guid = struct.pack("<H", code) + bytes.fromhex("000000001000800000aa00389b71")
    return chunk(b"fmt ", head + struct.pack("<HHI", 22, valid, mask) + guid)


def riff(chunks: bytes, *, tag: bytes = b"RIFF", size: int | None = None) -> bytes:
    """Return a RIFF, RIFX, RF64 or BW64 file of `chunks`."""
    order = ">" if tag == b"RIFX" else "<"
    return tag + struct.pack(f"{order}I", 4 + len(chunks) if size is None else size) + b"WAVE" + chunks


def rf64(format_chunk: bytes, data: bytes, *, tag: bytes = b"RF64", sizes: tuple[int, int, int] | None = None) -> bytes:
    """Return a file of 64-bit sizes: (RIFF, data, frames) of the "ds64" chunk."""
    rest = format_chunk + chunk(b"data", data, size=0xFFFF_FFFF)
    ds64 = struct.pack("<QQQI", *(sizes or (4 + 36 + len(rest), len(data), 0)), 0)
    return riff(chunk(b"ds64", ds64) + rest, tag=tag, size=0xFFFF_FFFF)


_W64 = bytes.fromhex("f3acd3118cd100c04f8edb8a")


def w64(format_chunk: bytes, data: bytes, *, data_size: int | None = None) -> bytes:
    """Return a Sony Wave64 file."""
    body = format_chunk[8:]
    parts = b"fmt " + _W64 + struct.pack("<Q", 24 + len(body)) + body
    parts += b"data" + _W64 + struct.pack("<Q", 24 + (len(data) if data_size is None else data_size)) + data
    parts += bytes(-len(parts) % 8)
    head = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")
    return head + struct.pack("<Q", 40 + len(parts)) + b"wave" + _W64 + parts


def _extended(rate: int) -> bytes:
    """Return an 80-bit float."""
    exponent = rate.bit_length() - 1
    return struct.pack(">HQ", 16_383 + exponent, rate << (63 - exponent))


def aiff(
    data: bytes,
    channels: int,
    frames: int,
    bits: int,
    rate: int = 44_100,
    *,
    compression: bytes = b"",
    ssnd_size: int | None = None,
    offset: int = 0,
    before: bytes = b"",
    form_size: int | None = None,
) -> bytes:
    """Return an AIFF file, or AIFC if `compression` is given."""
    comm = struct.pack(">hIh", channels, frames, bits) + _extended(rate)
    if compression:
        comm += compression + b"\x0enot compressed\x00"
    ssnd = chunk(b"SSND", struct.pack(">II", offset, 0) + bytes(offset) + data, size=ssnd_size, order=">")
    version = chunk(b"FVER", b"\xa2\x80\x51\x40", order=">") if compression else b""
    body = (b"AIFC" if compression else b"AIFF") + version + chunk(b"COMM", comm, order=">") + before + ssnd
    return b"FORM" + struct.pack(">I", len(body) if form_size is None else form_size) + body


def caf(
    data: bytes, channels: int, bits: int, rate: int = 44_100, *, flags: int = 0, codec: bytes = b"lpcm", size=None
) -> bytes:
    """Return a CAF file; flag 1 is float, flag 2 little-endian; a size of -1 means up to the file's end."""
    block = channels * bits // 8
    desc = struct.pack(">d4sIIIII", rate, codec, flags, block, 1, channels, bits)
    head = b"caff\x00\x01\x00\x00" + b"desc" + struct.pack(">q", len(desc)) + desc
    free = b"free" + struct.pack(">q", 5) + bytes(5)
    return head + free + b"data" + struct.pack(">q", 4 + len(data) if size is None else size) + bytes(4) + data


def au(data: bytes, encoding: int, channels: int, rate: int = 44_100, *, size=None, little: bool = False) -> bytes:
    """Return an AU file with an annotation of 8 bytes."""
    size = len(data) if size is None else size
    magic, order = (b"dns.", "<") if little else (b".snd", ">")
    return magic + struct.pack(f"{order}IIIII", 32, size, encoding, rate, channels) + b"a sound\x00" + data


def sphere(data: bytes, channels: int, frames: int, *, coding: str = "pcm", width: int = 2, order: str = "01") -> bytes:
    """Return a NIST SPHERE file."""
    lines = [
        "NIST_1A\n   1024",
        f"channel_count -i {channels}",
        f"sample_count -i {frames}",
        "sample_rate -i 16000",
        f"sample_n_bytes -i {width}",
        f"sample_byte_format -s{len(order)} {order}",
        f"sample_sig_bits -i {8 * width}",
        f"sample_coding -s{len(coding)} {coding}",
        "end_head\n",
    ]
    return "\n".join(lines).encode().ljust(1_024) + data


def ircam(data: bytes, code: int, channels: int, rate: int = 44_100, *, big: bool = False) -> bytes:
    """Return an IRCAM file; code 2 is 16-bit, 4 is float."""
    magic, order = (b"\x64\xa3\x02\x00", ">") if big else (b"\x64\xa3\x01\x00", "<")
    return (magic + struct.pack(f"{order}fII", rate, channels, code)).ljust(1_024, b"\x00") + data


def voc(*blocks: bytes) -> bytes:
    """Return a Creative Voice file of blocks."""
    return b"Creative Voice File\x1a" + struct.pack("<HHH", 26, 0x010A, 0x1129) + b"".join(blocks) + b"\x00"


def voc_block(kind: int, body: bytes) -> bytes:
    """Return a block of a Creative Voice file."""
    return bytes([kind]) + struct.pack("<I", len(body))[:3] + body


def voc_new(data: bytes, code: int, bits: int, channels: int, rate: int) -> bytes:
    """Return a block 9 of a Creative Voice file: 0 is unsigned 8-bit, 4 is 16-bit, 7 is µ-law."""
    return voc_block(9, struct.pack("<IBBH4x", rate, bits, channels, code) + data)


def mpc(data: bytes, frames: int, rate: int = 44_100) -> bytes:
    """Return an Akai MPC 2000 file, 16-bit mono."""
    head = b"\x01\x04" + b"kick".ljust(16) + b"\x00" + bytes([100, 0, 0])
    head += struct.pack("<IIIIBBH", 0, frames, frames, 0, 0, 1, rate)
    return head + data
