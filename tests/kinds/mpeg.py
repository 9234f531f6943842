"""Rows of MP3 and MP2."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import soundfile

from kinds.containers import chunk, riff, sound
from kinds.packets import ape_tag, cover, id3v1, id3v2, lyrics_tag, mp3_frames
from kinds.table import JUDGE, Made, Row, ffmpeg, tool

ROWS: list[Row] = []
# The encoder's delay and the decoder's, which are left out where a LAME tag gives them.
_DELAY = 576 + 529


def _row(name: str, make: Callable[[Path], Made | None], *tools: str) -> None:
    ROWS.append(Row(name, make, (*tools, JUDGE)))


def _source(path: Path, channels: int = 2, rate: int = 44_100, seconds: float = 0.3, seed: int = 0) -> Path:
    """Write a WAV file beside `path`."""
    source = path.with_suffix(f".source{seed}.wav")
    soundfile.write(source, sound(round(seconds * rate) + 1, channels, rate, seed), rate, subtype="PCM_16")
    return source


def lame(path: Path, *options: object, channels: int = 2, rate: int = 44_100, seconds: float = 0.3, seed=0) -> bytes:
    """Write an MP3 file; `-t` in options means without a Xing header. Return its bytes."""
    tool("lame", "--quiet", *options, _source(path, channels, rate, seconds, seed), path)
    return path.read_bytes()


def _changed(change: Callable[[bytes], bytes], *options: object) -> Callable[[Path], Made]:
    """Return how to make a file that holds the sound of an MP3 of LAME, although it was changed."""

    def make(path: Path) -> Made:
        intact = path.with_suffix(".intact.mp3")
        path.write_bytes(change(lame(intact, *options)))
        return Made(parts=(intact,))

    return make


def _junk(size: int) -> bytes:
    return bytes(random.Random(size).choices(range(0xFF), k=size))


def _encodings() -> None:
    for name, options in {
        "cbr": ("-b", 128),
        "cbr-320": ("-b", 320),
        "vbr": ("-V2",),
        "abr": ("--abr", 128),
        "cbr-no-header": ("-t", "-b", 128),
        "vbr-no-header": ("-t", "-V6"),
        "abr-no-header": ("-t", "--abr", 100),
        "stereo": ("-m", "s", "-b", 192),
        "joint": ("-m", "j", "-b", 96),
        "crc": ("-p", "-V4"),
    }.items():
        _row(f"mp3-{name}.mp3", lambda path, options=options: lame(path, *options) and None, "lame")
    _row("mp3-mono.mp3", lambda path: lame(path, "-V4", channels=1) and None, "lame")
    _row("mp3-mono-no-header.mp3", lambda path: lame(path, "-t", "-V4", channels=1) and None, "lame")
    for rate in (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 48_000):
        # FFmpeg 5 decodes most files of 24 kHz otherwise than three other decoders do.
        options = ("--resample", rate / 1_000, *(("-m", "j", "-b", 48) if rate == 24_000 else ("-V4",)))
        _row(f"mp3-{rate}.mp3", lambda path, o=options, r=rate: lame(path, *o, rate=r) and None, "lame")

    def by_libsndfile(path: Path) -> None:
        soundfile.write(path, sound(), 44_100, format="MP3", subtype="MPEG_LAYER_III")

    _row("mp3-by-libsndfile.mp3", by_libsndfile)
    _row("mp3-by-sox.mp3", lambda path: tool("sox", _source(path), path) and None, "sox")
    _row("mp3-by-sox-vbr.mp3", lambda path: tool("sox", _source(path), "-C", "-4.2", path) and None, "sox")

    def by_ffmpeg(path: Path, *options: object, channels: int = 2, rate: int = 44_100) -> None:
        ffmpeg("-i", _source(path, channels, rate), "-bitexact", *options, path)

    _row("mp3-by-ffmpeg.mp3", by_ffmpeg)
    _row("mp3-by-ffmpeg-no-header.mp3", lambda path: by_ffmpeg(path, "-write_xing", 0))
    _row("mp2.mp2", lambda path: by_ffmpeg(path, "-c:a", "mp2", "-b:a", "192k"))
    _row("mp2-mono-16000.mp2", lambda path: by_ffmpeg(path, "-c:a", "mp2", "-b:a", "64k", channels=1, rate=16_000))
    _row("mp2-called-mp3.mp3", lambda path: by_ffmpeg(path, "-c:a", "mp2", "-f", "mp2"))
    _row("mp3-called-wav.wav", lambda path: by_ffmpeg(path, "-c:a", "libmp3lame", "-f", "mp3"))


def _tags() -> None:
    big = id3v2(cover(5_000_000))
    for name, change in {
        "id3v1": lambda content: content + id3v1(),
        "id3v2": lambda content: id3v2() + content,
        "id3v2-twice": lambda content: id3v2() + id3v2(padding=700) + content,
        "id3v2-behind": lambda content: content + id3v2(),
        "ape": lambda content: content + ape_tag(),
        "ape-before": lambda content: ape_tag() + content,
        "lyrics": lambda content: content + lyrics_tag(),
        "cover-of-5-mb": lambda content: big + content,
        "junk-before": lambda content: _junk(300) + content,
        "zeros-before": lambda content: bytes(3_000) + content,
        "junk-behind": lambda content: content + _junk(300),
        "zeros-behind": lambda content: content + bytes(4_096),
        "all-tags": lambda content: id3v2() + content + ape_tag() + lyrics_tag(),
    }.items():
        _row(f"mp3-{name}.mp3", _changed(change, "-V4"), "lame")
    _row("mp3-no-header-id3v2-twice.mp3", _changed(lambda c: id3v2() + id3v2() + c, "-t", "-V4"), "lame")
    _row("mp3-no-header-junk-before.mp3", _changed(lambda c: _junk(300) + c, "-t", "-V4"), "lame")
    _row("mp3-no-header-lyrics.mp3", _changed(lambda c: c + lyrics_tag(), "-t", "-b", 128), "lame")

    def vbri(content: bytes) -> bytes:
        frames = mp3_frames(content)
        note = struct.pack(">HHHIIHHHH", 1, 0, 75, len(content), len(frames) - 1, 1, 1, 2, len(frames)) + b"\x04\x00"
        size = 144 * 128_000 // 44_100
        header = content[:2] + bytes([9 << 4, content[3]])
        return (header + bytes(32) + b"VBRI" + note).ljust(size, b"\x00") + content

    _row("mp3-vbri.mp3", _changed(vbri, "-t", "-V4"), "lame")

    def in_wav(content: bytes) -> bytes:
        extra = struct.pack("<HHIHHH", 12, 1, 2, 417, 1, 0)
        head = struct.pack("<HHIIHH", 0x55, 2, 44_100, 16_000, 1, 0) + extra
        return riff(chunk(b"fmt ", head) + chunk(b"fact", struct.pack("<I", 0)) + chunk(b"data", content))

    _row("mp3-in-wav.wav", _changed(in_wav, "-t", "-b", 128), "lame")
    _row("mp3-in-wav-by-ffmpeg.wav", lambda path: ffmpeg("-i", _source(path), "-c:a", "libmp3lame", path) and None)


def _joined(*sounds: dict) -> Callable[[Path], Made]:
    def make(path: Path) -> Made:
        parts = tuple(path.with_suffix(f".part{number}.mp3") for number in range(len(sounds)))
        for number, (part, options) in enumerate(zip(parts, sounds, strict=True)):
            words = options.get("options", ("-V4",))
            lame(part, *words, channels=options.get("channels", 2), rate=options.get("rate", 44_100), seed=number)
        path.write_bytes(b"".join((id3v2() if number else b"") + p.read_bytes() for number, p in enumerate(parts)))
        return Made(parts=parts)

    return make


def _damaged() -> None:
    _row("mp3-joined.mp3", _joined({}, {}), "lame")
    _row("mp3-joined-other-rate.mp3", _joined({}, {"rate": 22_050, "options": ("--resample", 22.05, "-V4")}), "lame")
    _row("mp3-joined-mono-after-stereo.mp3", _joined({}, {"channels": 1}), "lame")

    def cut(path: Path) -> Made:
        intact = path.with_suffix(".intact.mp3")
        content = lame(intact, "-V4")
        starts = mp3_frames(content)
        # The first frame is the header; the tenth of sound is the first that is not whole.
        path.write_bytes(content[: (starts[10] + starts[11]) // 2])
        return Made(parts=(intact,), stop=9 * 1_152 - _DELAY, partial="cut-short")

    _row("mp3-cut.mp3", cut, "lame")

    def cut_between(path: Path) -> Made:
        intact = path.with_suffix(".intact.mp3")
        content = lame(intact, "-b", 128)
        path.write_bytes(content[: mp3_frames(content)[6]])
        return Made(parts=(intact,), stop=5 * 1_152 - _DELAY, partial="cut-short")

    _row("mp3-cut-between-frames.mp3", cut_between, "lame")

    def cut_without_header(path: Path) -> Made:
        # Nothing says how long it was, so it is what it is.
        content = lame(path, "-t", "-b", 128)
        path.write_bytes(content[: mp3_frames(content)[7]])
        return Made()

    _row("mp3-no-header-cut-between-frames.mp3", cut_without_header, "lame")

    def cut_in_a_frame(path: Path) -> Made:
        intact = path.with_suffix(".intact.mp3")
        content = lame(intact, "-t", "-b", 128)
        starts = mp3_frames(content)
        path.write_bytes(content[: (starts[7] + starts[8]) // 2])
        return Made(parts=(intact,), stop=7 * 1_152, partial="cut-short")

    _row("mp3-no-header-cut-in-a-frame.mp3", cut_in_a_frame, "lame")


_encodings()
_tags()
_damaged()
