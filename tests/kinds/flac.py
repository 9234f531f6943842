"""Rows of FLAC, in its own container and in Ogg."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from kinds.containers import sound
from kinds.packets import Page, edit_pages, id3v1, id3v2
from kinds.table import JUDGE, Made, Row, ffmpeg, tool

ROWS: list[Row] = []
_FRAMES = 13_231
_BLOCK = 4_096
_SUBTYPES = {8: "PCM_S8", 16: "PCM_16", 24: "PCM_24"}


def _row(name: str, make: Callable[[Path], Made | None], *tools: str) -> None:
    ROWS.append(Row(name, make, tools))


def written(bits: int = 16, channels: int = 2, rate: int = 44_100, seed: int = 0) -> np.ndarray:
    """Return samples of `bits` bits, [n, channels], float64."""
    scale = 2.0 ** (bits - 1)
    return np.round(sound(_FRAMES, channels, rate, seed) * (scale - 1)) / scale


def by_libsndfile(path: Path, bits: int = 16, channels: int = 2, rate: int = 44_100, seed: int = 0) -> Made:
    """Write a FLAC file with libsndfile, in blocks of 4096 frames."""
    samples = written(bits, channels, rate, seed)
    # Seen by libsndfile as 32-bit integers, so that nothing is rounded again.
    whole = np.round(samples * 2.0**31).astype(np.int32)
    soundfile.write(path, whole, rate, format="FLAC", subtype=_SUBTYPES[bits])
    return Made(samples, rate)


def with_total(content: bytes, total: int) -> bytes:
    """Change how many samples the header of a FLAC file promises."""
    numbers = int.from_bytes(content[18:26], "big") >> 36 << 36 | total
    return content[:18] + numbers.to_bytes(8, "big") + content[26:]


def frame_starts(path: Path) -> list[int]:
    """Return where the frames of a FLAC file begin, by ffprobe."""
    lines = tool("ffprobe", "-v", "error", "-show_entries", "packet=pos", "-of", "csv=p=0", path)
    return [int(line.strip(b",")) for line in lines.split() if line.strip(b",").isdigit()]


def _changed(change: Callable[[bytes], bytes], *, partial: str | None = None) -> Callable[[Path], Made]:
    def make(path: Path) -> Made:
        made = by_libsndfile(path)
        path.write_bytes(change(path.read_bytes()))
        return Made(made.written, parts=(), partial=partial)

    return make


def _encodings() -> None:
    for bits, channels, rate in ((16, 2, 44_100), (24, 2, 44_100), (8, 1, 44_100), (24, 8, 48_000), (16, 1, 96_000)):
        _row(f"flac-{bits}-{channels}-{rate}.flac", lambda p, b=bits, c=channels, r=rate: by_libsndfile(p, b, c, r))

    def by_flac(path: Path, *options: object) -> Made:
        source = path.with_suffix(".source.wav")
        soundfile.write(source, np.round(written() * 2**15).astype(np.int16), 44_100, subtype="PCM_16")
        path.write_bytes(tool("flac", "--silent", *options, "-c", source))
        return Made(written())

    _row("flac-by-flac.flac", lambda path: by_flac(path, "-8"), "flac")
    _row("flac-small-blocks.flac", lambda path: by_flac(path, "-b", 192, "--no-padding"), "flac")
    _row("flac-verbatim.flac", lambda path: by_flac(path, "--disable-fixed-subframes", "-l", 0), "flac")
    _row("ogg-flac.oga", lambda path: by_flac(path, "--ogg"), "flac")
    _row("ogg-flac-called-flac.flac", lambda path: by_flac(path, "--ogg"), "flac")

    def piped(path: Path) -> Made:
        made = by_libsndfile(path)
        raw = np.round(written() * 2**15).astype("<i2").tobytes()
        options = ("--force-raw-format", "--endian=little", "--sign=signed", "--channels=2", "--bps=16")
        path.write_bytes(tool("flac", "--silent", *options, "--sample-rate=44100", "-c", "-", stdin=raw))
        return made

    _row("flac-piped-by-flac.flac", piped, "flac")

    def by_ffmpeg(path: Path, kind: str) -> Made:
        raw = np.round(written() * 2**15).astype("<i2").tobytes()
        path.write_bytes(
            ffmpeg("-f", "s16le", "-ar", 44_100, "-ac", 2, "-i", "-", "-c:a", "flac", "-f", kind, "-", stdin=raw)
        )
        return Made(written())

    _row("flac-piped-by-ffmpeg.flac", lambda path: by_ffmpeg(path, "flac"), "ffmpeg")
    _row("ogg-flac-by-ffmpeg.ogg", lambda path: by_ffmpeg(path, "ogg"), "ffmpeg")


def _headers() -> None:
    _row("flac-total-0.flac", _changed(lambda content: with_total(content, 0)))
    _row("flac-total-small.flac", _changed(lambda content: with_total(content, 1_000)))
    _row("flac-total-large.flac", _changed(lambda content: with_total(content, 20_000), partial="cut-short"))
    _row("flac-47-hours.flac", _changed(lambda content: with_total(content, 47 * 3_600 * 44_100), partial="cut-short"))
    _row("flac-behind-id3.flac", _changed(lambda content: id3v2() + content))
    _row("flac-before-id3v1.flac", _changed(lambda content: content + id3v1()))
    _row("flac-called-mp3.mp3", _changed(lambda content: content))

    def wrong_md5(content: bytes) -> bytes:
        return content[:26] + bytes(range(1, 17)) + content[42:]

    _row("flac-wrong-md5.flac", _changed(wrong_md5))

    def no_sizes(content: bytes) -> bytes:
        return content[:12] + bytes(6) + content[18:]

    _row("flac-no-frame-sizes.flac", _changed(no_sizes))

    def picture(content: bytes) -> bytes:
        block = bytes([6]) + (200_000).to_bytes(3, "big") + b"\xff\xf8\xc9\x18" * 50_000
        return content[:42] + block + content[42:]

    _row("flac-picture.flac", _changed(picture))


def _damaged() -> None:
    def joined(path: Path, *others: tuple[int, int]) -> Made:
        parts, samples = [], []
        for number, (channels, rate) in enumerate([(2, 44_100), *others]):
            parts.append(path.with_suffix(f".part{number}.flac"))
            by_libsndfile(parts[-1], 16, channels, rate, seed=number)
            samples.append(written(16, channels, rate, number).mean(axis=1, keepdims=True))
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        has_one_rate = all(rate == 44_100 for _, rate in others)
        return Made(np.concatenate(samples) if has_one_rate else None, parts=tuple(parts))

    _row("flac-joined.flac", lambda path: joined(path, (2, 44_100)))
    _row("flac-joined-mono-after-stereo.flac", lambda path: joined(path, (1, 44_100)))
    _row("flac-joined-other-rate.flac", lambda path: joined(path, (2, 48_000)), JUDGE)
    _row("flac-three-joined.flac", lambda path: joined(path, (2, 44_100), (2, 44_100)))

    def cut(path: Path, *, between: bool, total: int | None = None) -> Made:
        made = by_libsndfile(path)
        content, starts = path.read_bytes(), frame_starts(path)
        content = content if total is None else with_total(content, total)
        path.write_bytes(content[: starts[2] if between else (starts[2] + starts[3]) // 2])
        is_known = between and total == 0
        return Made(made.written, parts=(), stop=2 * _BLOCK, partial=None if is_known else "cut-short")

    _row("flac-cut.flac", lambda path: cut(path, between=False), "ffprobe")
    _row("flac-cut-between-frames.flac", lambda path: cut(path, between=True), "ffprobe")
    _row("flac-cut-total-0.flac", lambda path: cut(path, between=False, total=0), "ffprobe")
    _row("flac-cut-between-frames-total-0.flac", lambda path: cut(path, between=True, total=0), "ffprobe")

    def flipped(path: Path) -> Made:
        made = by_libsndfile(path)
        content, starts = bytearray(path.read_bytes()), frame_starts(path)
        content[(starts[1] + starts[2]) // 2] ^= 0x10
        path.write_bytes(content)
        return Made(made.written, parts=(), stop=_BLOCK, partial="damaged")

    _row("flac-flipped-bit.flac", flipped, "ffprobe")

    def cut_ogg(path: Path) -> Made:
        raw = np.round(sound(44_100) * (2**15 - 1)).astype("<i2")
        command = (
            "-f",
            "s16le",
            "-ar",
            44_100,
            "-ac",
            2,
            "-i",
            "-",
            "-c:a",
            "flac",
            "-page_duration",
            1,
            "-f",
            "ogg",
            "-",
        )
        whole = ffmpeg(*command, stdin=raw.tobytes())
        granules: list[int] = []

        def keep(number: int, page: Page, octets: bytearray) -> bool:
            granules.append(page.granule)
            return sum(granule > 0 for granule in granules) <= 3

        path.write_bytes(edit_pages(whole, keep))
        stop = [granule for granule in granules if granule > 0][2]
        return Made(raw / 2.0**15, parts=(), stop=stop, partial="cut-short")

    _row("ogg-flac-without-last-pages.oga", cut_ogg, "ffmpeg")


_encodings()
_headers()
_damaged()
