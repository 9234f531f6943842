"""Rows of WAV and its big relatives, whole and damaged, all written byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Callable

from kinds.containers import (
    LOG_ATOL,
    chunk,
    extensible,
    fmt,
    log_pcm,
    pcm,
    rf64,
    riff,
    sound,
    w64,
)
from kinds.table import Made, Refused, Row, written_by

ROWS: list[Row] = []
_CODES = {"u8": 1, "s16le": 1, "s24le": 1, "s32le": 1, "f32le": 3, "f64le": 3}


def _row(name: str, build: Callable[[], tuple[bytes, Made]], *tools: str, refused: Refused | None = None) -> None:
    ROWS.append(Row(name, written_by(build), tools, refused))


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
                wav_file(fmt(code, 2, 44_100, 8), log_pcm(sound(), subtype)),
                Made(sound(), atol=LOG_ATOL),
            ),
        )
    for kind, code, valid, channels in (("s16le", 1, 16, 2), ("s32le", 1, 24, 2), ("f32le", 3, 32, 6)):

        def spread(kind=kind, code=code, valid=valid, channels=channels):
            data, written = pcm(sound(channels=channels), kind)
            bits = 8 * len(data) // written.size
            # FFmpeg takes 24 valid bits of 32 for its own format of floats.
            parts = () if valid == 24 else None
            return wav_file(extensible(code, channels, 44_100, bits, valid), data), Made(written, parts=parts)

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
    # A header that was counted, or an odd size: nothing is missing.
    for beyond in (3, 8, 36, 64):
        _row(f"wav-{beyond}-bytes-too-large.wav", lambda beyond=beyond: _wav(size=whole + beyond))

    def lies(missing: int):
        content, made = _wav(size=whole + missing)
        return content, Made(made.written, partial="cut-short")

    _row("wav-68-bytes-too-large.wav", lambda: lies(68))
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
    _row(
        "wav-chunks-behind.wav",
        lambda: _wav(after=info + chunk(b"smpl", bytes(36)) + chunk(b"id3 ", b"ID3" + bytes(60))),
    )
    _row("wav-chunk-behind-lies.wav", lambda: _wav(after=chunk(b"LIST", b"INFO", size=1 << 30)))

    def text_behind():
        content, made = _wav()
        return content + b"a note\n" * 9, made

    _row("wav-text-behind.wav", text_behind)

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


_wav_rows()
_wav_sizes()
_wav_chunks()
_big_wav_rows()
