"""Rows of compressed WAV, of formats that only libsndfile reads or only FFmpeg, and of what is no sound."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import soundfile

from kinds.containers import chunk, extensible, fmt, riff, sound, sphere
from kinds.mp4 import by_ffmpeg
from kinds.table import JUDGE, Made, Refused, Row

ROWS: list[Row] = []
_TOLERANCE_16 = 2.0**-14


def _row(name: str, make: Callable[[Path], Made | None], *tools: str, refused: Refused | None = None) -> None:
    ROWS.append(Row(name, make, tools, refused))


def _compressed_rows() -> None:
    for name, subtype, channels in (
        ("wav-ima-adpcm.wav", "IMA_ADPCM", 2),
        ("wav-ms-adpcm.wav", "MS_ADPCM", 2),
        ("wav-gsm.wav", "GSM610", 1),
    ):

        def make(path: Path, subtype: str = subtype, channels: int = channels) -> None:
            # Whole blocks: how long a padded block is, players do not agree on.
            samples = sound(
                320 * 41 if subtype == "GSM610" else 4_088 * 3 + 12, channels, 8_000 if channels == 1 else 44_100
            )
            soundfile.write(path, samples, 8_000 if channels == 1 else 44_100, format="WAV", subtype=subtype)

        _row(name, make, JUDGE)
    _row("wav-ima-adpcm-by-ffmpeg.wav", lambda path: by_ffmpeg(path, "-c:a", "adpcm_ima_wav") and None, JUDGE)
    _row("wav-ms-adpcm-by-ffmpeg.wav", lambda path: by_ffmpeg(path, "-c:a", "adpcm_ms") and None, JUDGE)
    # (format, subtype, file name's extension): what is written is what is heard.
    for kind, subtype, extension in (
        ("AVR", "PCM_16", "avr"),
        ("PAF", "PCM_16", "paf"),
        ("PAF", "PCM_24", "paf"),
        ("PVF", "PCM_16", "pvf"),
        ("SVX", "PCM_16", "iff"),
        ("SVX", "PCM_S8", "8svx"),
        ("HTK", "PCM_16", "htk"),
        ("MAT5", "DOUBLE", "mat"),
        ("VOC", "PCM_U8", "voc"),
        ("VOC", "PCM_16", "voc"),
        ("NIST", "PCM_24", "wav"),
        ("IRCAM", "FLOAT", "sf"),
        ("WAVEX", "PCM_24", "wav"),
        ("MPC2K", "PCM_16", "snd"),
        ("AU", "PCM_24", "au"),
        ("CAF", "DOUBLE", "caf"),
    ):

        def known(path: Path, kind: str = kind, subtype: str = subtype) -> Made:
            channels = 1 if kind in {"HTK", "SVX", "MPC2K"} else 2
            samples = sound(channels=channels)
            soundfile.write(path, samples, 44_100, format=kind, subtype=subtype)
            # HTK gives the time of a sample in units of 100 ns.
            rate = soundfile.info(path).samplerate
            return Made(samples, rate, atol=2.0**-6 if "8" in subtype else _TOLERANCE_16, parts=())

        _row(f"libsndfile-{kind.lower()}-{subtype.lower()}.{extension}", known)


def _ffmpeg_rows() -> None:
    for name, words, kind, *options in (
        ("wma.wma", "WMA", "asf", "-c:a", "wmav2"),
        ("wma-1.wma", "WMA", "asf", "-c:a", "wmav1"),
        ("wavpack.wv", "WavPack", "wv", "-c:a", "wavpack"),
        ("webm-opus.webm", "WebM", "webm", "-c:a", "libopus", "-ar", 48_000),
        ("webm-vorbis.webm", "WebM", "webm", "-c:a", "libvorbis"),
        ("matroska.mka", "Matroska", "matroska", "-c:a", "flac"),
        ("tta.tta", "True Audio", "tta", "-c:a", "tta"),
        ("ac3.ac3", "AC-3", "ac3", "-c:a", "ac3"),
        ("eac3.eac3", "AC-3", "eac3", "-c:a", "eac3"),
        ("wavpack-called-wav.wav", "WavPack", "wv", "-c:a", "wavpack"),
        ("video.avi", "AVI", "avi", "-c:a", "pcm_s16le"),
        ("flash.flv", "Flash video", "flv", "-c:a", "libmp3lame"),
        ("real.rm", "RealMedia", "rm", "-c:a", "ac3"),
        ("speex.spx", "Speex", "ogg", "-c:a", "libspeex", "-ar", 16_000, "-ac", 1),
        ("dts.dts", "DTS", "dts", "-c:a", "dca", "-strict", -2),
    ):
        reason = f"is {words}: to read it, pip install 'distill[ffmpeg]'"
        refused = Refused(reason, "needs-ffmpeg", "av")
        _row(name, lambda path, o=options, k=kind: by_ffmpeg(path, *o, "-f", k) and None, JUDGE, refused=refused)
    for name, words, head in (
        ("monkey.ape", "Monkey's Audio", b"MAC \x96\x0f\x00\x00"),
        ("musepack.mpc", "Musepack", b"MPCKSH"),
        ("dsd.dsf", "DSD", b"DSD " + struct.pack("<QQQ", 28, 1_000, 0)),
        ("amr.amr", "AMR", b"#!AMR\n"),
    ):
        # Only a head: with FFmpeg, it is no sound either.
        refused = Refused(f"is {words}: to read it, pip install 'distill[ffmpeg]'", "needs-ffmpeg")
        _row(name, lambda path, head=head: path.write_bytes(head + bytes(2_000)) and None, refused=refused)


def _not_sound() -> None:
    unknown = Refused("is no audio file of a known kind", "not-audio")

    def zipped(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "a text" * 99)

    _row("zip.wav", zipped, refused=unknown)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 12345\n" % (b"4d" * 32)
    png = b"\x89PNG\r\n\x1a\n" + bytes(500)
    for name, content in {
        "png.wav": png,
        "html.mp3": b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n" * 9,
        "text.wav": b"not a sound at all\n" * 50,
        "text.mp3": b"not a sound at all\n" * 50,
        "pdf.flac": b"%PDF-1.4\n" + bytes(800),
        "midi.wav": b"MThd\x00\x00\x00\x06\x00\x01\x00\x02\x01\xe0MTrk\x00\x00\x00\x04\x00\xff\x2f\x00",
        "json.wav": b'{"samples": [0, 1, 2]}\n',
        "random.wav": bytes(range(1, 251)) * 8,
        "zeros.wav": bytes(5_000),
        "live.asd": b"\x00\x00\x02\xab" + bytes(900),
        "lfs-pointer.wav": pointer,
    }.items():
        _row(name, lambda path, content=content: path.write_bytes(content) and None, refused=unknown)
    empty = Refused("is empty", "empty")
    _row("empty.wav", lambda path: path.write_bytes(b"") and None, refused=empty)
    _row("missing.wav", lambda path: None, refused=Refused("cannot be read: no such file or directory", "unreadable"))
    _row("folder.wav", lambda path: path.mkdir(), refused=Refused("cannot be read: is a directory", "unreadable"))
    _damaged_heads()


def _damaged_heads() -> None:
    nothing = Refused("holds no samples", "no-samples")
    wide = Refused("has 65 channels, outside 1 to 64", "out-of-range")
    unsaid = Refused("", "not-decodable")
    data = bytes(range(250)) * 16
    samples = chunk(b"data", data)
    for name, content, refused in (
        ("only-a-riff-header.wav", b"RIFF\x24\x00\x00\x00WAVE", nothing),
        ("only-a-fmt-chunk.wav", riff(fmt(1, 2, 44_100, 16)), nothing),
        ("wav-65-channels.wav", riff(fmt(1, 65, 44_100, 16) + chunk(b"data", data[:2_600])), wide),
        ("only-a-flac-magic.flac", b"fLaC" * 9, unsaid),
        ("wav-unknown-codec.wav", riff(fmt(0x1234, 2, 44_100, 16) + samples), unsaid),
        ("wav-unknown-guid.wav", riff(extensible(0x1234, 2, 44_100, 16, 16) + samples), unsaid),
        ("sphere-shorten.sph", sphere(b"ajkg\x02" + data, 1, 3_000, coding="pcm,embedded-shorten-v2.00"), unsaid),
    ):
        _row(name, lambda path, content=content: path.write_bytes(content) and None, refused=refused)


_compressed_rows()
_ffmpeg_rows()
_not_sound()
