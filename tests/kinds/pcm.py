"""Rows of PCM, whole and damaged, all written byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from kinds.containers import (
    aiff,
    au,
    caf,
    chunk,
    extensible,
    fmt,
    ircam,
    mpc,
    pcm,
    rf64,
    riff,
    sound,
    sphere,
    voc,
    voc_block,
    voc_new,
    w64,
)
from kinds.table import Made, Refused, Row, ffmpeg, tool

ROWS: list[Row] = []
_CODES = {"u8": 1, "s16le": 1, "s24le": 1, "s32le": 1, "f32le": 3, "f64le": 3}
# µ-law and A-law have about 5 significant bits.
_LOG_ATOL = 0.02


def _row(name: str, build: Callable[[], tuple[bytes, Made]], *tools: str, refused: Refused | None = None) -> None:
    def make(path: Path) -> Made:
        content, made = build()
        path.write_bytes(content)
        return made

    ROWS.append(Row(name, make, tools, refused))


def _log(samples: np.ndarray, subtype: str) -> bytes:
    """Return the bytes of µ-law or A-law."""
    import io

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 44_100, format="RAW", subtype=subtype)
    return buffer.getvalue()


def _wav(kind: str = "s16le", channels: int = 2, rate: int = 44_100, **file) -> tuple[bytes, Made]:
    data, written = pcm(sound(channels=channels, rate=rate), kind)
    bits = 8 * len(data) // written.size
    return wav_file(fmt(_CODES[kind], channels, rate, bits), data, **file), Made(written, rate)


def wav_file(
    format_chunk: bytes,
    data: bytes,
    *,
    before: bytes = b"",
    after: bytes = b"",
    size: int | None = None,
    riff_size: int | None = None,
) -> bytes:
    """Return a WAV file with chunks before and after the samples."""
    return riff(format_chunk + before + chunk(b"data", data, size=size) + after, size=riff_size)


def _wav_rows() -> None:
    for kind in _CODES:
        _row(f"wav-{kind}.wav", lambda kind=kind: _wav(kind))
    _row("wav-mono.wav", lambda: _wav(channels=1))
    _row("wav-8-channels.wav", lambda: _wav(channels=8))
    _row("wav-8000.wav", lambda: _wav(rate=8_000))
    _row("wav-192000.wav", lambda: _wav("s24le", rate=192_000))
    for code, subtype in ((7, "ULAW"), (6, "ALAW")):
        _row(
            f"wav-{subtype.lower()}.wav",
            lambda code=code, subtype=subtype: (
                wav_file(fmt(code, 2, 44_100, 8), _log(sound(), subtype)),
                Made(sound(), atol=_LOG_ATOL),
            ),
        )
    for kind, code, valid, channels in (("s16le", 1, 16, 2), ("s32le", 1, 24, 2), ("f32le", 3, 32, 6)):

        def spread(kind=kind, code=code, valid=valid, channels=channels):
            data, written = pcm(sound(channels=channels), kind)
            bits = 8 * len(data) // written.size
            return wav_file(extensible(code, channels, 44_100, bits, valid), data), Made(written)

        _row(f"wav-extensible-{kind}-{valid}-{channels}.wav", spread)

    def narrow(bits: int, kind: str):
        data, written = pcm(sound(), kind)
        return wav_file(fmt(1, 2, 44_100, bits), data), Made(written)

    _row("wav-20-bits.wav", lambda: narrow(20, "s24le"))
    _row("wav-12-bits.wav", lambda: narrow(12, "s16le"))


def _wav_sizes() -> None:
    _row("wav-crashed-recorder.wav", lambda: _wav(size=0, riff_size=4_088))
    _row("wav-crashed-recorder-float.wav", lambda: _wav("f32le", size=0, riff_size=0))
    _row("wav-pipe.wav", lambda: _wav(size=0xFFFF_FFFF, riff_size=0xFFFF_FFFF))
    _row("wav-pipe-7fff.wav", lambda: _wav(size=0x7FFF_F000, riff_size=0x7FFF_F024))
    _row("wav-riff-size-0.wav", lambda: _wav(riff_size=0))
    _row("wav-riff-size-large.wav", lambda: _wav(riff_size=1 << 30))
    _row("wav-riff-size-small.wav", lambda: _wav(riff_size=100))
    whole = 13_231 * 4
    # Less than a frame is missing, so every frame that is promised is there.
    _row("wav-3-bytes-too-large.wav", lambda: _wav(size=whole + 3))

    def lies(missing: int):
        content, made = _wav(size=whole + missing)
        return content, Made(made.written, partial="cut-short")

    _row("wav-8-bytes-too-large.wav", lambda: lies(8))
    _row("wav-megabyte-too-large.wav", lambda: lies(1 << 20))

    def cut(kind: str, frames: int, odd: int = 0):
        content, made = _wav(kind)
        block = 2 * int(kind[1:3]) // 8
        return content[: 44 + frames * block + odd], Made(made.written, stop=frames, partial="cut-short")

    _row("wav-cut.wav", lambda: cut("s16le", 5_000))
    _row("wav-cut-in-a-frame.wav", lambda: cut("s24le", 5_000, odd=5))
    _row("wav-cut-to-one-frame.wav", lambda: cut("s16le", 1))

    def ragged():
        data, written = pcm(sound(), "s16le")
        return wav_file(fmt(1, 2, 44_100, 16), data + b"\x07"), Made(written)

    _row("wav-not-a-whole-number-of-frames.wav", ragged)


def _wav_chunks() -> None:
    before = {
        "junk-and-odd-bext": chunk(b"JUNK", bytes(28)) + chunk(b"bext", b"x" * 603),
        "bad-peak": chunk(b"PEAK", b"\x01\x00\x00"),
        "peak-of-9-channels": chunk(b"PEAK", struct.pack("<II", 1, 0) + bytes(72)),
        "bad-list": chunk(b"LIST", b"INFO" + b"INAM" + struct.pack("<I", 0xFFFF_0000) + b"x\x00"),
        "bad-smpl": chunk(b"smpl", struct.pack("<9I", 0, 0, 22_675, 60, 0, 0, 0, 1_000_000, 0)),
        "bad-cue": chunk(b"cue ", struct.pack("<I", 0x7FFF_FFFF)),
        "bad-inst": chunk(b"inst", b"\x3c"),
        "lying-fact": chunk(b"fact", struct.pack("<I", 5)),
        "unknown-chunk": chunk(b"\x01\x02ab", b"?" * 77),
    }
    for name, chunks in before.items():
        _row(f"wav-{name}.wav", lambda chunks=chunks: _wav("f32le", before=chunks))
    info = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"a name"))
    _row("wav-chunks-behind.wav", lambda: _wav(after=info + chunk(b"smpl", bytes(36)) + chunk(b"id3 ", b"ID3" + bytes(60))))
    _row("wav-chunk-behind-lies.wav", lambda: _wav(after=chunk(b"LIST", b"INFO", size=1 << 30)))
    _row("wav-text-behind.wav", lambda: (lambda made: (made[0] + b"a note\n" * 9, made[1]))(_wav()))

    def two_data_chunks():
        samples = sound()
        halves = [pcm(half, "s16le")[0] for half in (samples[:6_000], samples[6_000:])]
        chunks = chunk(b"data", halves[0]) + chunk(b"LIST", b"INFO") + chunk(b"data", halves[1])
        # FFmpeg hears only the last one.
        return riff(fmt(1, 2, 44_100, 16) + chunks), Made(pcm(samples, "s16le")[1], parts=())

    _row("wav-two-data-chunks.wav", two_data_chunks)
    nothing = Refused("holds no samples", "no-samples")
    _row("wav-no-samples.wav", lambda: (wav_file(fmt(1, 2, 44_100, 16), b""), Made()), refused=nothing)


def _big_wav_rows() -> None:
    for kind in ("s16be", "f32be"):

        def rifx(kind=kind):
            data, written = pcm(sound(), kind)
            bits = 8 * len(data) // written.size
            format_chunk = fmt(3 if kind[0] == "f" else 1, 2, 44_100, bits, order=">")
            content = riff(format_chunk + chunk(b"data", data, order=">"), tag=b"RIFX")
            # FFmpeg takes the samples for little-endian.
            return content, Made(written, parts=())

        _row(f"rifx-{kind}.wav", rifx)

    def big(tag: bytes, sizes=None):
        data, written = pcm(sound(), "s24le")
        return rf64(fmt(1, 2, 44_100, 24), data, tag=tag, sizes=sizes), Made(written)

    _row("rf64.rf64", lambda: big(b"RF64"))
    _row("rf64-called-wav.wav", lambda: big(b"RF64"))
    _row("bw64.wav", lambda: big(b"BW64"))

    def unfinished():
        content, made = big(b"BW64", sizes=(0, 0, 0))
        return content, Made(made.written, parts=())

    _row("bw64-without-sizes.wav", unfinished)

    def cut_rf64():
        content, made = big(b"RF64")
        return content[:-6_000], Made(made.written, stop=12_231, partial="cut-short")

    _row("rf64-cut.wav", cut_rf64)
    for kind in ("s16le", "f32le"):

        def wave64(kind=kind):
            data, written = pcm(sound(), kind)
            return w64(fmt(_CODES[kind], 2, 44_100, 8 * len(data) // written.size), data), Made(written)

        _row(f"w64-{kind}.w64", wave64)

    def cut_w64():
        data, written = pcm(sound(), "s16le")
        content = w64(fmt(1, 2, 44_100, 16), data)
        start = content.index(data[:64])
        return content[: start + 4 * 7_000], Made(written, stop=7_000, partial="cut-short")

    _row("w64-cut.w64", cut_w64)


def _apple_rows() -> None:
    for kind, bits in (("s8", 8), ("s16be", 16), ("s24be", 24), ("s32be", 32)):

        def plain(kind=kind, bits=bits):
            data, written = pcm(sound(), kind)
            return aiff(data, 2, len(written), bits), Made(written)

        _row(f"aiff-{kind}.aiff", plain)
    for code, kind, bits in (
        (b"NONE", "s16be", 16),
        (b"sowt", "s16le", 16),
        (b"fl32", "f32be", 32),
        (b"FL32", "f32be", 32),
        (b"fl64", "f64be", 64),
        (b"in24", "s24be", 24),
    ):

        def compressed(code=code, kind=kind, bits=bits):
            data, written = pcm(sound(), kind)
            return aiff(data, 2, len(written), bits, compression=code), Made(written)

        _row(f"aifc-{code.decode()}{'-upper' if code.isupper() and code != b'NONE' else ''}.aifc", compressed)
    for code, subtype in ((b"ulaw", "ULAW"), (b"alaw", "ALAW")):
        _row(
            f"aifc-{subtype.lower()}.aifc",
            lambda code=code, subtype=subtype: (
                aiff(_log(sound(), subtype), 2, 13_231, 16, compression=code),
                Made(sound(), atol=_LOG_ATOL),
            ),
        )

    def odd(**file):
        data, written = pcm(sound(), "s16be")
        return aiff(data, 2, len(written), 16, **file), Made(written)

    _row("aiff-offset.aiff", lambda: odd(offset=24))
    _row("aiff-chunks.aif", lambda: odd(before=chunk(b"NAME", b"a", order=">") + chunk(b"MARK", b"\xff\xff", order=">")))

    def piped(ssnd: int, frames: int, form: int):
        data, written = pcm(sound(), "s16be")
        return aiff(data, 2, frames, 16, ssnd_size=ssnd, form_size=form), Made(written, parts=())

    _row("aiff-pipe-zeros.aiff", lambda: piped(0, 0, 0))
    _row("aiff-pipe-8.aiff", lambda: piped(8, 0, 0))
    _row("aiff-pipe-large.aiff", lambda: piped(0x7F00_0008, 0x7F00_0000 // 4, 0x7F00_0036))
    _row("aiff-pipe-ffff.aiff", lambda: piped(0xFFFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFF))

    def cut_aiff():
        data, written = pcm(sound(), "s24be")
        content = aiff(data, 2, len(written), 24)
        return content[: content.index(data[:60]) + 6 * 9_000 + 1], Made(written, stop=9_000, partial="cut-short")

    _row("aiff-cut.aiff", cut_aiff)
    _caf_rows()


def _caf_rows() -> None:
    for kind, flags in (("s16be", 0), ("s16le", 2), ("s24be", 0), ("s24le", 2), ("f32be", 1), ("f32le", 3), ("f64le", 3)):

        def plain(kind=kind, flags=flags):
            data, written = pcm(sound(), kind)
            return caf(data, 2, 8 * len(data) // written.size, flags=flags), Made(written)

        _row(f"caf-{kind}.caf", plain)
    for code, subtype in ((b"ulaw", "ULAW"), (b"alaw", "ALAW")):
        _row(
            f"caf-{subtype.lower()}.caf",
            lambda code=code, subtype=subtype: (
                caf(_log(sound(), subtype), 2, 8, codec=code),
                Made(sound(), atol=_LOG_ATOL),
            ),
        )

    def piped():
        data, written = pcm(sound(), "s16le")
        return caf(data, 2, 16, flags=2, size=-1), Made(written)

    _row("caf-pipe.caf", piped)

    def cut():
        data, written = pcm(sound(), "s16le")
        return caf(data, 2, 16, flags=2)[: -4 * 3_231], Made(written, stop=10_000, partial="cut-short")

    _row("caf-cut.caf", cut)


def _unix_rows() -> None:
    def plain(code: int, kind: str, channels: int = 2, **file):
        data, written = pcm(sound(channels=channels), kind)
        return au(data, code, channels, **file), Made(written)

    for code, kind in ((2, "s8"), (3, "s16be"), (4, "s24be"), (5, "s32be"), (6, "f32be"), (7, "f64be")):
        _row(f"au-{kind}.au", lambda code=code, kind=kind: plain(code, kind))
    for code, subtype in ((1, "ULAW"), (27, "ALAW")):
        _row(
            f"au-{subtype.lower()}.au",
            lambda code=code, subtype=subtype: (au(_log(sound(), subtype), code, 2), Made(sound(), atol=_LOG_ATOL)),
        )
    _row("au-pipe.au", lambda: plain(3, "s16be", size=0xFFFF_FFFF))
    _row("au-called-snd.snd", lambda: plain(3, "s16be"))

    def little():
        content, made = plain(3, "s16le", little=True)
        return content, Made(made.written, parts=())  # FFmpeg does not know it.

    _row("au-little-endian.au", little)

    def cut():
        content, made = plain(3, "s16be")
        return content[: 32 + 4 * 4_000], Made(made.written, stop=4_000, partial="cut-short")

    _row("au-cut.au", cut)
    for coding, width, order in (("pcm", 2, "01"), ("pcm", 2, "10")):

        def nist(coding=coding, width=width, order=order):
            data, written = pcm(sound(channels=1, rate=16_000), "s16le" if order == "01" else "s16be")
            return sphere(data, 1, len(written), coding=coding, width=width, order=order), Made(written, 16_000)

        _row(f"sphere-{order}.sph", nist)
    _row(
        "sphere-ulaw.sph",
        lambda: (
            sphere(_log(sound(channels=1), "ULAW"), 1, 13_231, coding="ulaw", width=1, order="1"),
            Made(sound(channels=1), 16_000, atol=_LOG_ATOL),
        ),
    )

    def cut_sphere():
        data, written = pcm(sound(channels=1), "s16le")
        return sphere(data, 1, len(written))[:-2_001], Made(written, 16_000, stop=12_230, partial="cut-short")

    _row("sphere-cut.sph", cut_sphere)
    for name, code, kind, big in (("s16le", 2, "s16le", False), ("f32be", 4, "f32be", True)):

        def bicsf(code=code, kind=kind, big=big):
            data, written = pcm(sound(), kind)
            return ircam(data, code, 2, big=big), Made(written)

        _row(f"ircam-{name}.sf", bicsf)
    _row("mpc.snd", lambda: (lambda data, written: (mpc(data, len(written)), Made(written, parts=())))(*pcm(sound(channels=1), "s16le")))


def _voc_rows() -> None:
    def old():
        data, written = pcm(sound(channels=1, rate=20_000), "u8")
        return voc(voc_block(1, bytes([206, 0]) + data)), Made(written, 20_000)

    _row("voc-u8.voc", old)

    def two_blocks():
        data, written = pcm(sound(channels=1, rate=20_000), "u8")
        first, second = voc_block(1, bytes([206, 0]) + data[:5_000]), voc_block(2, data[5_000:])
        return voc(first, voc_block(5, b"a text\x00"), second), Made(written, 20_000)

    _row("voc-two-blocks.voc", two_blocks)

    def new():
        data, written = pcm(sound(), "s16le")
        return voc(voc_new(data, 4, 16, 2, 44_100)), Made(written)

    _row("voc-s16.voc", new)


def _tool_rows() -> None:
    """WAV and others as programs write them to a pipe."""

    def piped(path: Path, program: str, kind: str) -> Made:
        data, written = pcm(sound(), "s16le")
        if program == "sox":
            raw = ("-t", "raw", "-r", 44_100, "-e", "signed", "-b", 16, "-c", 2, "-")
            path.write_bytes(tool("sox", *raw, "-t", kind, "-", stdin=data))
        else:
            path.write_bytes(ffmpeg("-f", "s16le", "-ar", 44_100, "-ac", 2, "-i", "-", "-f", kind, "-", stdin=data))
        return Made(written, parts=())

    for program, kind in (
        ("ffmpeg", "wav"),
        ("sox", "wav"),
        ("ffmpeg", "aiff"),
        ("sox", "aiff"),
        ("ffmpeg", "au"),
        ("sox", "au"),
        ("ffmpeg", "caf"),
        ("sox", "caf"),
        ("ffmpeg", "w64"),
        ("sox", "w64"),
    ):
        ROWS.append(
            Row(
                f"{kind}-piped-by-{program}.{kind}",
                lambda path, program=program, kind=kind: piped(path, program, kind),
                (program,),
            )
        )


_wav_rows()
_wav_sizes()
_wav_chunks()
_big_wav_rows()
_apple_rows()
_unix_rows()
_voc_rows()
_tool_rows()
