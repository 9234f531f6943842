"""Rows of M4A and other files with AAC or ALAC."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from distill.demo_m4a import write_m4a
from kinds.containers import sound
from kinds.flac import written
from kinds.packets import boxes, id3v2, with_itunsmpb
from kinds.table import JUDGE, Made, Refused, Row, ffmpeg, tool

ROWS: list[Row] = []
_FRAMES = 13_231
# What an encoder of AAC puts before the sound, and its packets.
_DELAY = _PACKET = 1_024
_HE_AAC = Refused(
    "holds HE-AAC (spectral band replication), which is read with FFmpeg: pip install 'distill[ffmpeg]'",
    "needs-ffmpeg",
    "av",
)


def _row(name: str, make: Callable[[Path], Made | None], *tools: str, refused: Refused | None = None) -> None:
    ROWS.append(Row(name, make, tools, refused))


def by_ffmpeg(path: Path, *options: object, channels: int = 2, rate: int = 44_100, frames: int = _FRAMES) -> bytes:
    """Encode a sound with FFmpeg, and return the bytes of the file."""
    samples = sound(frames, channels, rate).astype("<f4").tobytes()
    before = ("-f", "f32le", "-ar", rate, "-ac", channels, "-i", "-")
    ffmpeg(*before, "-bitexact", *options, path, stdin=samples)
    return path.read_bytes()


def _aac_rows() -> None:
    def aac(path: Path, *options: object, **of_sound) -> Made:
        by_ffmpeg(path, "-c:a", "aac", *options, **of_sound)
        return Made()

    for rate in (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000):
        _row(f"aac-{rate}.m4a", lambda path, rate=rate: aac(path, rate=rate), JUDGE)
    _row("aac-mono.m4a", lambda path: aac(path, channels=1), JUDGE)
    _row("aac-low-bitrate.m4a", lambda path: aac(path, "-b:a", "32k"), JUDGE)
    _row("aac-header-first.m4a", lambda path: aac(path, "-movflags", "+faststart"), JUDGE)
    _row("aac-exact-edit-list.m4a", lambda path: aac(path, "-movie_timescale", 44_100), JUDGE)
    _row("aac-called-wav.wav", lambda path: aac(path, "-f", "ipod"), JUDGE)
    _row("aac-called-mp3.mp3", lambda path: aac(path, "-f", "ipod"), JUDGE)
    _row("aac.mp4", aac, JUDGE)
    _row("aac.mov", aac, JUDGE)
    _row("aac.m4b", lambda path: aac(path, "-f", "ipod"), JUDGE)

    def no_edit_list(path: Path) -> Made:
        aac(path, "-use_editlist", 0)
        # Nothing says what the encoder put before the sound.
        return Made()

    _row("aac-no-edit-list.m4a", no_edit_list, JUDGE)

    def itunsmpb(path: Path) -> Made:
        plain = path.with_suffix(".plain.m4a")
        content = by_ffmpeg(plain, "-c:a", "aac", "-use_editlist", 0)
        padding = -(_FRAMES + _DELAY) % _PACKET
        path.write_bytes(with_itunsmpb(content, _DELAY, padding, _FRAMES))
        return Made(parts=(plain,), start=_DELAY)

    _row("aac-itunsmpb.m4a", itunsmpb, JUDGE)

    def fragmented(path: Path) -> Made:
        by_ffmpeg(path, "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov", "-frag_duration", 100_000)
        # A fragment gives no exact length of its last packet, and FFmpeg writes no edit list.
        return Made()

    _row("aac-fragmented.m4a", fragmented, JUDGE)

    def with_video(path: Path) -> Made:
        picture = ("-f", "lavfi", "-i", "color=s=64x64:d=0.3")
        samples = sound().astype("<f4").tobytes()
        before = ("-f", "f32le", "-ar", 44_100, "-ac", 2, "-i", "-")
        ffmpeg(*picture, *before, "-bitexact", "-c:v", "mpeg4", "-c:a", "aac", path, stdin=samples)
        return Made()

    _row("aac-with-video.mp4", with_video, JUDGE)


def _adts_rows() -> None:
    def adts(path: Path, **of_sound) -> None:
        by_ffmpeg(path, "-c:a", "aac", "-f", "adts", **of_sound)

    _row("adts.aac", adts, JUDGE)
    _row("adts-mono-22050.aac", lambda path: adts(path, channels=1, rate=22_050), JUDGE)
    _row("adts-called-mp3.mp3", adts, JUDGE)

    def behind_id3(path: Path) -> Made:
        plain = path.with_suffix(".plain.aac")
        adts(plain)
        path.write_bytes(id3v2() + plain.read_bytes())
        return Made(parts=(plain,))

    _row("adts-behind-id3.aac", behind_id3, JUDGE)

    def cut(path: Path) -> Made:
        plain = path.with_suffix(".plain.aac")
        adts(plain)
        content, start, starts = plain.read_bytes(), 0, []
        while start < len(content):
            starts.append(start)
            start += (content[start + 3] & 3) << 11 | content[start + 4] << 3 | content[start + 5] >> 5
        path.write_bytes(content[: (starts[5] + starts[6]) // 2])
        return Made(parts=(plain,), stop=5 * _PACKET, partial="cut-short")

    _row("adts-cut.aac", cut, JUDGE)


def _alac_rows() -> None:
    for bits, channels in ((16, 1), (16, 2), (24, 2)):

        def alac(path: Path, bits: int = bits, channels: int = channels) -> Made:
            raw = np.round(written(bits, channels) * 2.0**31).astype("<i4").tobytes()
            before = ("-f", "s32le", "-ar", 44_100, "-ac", channels, "-i", "-")
            ffmpeg(*before, "-c:a", "alac", "-sample_fmt", "s16p" if bits == 16 else "s32p", path, stdin=raw)
            return Made(written(bits, channels))

        for kind in ("m4a", "caf"):
            _row(f"alac-{bits}-{channels}.{kind}", alac, JUDGE)

    def verbatim(path: Path, channels: int) -> Made:
        write_m4a(path, sound(channels=channels), 44_100)
        return Made(sound(channels=channels))

    _row("alac-verbatim-mono.m4a", lambda path: verbatim(path, 1))
    _row("alac-verbatim.m4a", lambda path: verbatim(path, 2))
    _row("alac-called-wav.wav", lambda path: verbatim(path, 2))

    def cut(path: Path) -> Made:
        made = verbatim(path, 2)
        content = path.read_bytes()
        # The header comes first. Every packet holds 4096 frames of 4 bytes, and 8 bytes more.
        (start,) = (start + 8 for kind, start, _ in boxes(content) if kind == b"mdat")
        path.write_bytes(content[: start + 2 * (4_096 * 4 + 8) + 5_000])
        return Made(made.written, parts=(), stop=2 * 4_096, partial="cut-short")

    _row("alac-cut.m4a", cut)


def _damaged_rows() -> None:
    def cut(path: Path) -> Made:
        intact = path.with_suffix(".intact.m4a")
        content = by_ffmpeg(intact, "-c:a", "aac", "-movflags", "+faststart")
        packets = tool("ffprobe", "-v", "error", "-show_entries", "packet=pos", "-of", "csv=p=0", intact).split()
        starts = [int(line.strip(b",")) for line in packets]
        path.write_bytes(content[: (starts[6] + starts[7]) // 2])
        # The first packet is the encoder's delay.
        return Made(parts=(intact,), stop=5 * _PACKET, partial="cut-short")

    _row("aac-cut.m4a", cut, JUDGE, "ffprobe")

    def no_header(path: Path) -> None:
        content = by_ffmpeg(path, "-c:a", "aac")
        path.write_bytes(content[: content.index(b"moov") - 100])

    reason = "cut short: it has no index (moov), as a recording that was not finished"
    _row("aac-cut-before-header.m4a", no_header, JUDGE, refused=Refused(reason, "cut-short"))

    def high_efficiency(path: Path) -> None:
        content = by_ffmpeg(path, "-c:a", "aac", rate=24_000)
        # AudioSpecificConfig: object type 5 (SBR), 24 kHz, stereo; extended to 48 kHz; object type 2 (LC).
        at = content.index(b"\x05\x80\x80\x80\x05") + 5
        bits = f"{5:05b}{6:04b}{2:04b}{3:04b}{2:05b}000".ljust(40, "0")
        path.write_bytes(content[:at] + int(bits, 2).to_bytes(5, "big") + content[at + 5 :])

    _row("he-aac.m4a", high_efficiency, JUDGE, refused=_HE_AAC)


_aac_rows()
_adts_rows()
_alac_rows()
_damaged_rows()
