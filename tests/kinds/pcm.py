"""Rows of PCM in other containers than WAV, whole and damaged, all written byte by byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kinds.containers import (
    LOG_ATOL,
    aiff,
    au,
    caf,
    chunk,
    ircam,
    log_pcm,
    mpc,
    pcm,
    sound,
    sphere,
    voc,
    voc_block,
    voc_new,
)
from kinds.table import Made, Refused, Row, ffmpeg, tool, written_by

ROWS: list[Row] = []


def _row(name: str, build: Callable[[], tuple[bytes, Made]], *tools: str, refused: Refused | None = None) -> None:
    ROWS.append(Row(name, written_by(build), tools, refused))


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
                aiff(log_pcm(sound(), subtype), 2, 13_231, 16, compression=code),
                Made(sound(), atol=LOG_ATOL),
            ),
        )

    def odd(**file):
        data, written = pcm(sound(), "s16be")
        return aiff(data, 2, len(written), 16, **file), Made(written)

    _row("aiff-offset.aiff", lambda: odd(offset=24))
    _row(
        "aiff-chunks.aif", lambda: odd(before=chunk(b"NAME", b"a", order=">") + chunk(b"MARK", b"\xff\xff", order=">"))
    )

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
    for kind, flags in (
        ("s16be", 0),
        ("s16le", 2),
        ("s24be", 0),
        ("s24le", 2),
        ("f32be", 1),
        ("f32le", 3),
        ("f64le", 3),
    ):

        def plain(kind=kind, flags=flags):
            data, written = pcm(sound(), kind)
            return caf(data, 2, 8 * len(data) // written.size, flags=flags), Made(written)

        _row(f"caf-{kind}.caf", plain)
    for code, subtype in ((b"ulaw", "ULAW"), (b"alaw", "ALAW")):
        _row(
            f"caf-{subtype.lower()}.caf",
            lambda code=code, subtype=subtype: (
                caf(log_pcm(sound(), subtype), 2, 8, codec=code),
                Made(sound(), atol=LOG_ATOL),
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
            lambda code=code, subtype=subtype: (au(log_pcm(sound(), subtype), code, 2), Made(sound(), atol=LOG_ATOL)),
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


def _speech_and_sampler_rows() -> None:
    for coding, width, order in (("pcm", 2, "01"), ("pcm", 2, "10")):

        def nist(coding=coding, width=width, order=order):
            data, written = pcm(sound(channels=1, rate=16_000), "s16le" if order == "01" else "s16be")
            return sphere(data, 1, len(written), coding=coding, width=width, order=order), Made(written, 16_000)

        _row(f"sphere-{order}.sph", nist)
    _row(
        "sphere-ulaw.sph",
        lambda: (
            sphere(log_pcm(sound(channels=1), "ULAW"), 1, 13_231, coding="ulaw", width=1, order="1"),
            Made(sound(channels=1), 16_000, atol=LOG_ATOL),
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

    def kick():
        data, written = pcm(sound(channels=1), "s16le")
        return mpc(data, len(written)), Made(written, parts=())

    _row("mpc.snd", kick)


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
        ("sox", "pvf"),
        ("sox", "paf"),
    ):
        ROWS.append(
            Row(
                f"{kind}-piped-by-{program}.{kind}",
                lambda path, program=program, kind=kind: piped(path, program, kind),
                (program,),
            )
        )


_apple_rows()
_unix_rows()
_speech_and_sampler_rows()
_voc_rows()
_tool_rows()
