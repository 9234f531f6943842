"""Rows of Ogg Vorbis and Opus."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import soundfile

from kinds.containers import sound
from kinds.packets import Page, edit_pages, pages
from kinds.table import JUDGE, Made, Row, ffmpeg, tool

ROWS: list[Row] = []


def _row(name: str, make: Callable[[Path], Made | None], *tools: str) -> None:
    # FFmpeg's own decoder of Opus differs from the reference decoder by more than the tolerance.
    decoder = "libopus" if "opus" in name else None
    ROWS.append(Row(name, make, (*tools, JUDGE), decoder=decoder))


def encoded(path: Path, codec: str = "VORBIS", *, channels=2, rate=None, seconds: float = 0.3, seed: int = 0) -> bytes:
    """Write Ogg Vorbis or Opus with libsndfile, and return its bytes."""
    rate = rate or (48_000 if codec == "OPUS" else 44_100)
    samples = sound(round(seconds * rate) + 1, channels, rate, seed)
    soundfile.write(path, samples, rate, format="OGG", subtype=codec)
    return path.read_bytes()


def _one_page(content: bytes) -> Made:
    """Return what a Vorbis file holds whose sound is in one page: FFmpeg plays the padding at its end, too."""
    *_, last = pages(content)
    return Made(stop=last.granule)


def _with_head(content: bytes, offset: int, value: bytes) -> bytes:
    """Change bytes of the first packet."""

    def edit(number: int, page: Page, octets: bytearray) -> None:
        if number == 0:
            at = page.body - page.start + offset
            octets[at : at + len(value)] = value

    return edit_pages(content, edit)


def _encodings() -> None:
    for codec in ("vorbis", "opus"):
        for channels in (2, 6):
            _row(f"{codec}-{channels}.ogg", lambda p, o=codec, c=channels: encoded(p, o.upper(), channels=c) and None)
    _row("opus-mono.ogg", lambda path: encoded(path, "OPUS", channels=1) and None)
    _row("vorbis-mono.ogg", lambda path: _one_page(encoded(path, channels=1)))
    for rate in (8_000, 22_050):
        _row(f"vorbis-{rate}.ogg", lambda path, rate=rate: _one_page(encoded(path, rate=rate)))
    for rate in (48_000, 96_000):
        _row(f"vorbis-{rate}.ogg", lambda path, rate=rate: encoded(path, rate=rate) and None)

    def by_tool(path: Path, *command: object, rate: int = 44_100, channels: int = 2) -> None:
        source = path.with_suffix(".source.wav")
        soundfile.write(source, sound(round(0.3 * rate), channels, rate), rate, subtype="PCM_16")
        tool(command[0], "--quiet", *command[1:], source, *(("-o",) if command[0] == "oggenc" else ()), path)

    _row("vorbis-by-oggenc.ogg", lambda path: by_tool(path, "oggenc", "-q", 3), "oggenc")

    def low(path: Path) -> Made:
        by_tool(path, "oggenc", "-q", -1, rate=16_000)
        return _one_page(path.read_bytes())

    _row("vorbis-by-oggenc-low.ogg", low, "oggenc")
    for rate in (8_000, 16_000, 44_100, 48_000):
        _row(f"opus-by-opusenc-{rate}.opus", lambda path, rate=rate: by_tool(path, "opusenc", rate=rate), "opusenc")
    _row(
        "opus-speech.opus",
        lambda path: by_tool(path, "opusenc", "--speech", "--bitrate", 12, rate=16_000, channels=1),
        "opusenc",
    )
    _row("opus-5.1.opus", lambda path: by_tool(path, "opusenc", channels=6), "opusenc")
    _row("opus-frames-of-2.5-ms.opus", lambda path: by_tool(path, "opusenc", "--framesize", 2.5), "opusenc")
    _row("opus-frames-of-60-ms.opus", lambda path: by_tool(path, "opusenc", "--framesize", 60), "opusenc")

    def by_ffmpeg(path: Path, *options: object) -> None:
        samples = sound().astype("<f4").tobytes()
        ffmpeg("-f", "f32le", "-ar", 44_100, "-ac", 2, "-i", "-", "-bitexact", *options, path, stdin=samples)

    def vorbis_by_ffmpeg(path: Path) -> Made:
        by_ffmpeg(path, "-c:a", "libvorbis")
        return _one_page(path.read_bytes())

    _row("vorbis-by-ffmpeg.ogg", vorbis_by_ffmpeg)
    _row("opus-by-ffmpeg.opus", lambda path: by_ffmpeg(path, "-c:a", "libopus", "-ar", 48_000))
    _row("opus-called-mp3.mp3", lambda path: encoded(path, "OPUS") and None)


def _headers() -> None:
    for rate in (0, 8_000, 16_000, 44_100, 192_000):

        def odd(path: Path, rate: int = rate) -> Made:
            intact = path.with_suffix(".intact.opus")
            path.write_bytes(_with_head(encoded(intact, "OPUS"), 12, struct.pack("<I", rate)))
            return Made(parts=(intact,))

        _row(f"opus-input-rate-{rate}.opus", odd)

    def quieter(path: Path) -> None:
        path.write_bytes(_with_head(encoded(path, "OPUS"), 16, struct.pack("<h", -3 * 256)))

    _row("opus-gain.opus", quieter)

    def later(path: Path) -> Made:
        intact = path.with_suffix(".intact.opus")
        path.write_bytes(_with_head(encoded(intact, "OPUS"), 10, struct.pack("<H", 312 + 1_000)))
        return Made(parts=(intact,), start=1_000)

    _row("opus-pre-skip.opus", later)


def _chained() -> None:
    def chain(path: Path, *streams: dict) -> Made:
        parts = tuple(path.with_suffix(f".part{number}.ogg") for number in range(len(streams)))
        contents = [
            encoded(part, **stream, seed=n) for n, (part, stream) in enumerate(zip(parts, streams, strict=True))
        ]
        path.write_bytes(b"".join(_numbered(content, serial) for serial, content in enumerate(contents, 5)))
        return Made(parts=parts)

    opus = {"codec": "OPUS"}
    _row("vorbis-chained.ogg", lambda path: chain(path, {}, {}))
    _row("vorbis-three-chained.ogg", lambda path: chain(path, {}, {}, {}))
    _row("vorbis-chained-other-rate.ogg", lambda path: chain(path, {}, {"rate": 32_000}))
    _row("vorbis-chained-mono-after-stereo.ogg", lambda path: chain(path, {}, {"channels": 1, "seconds": 1}))
    _row("vorbis-chained-stereo-after-mono.ogg", lambda path: chain(path, {"channels": 1, "seconds": 1}, {}))
    _row("opus-chained.opus", lambda path: chain(path, opus, opus))
    _row("opus-chained-mono-after-stereo.opus", lambda path: chain(path, opus, opus | {"channels": 1}))

    def same_serial(path: Path) -> Made:
        made = chain(path, {}, {})
        path.write_bytes(b"".join(_numbered(part.read_bytes(), 5) for part in made.parts or ()))
        return made

    _row("vorbis-chained-same-serial.ogg", same_serial)


def _numbered(content: bytes, serial: int) -> bytes:
    def edit(number: int, page: Page, octets: bytearray) -> None:
        octets[14:18] = struct.pack("<I", serial)

    return edit_pages(content, edit)


def _cut(path: Path, codec: str, *, whole_pages: bool) -> Made:
    """Cut a file of 3 s so that two pages of sound remain, or two and a half."""
    intact = path.with_suffix(".intact.ogg")
    content = encoded(intact, codec, seconds=3)
    audio = [page for page in pages(content) if page.granule > 0]
    end = audio[1].end if whole_pages else (audio[2].start + audio[2].end) // 2
    path.write_bytes(content[:end])
    skipped = 312 if codec == "OPUS" else 0
    return Made(parts=(intact,), stop=audio[1].granule - skipped, partial="cut-short")


def _damaged() -> None:
    for codec in ("vorbis", "opus"):
        for whole in (False, True):
            name = f"{codec}-{'without-last-page' if whole else 'cut'}.ogg"
            _row(name, lambda path, codec=codec, whole=whole: _cut(path, codec.upper(), whole_pages=whole))

    def flipped(path: Path, codec: str) -> Made:
        intact = path.with_suffix(".intact.ogg")
        content = bytearray(encoded(intact, codec, seconds=3))
        audio = [page for page in pages(bytes(content)) if page.granule > 0]
        content[(audio[2].body + audio[2].end) // 2] ^= 4
        path.write_bytes(content)
        skipped = 312 if codec == "OPUS" else 0
        return Made(parts=(intact,), stop=audio[1].granule - skipped, partial="damaged")

    _row("vorbis-flipped-bit.ogg", lambda path: flipped(path, "VORBIS"))
    _row("opus-flipped-bit.opus", lambda path: flipped(path, "OPUS"))

    def junk_behind(path: Path) -> Made:
        intact = path.with_suffix(".intact.ogg")
        path.write_bytes(encoded(intact) + b"TAG".ljust(128))
        return Made(parts=(intact,))

    _row("vorbis-junk-behind.ogg", junk_behind)


_encodings()
_headers()
_chained()
_damaged()
