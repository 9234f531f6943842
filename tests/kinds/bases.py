"""The intact files that are changed at random, one a container."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from distill.demo_m4a import write_m4a
from kinds.containers import aiff, au, caf, chunk, fmt, ircam, mpc, pcm, rf64, riff, sound, sphere, voc, voc_new, w64
from kinds.flac import by_libsndfile
from kinds.mp4 import by_ffmpeg
from kinds.mutants import Base
from kinds.packets import boxes, mp3_frames, pages
from kinds.table import heard, mono, tool

_FRAMES = 13_231


def _of_pcm(build: Callable[[bytes, int], bytes], kind: str, channels: int = 2, rate: int = 44_100) -> Base:
    """Return a base whose samples stand in the file one after the other."""
    data, written = pcm(sound(_FRAMES, channels, rate), kind)
    content = build(data, _FRAMES)
    start, block = content.index(data), len(data) // _FRAMES
    frames = np.arange(0, _FRAMES + 1, 64)
    return Base(content, mono(written).astype(np.float32), rate, start + frames * block, frames, has_checksums=False)


def _wav(format_chunk: bytes) -> Callable[[bytes, int], bytes]:
    return lambda data, frames: riff(format_chunk + chunk(b"data", data))


def _of_libsndfile(container: str, subtype: str, channels: int = 2, rate: int = 44_100) -> Base:
    """Return a base whose packets are not known: nothing before a change is compared."""
    buffer = io.BytesIO()
    soundfile.write(buffer, sound(_FRAMES, channels, rate), rate, format=container, subtype=subtype)
    buffer.seek(0)
    samples, rate = soundfile.read(buffer, dtype="float32", always_2d=True)
    size = len(buffer.getvalue())
    return Base(buffer.getvalue(), mono(samples).astype(np.float32), rate, np.array([size]), np.array([0]), False)


def _mp3(path: Path) -> Base:
    base = _of_libsndfile("MP3", "MPEG_LAYER_III")
    ends = np.array(mp3_frames(base.content)[1:])
    # The first frame is the header. The delay of encoder and decoder is left out.
    frames = (1_152 * np.arange(len(ends)) - 1_105).clip(0, _FRAMES)
    return base._replace(ends=ends, frames=frames)


def _ogg(codec: str) -> Base:
    base = _of_libsndfile("OGG", codec, rate=48_000)
    found = [page for page in pages(base.content) if page.granule >= 0]
    skipped = 312 if codec == "OPUS" else 0
    frames = np.array([page.granule - skipped for page in found]).clip(0, _FRAMES)
    return base._replace(ends=np.array([page.end for page in found]), frames=frames, has_checksums=True)


def _flac(path: Path) -> Base:
    written = by_libsndfile(path).written
    assert written is not None
    content = path.read_bytes()
    # Frames begin with the sync word, a fixed block size and their number.
    starts, at = [], 0
    while (at := content.find(b"\xff\xf8", at)) >= 0:
        if content[at + 4] == len(starts):
            starts.append(at)
        at += 1
    ends = np.array([*starts, len(content)])
    frames = (4_096 * np.arange(len(ends))).clip(0, _FRAMES)
    return Base(content, mono(written).astype(np.float32), 44_100, ends, frames, has_checksums=True)


def _alac(path: Path) -> Base:
    write_m4a(path, sound(_FRAMES), 44_100)
    content = path.read_bytes()
    ((start, end),) = ((start + 8, end) for kind, start, end in boxes(content) if kind == b"mdat")
    count = -(-_FRAMES // 4_096)
    ends = np.minimum(start + (4 * 4_096 + 8) * np.arange(count + 1), end)
    frames = (4_096 * np.arange(count + 1)).clip(0, _FRAMES)
    return Base(content, mono(sound(_FRAMES)).astype(np.float32), 44_100, ends, frames, has_checksums=False)


def _of_ffmpeg(path: Path, packet: int, delay: int, *options: object) -> Base:
    """Return a base with packets of so many frames, after an encoder's delay that is not heard."""
    content = by_ffmpeg(path, *options)
    command = (
        "ffprobe",
        "-v",
        "error",
        "-show_entries",
        "packet=pos,size",
        "-select_streams",
        "a",
        "-of",
        "json",
        path,
    )
    ends = [int(found["pos"]) + int(found["size"]) for found in json.loads(tool(*command))["packets"]]
    samples, rate = heard(path)
    frames = (packet * np.arange(1, len(ends) + 1) - delay).clip(0, len(samples))
    return Base(content, mono(samples).astype(np.float32), rate, np.array(ends), frames, has_checksums=False)


def _without_packets(base: Base) -> Base:
    return base._replace(ends=np.array([len(base.content)]), frames=np.array([0]))


def _ogg_flac(path: Path) -> Base:
    base = _of_ffmpeg(path, 0, 0, "-c:a", "flac", "-page_duration", 1, "-f", "ogg")
    found = [page for page in pages(base.content) if page.granule >= 0]
    frames = np.array([page.granule for page in found])
    return base._replace(ends=np.array([page.end for page in found]), frames=frames, has_checksums=True)


def _aiff(data: bytes, frames: int) -> bytes:
    return aiff(data, 2, frames, 16)


BASES: dict[str, Callable[[Path], Base]] = {
    "wav": lambda path: _of_pcm(_wav(fmt(1, 2, 44_100, 16)), "s16le"),
    "wav-float": lambda path: _of_pcm(_wav(fmt(3, 1, 44_100, 32)), "f32le", channels=1),
    "rf64": lambda path: _of_pcm(lambda data, frames: rf64(fmt(1, 2, 44_100, 24), data), "s24le"),
    "w64": lambda path: _of_pcm(lambda data, frames: w64(fmt(1, 2, 44_100, 16), data), "s16le"),
    "aiff": lambda path: _of_pcm(_aiff, "s16be"),
    "aifc": lambda path: _of_pcm(lambda data, frames: aiff(data, 2, frames, 16, compression=b"sowt"), "s16le"),
    "caf": lambda path: _of_pcm(lambda data, frames: caf(data, 2, 24), "s24be"),
    "au": lambda path: _of_pcm(lambda data, frames: au(data, 3, 2), "s16be"),
    "sphere": lambda path: _of_pcm(lambda data, frames: sphere(data, 1, frames), "s16le", 1, 16_000),
    "ircam": lambda path: _of_pcm(lambda data, frames: ircam(data, 2, 2), "s16le"),
    "voc": lambda path: _of_pcm(lambda data, frames: voc(voc_new(data, 4, 16, 2, 44_100)), "s16le"),
    "mpc": lambda path: _of_pcm(mpc, "s16le", channels=1),
    "wav-ima-adpcm": lambda path: _of_libsndfile("WAV", "IMA_ADPCM"),
    "wav-ms-adpcm": lambda path: _of_libsndfile("WAV", "MS_ADPCM"),
    "wav-gsm": lambda path: _of_libsndfile("WAV", "GSM610", 1, 8_000),
    "paf": lambda path: _of_libsndfile("PAF", "PCM_24"),
    "8svx": lambda path: _of_libsndfile("SVX", "PCM_16", 1),
    "avr": lambda path: _of_libsndfile("AVR", "PCM_16"),
    "flac": _flac,
    "vorbis": lambda path: _ogg("VORBIS"),
    "opus": lambda path: _ogg("OPUS"),
    "mp3": _mp3,
    "alac": _alac,
}
"""Made in code, and by libsndfile."""

BASES_OF_FFMPEG: dict[str, Callable[[Path], Base]] = {
    "mp3-without-header": lambda path: _of_ffmpeg(path, 1_152, 0, "-c:a", "libmp3lame", "-write_xing", 0, "-f", "mp3"),
    "mp2": lambda path: _of_ffmpeg(path, 1_152, 0, "-c:a", "mp2", "-f", "mp2"),
    "m4a": lambda path: _of_ffmpeg(path, 1_024, 1_024, "-c:a", "aac", "-movflags", "+faststart", "-f", "ipod"),
    "m4a-fragmented": lambda path: _of_ffmpeg(
        path, 1_024, 0, "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov", "-frag_duration", 100_000, "-f", "mp4"
    ),
    "adts": lambda path: _of_ffmpeg(path, 1_024, 0, "-c:a", "aac", "-f", "adts"),
    # The table of packets is at its end, so nothing may be left after a change.
    "alac-caf": lambda path: _without_packets(_of_ffmpeg(path, 4_096, 0, "-c:a", "alac", "-f", "caf")),
    "ogg-flac": _ogg_flac,
}
