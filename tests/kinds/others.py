"""Rows of compressed WAV, of formats that only libsndfile reads or only FFmpeg, and of what is no sound."""

from __future__ import annotations

import importlib.util
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import soundfile

from kinds.containers import chunk, extensible, fmt, riff, sound, sphere
from kinds.mp4 import by_ffmpeg
from kinds.table import JUDGE, Made, Refused, Row, tool

ROWS: list[Row] = []
_TOLERANCE_16 = 2.0**-14


def _row(name: str, make: Callable[[Path], Made | None], *tools: str, refused: Refused | None = None) -> None:
    ROWS.append(Row(name, make, tools, refused))


def _compressed_rows() -> None:
    def by_sox(path: Path) -> Made:
        # FFmpeg rounds the samples of ADPCM in its own way.
        copy = path.with_suffix(".sox.wav")
        tool("sox", path, "-e", "float", "-b", 32, copy)
        samples, rate = soundfile.read(copy, always_2d=True)
        return Made(samples, rate, parts=())

    for name, subtype, channels in (
        ("wav-ima-adpcm.wav", "IMA_ADPCM", 2),
        ("wav-ms-adpcm.wav", "MS_ADPCM", 2),
        ("wav-gsm.wav", "GSM610", 1),
    ):

        def make(path: Path, subtype: str = subtype, channels: int = channels) -> Made:
            # Whole blocks: how long a padded block is, players do not agree on.
            frames, rate = (320 * 41, 8_000) if channels == 1 else (4_088 * 3 + 12, 44_100)
            soundfile.write(path, sound(frames, channels, rate), rate, format="WAV", subtype=subtype)
            return by_sox(path)

        _row(name, make, "sox")

    def by_ffmpeg_and_sox(path: Path, codec: str) -> Made:
        by_ffmpeg(path, "-c:a", codec)
        return by_sox(path)

    for codec in ("adpcm_ima_wav", "adpcm_ms"):
        name = f"wav-{codec.replace('_', '-')}-by-ffmpeg.wav"
        _row(name, lambda path, codec=codec: by_ffmpeg_and_sox(path, codec), "sox", JUDGE)
    # (format, subtype, file name's extension): what is written is what is heard.
    for kind, subtype, extension in (
        ("AVR", "PCM_16", "avr"),
        ("PAF", "PCM_16", "paf"),
        ("PAF", "PCM_24", "paf"),
        ("PVF", "PCM_16", "pvf"),
        ("SVX", "PCM_16", "iff"),
        ("SVX", "PCM_S8", "8svx"),
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
            channels = 1 if kind in {"SVX", "MPC2K"} else 2
            samples = sound(13_230, channels)
            soundfile.write(path, samples, 44_100, format=kind, subtype=subtype)
            # An old VOC gives the time of a sample in microseconds.
            rate = soundfile.info(path).samplerate
            return Made(samples, rate, atol=2.0**-6 if "8" in subtype else _TOLERANCE_16, parts=())

        _row(f"libsndfile-{kind.lower()}-{subtype.lower()}.{extension}", known)


def _ffmpeg_rows() -> None:
    for name, words, kind, *options in (
        ("wma.wma", "WMA", "asf", "-c:a", "wmav2"),
        ("wma-1.wma", "WMA", "asf", "-c:a", "wmav1"),
        ("wavpack.wv", "WavPack", "wv", "-c:a", "wavpack"),
        ("webm-opus.webm", "Matroska or WebM", "webm", "-c:a", "libopus", "-ar", 48_000),
        ("webm-vorbis.webm", "Matroska or WebM", "webm", "-c:a", "libvorbis"),
        ("matroska.mka", "Matroska or WebM", "matroska", "-c:a", "flac"),
        ("tta.tta", "TTA", "tta", "-c:a", "tta"),
        ("ac3.ac3", "AC-3", "ac3", "-c:a", "ac3"),
        ("eac3.eac3", "AC-3", "eac3", "-c:a", "eac3"),
        ("wavpack-called-wav.wav", "WavPack", "wv", "-c:a", "wavpack"),
        ("video.avi", "AVI", "avi", "-c:a", "pcm_s16le"),
        ("flash.flv", "Flash video", "flv", "-c:a", "libmp3lame"),
        ("real.rm", "RealAudio", "rm", "-c:a", "ac3"),
        ("dts.dts", "DTS", "dts", "-c:a", "dca", "-strict", -2),
        ("meridian.mlp", "MLP", "mlp", "-c:a", "mlp", "-strict", -2),
        ("truehd.thd", "TrueHD", "truehd", "-c:a", "truehd", "-strict", -2),
        ("sox.sox", "SoX's own format", "sox", "-c:a", "pcm_s32le"),
        ("nut.nut", "NUT", "nut", "-c:a", "pcm_s16le"),
        ("camera.m2ts", "MPEG transport stream", "mpegts", "-c:a", "ac3", "-mpegts_m2ts_mode", 1),
    ):
        refused = Refused(f"is {words}, which is read with FFmpeg: pip install 'distill[ffmpeg]'", "needs-ffmpeg", "av")
        _row(name, lambda path, o=options, k=kind: by_ffmpeg(path, *o, "-f", k) and None, JUDGE, refused=refused)
    _codec_rows()
    if importlib.util.find_spec("av"):
        return  # To FFmpeg, a head alone is no sound.
    for name, words, head in (
        ("monkey.ape", "Monkey's Audio", b"MAC \x96\x0f\x00\x00"),
        ("musepack.mpc", "Musepack", b"MPCKSH"),
        ("dsd.dsf", "DSD", b"DSD " + struct.pack("<QQQ", 28, 1_000, 0)),
        ("amr.amr", "AMR", b"#!AMR\n"),
    ):
        refused = Refused(f"is {words}, which is read with FFmpeg: pip install 'distill[ffmpeg]'", "needs-ffmpeg")
        _row(name, lambda path, head=head: path.write_bytes(head + bytes(2_000)) and None, refused=refused)


def _codec_rows() -> None:
    """Containers that are read without FFmpeg, with codecs that are not."""
    needed = "which is read with FFmpeg: pip install 'distill[ffmpeg]'"
    mono = ("-ar", 16_000, "-ac", 1)
    for name, reason, *options in (
        ("speex.spx", f"is an Ogg file that holds Speex, {needed}", "-c:a", "libspeex", *mono, "-f", "ogg"),
        ("wav-g722.wav", f"is a WAV file with the codec 0x028f, {needed}", "-c:a", "g722", *mono),
        ("wav-g726.wav", f"is a WAV file with the codec 0x0045, {needed}", "-c:a", "g726", "-ar", 8_000, "-ac", 1),
        ("wav-wma.wav", f"is a WAV file with the codec 0x0161, {needed}", "-c:a", "wmav2"),
    ):
        refused = Refused(reason, "needs-ffmpeg", "av")
        _row(name, lambda path, o=options: by_ffmpeg(path, *o) and None, JUDGE, refused=refused)
    if importlib.util.find_spec("av"):
        # Only then, because the words depend on the version of libsndfile.
        for name, codec, rate in (("ima4.caf", "adpcm_ima_qt", 44_100), ("opus.caf", "libopus", 48_000)):
            _row(name, lambda path, o=("-c:a", codec, "-ar", rate): by_ffmpeg(path, *o) and None, JUDGE)


def _not_sound() -> None:
    def zipped(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "a text" * 99)

    _row("zip.wav", zipped, refused=Refused("is a ZIP archive", "not-audio"))
    text = "not an audio file: it is text"
    unknown = "not an audio file, or of no kind that distill reads"
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 12345\n" % (b"4d" * 32)
    page = b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n"
    notes = b"MThd\x00\x00\x00\x06\x00\x01\x00\x02\x01\xe0MTrk\x00\x00\x00\x04\x00\xff\x2f\x00"
    for name, content, reason in (
        ("png.wav", b"\x89PNG\r\n\x1a\n" + bytes(500), "is a PNG picture"),
        ("html.mp3", page * 9, "is an HTML page"),
        ("text.wav", b"not a sound at all\n" * 50, text),
        ("text.mp3", b"not a sound at all\n" * 50, text),
        ("json.wav", b'{"samples": [0, 1, 2]}\n', text),
        ("pdf.flac", b"%PDF-1.4\n" + bytes(800), "is a PDF document"),
        ("midi.wav", notes, "is a MIDI file: it holds notes, no sound"),
        ("random.wav", bytes(range(1, 251)) * 8, unknown),
        ("live.asd", b"\x00\x00\x02\xab" + bytes(900), unknown),
        ("zeros.wav", bytes(5_000), "holds only zeros"),
        ("lfs-pointer.wav", pointer, "is a Git LFS pointer: run git lfs pull"),
    ):
        refused = Refused(reason, "not-audio")
        _row(name, lambda path, content=content: path.write_bytes(content) and None, refused=refused)
    _row("empty.wav", lambda path: path.write_bytes(b"") and None, refused=Refused("is empty", "empty"))
    _row("missing.wav", lambda path: None, refused=Refused("no such file", "unreadable"))
    _row("folder.wav", lambda path: path.mkdir(), refused=Refused("is a folder", "unreadable"))
    segment = b"\x00\x00\x00\x18stypmsdh" + bytes(900)
    refused = Refused("is a segment of a stream: its beginning is in another file", "not-audio")
    _row("dash.m4a", lambda path: path.write_bytes(segment) and None, refused=refused)
    _damaged_heads()


def _damaged_heads() -> None:
    wide = Refused("has 65 channels, outside 1 to 64", "out-of-range")
    if importlib.util.find_spec("av"):
        unknown = Refused("is WAV with a codec that FFmpeg does not know", "not-decodable")
    else:
        text = "is a WAV file with the codec 0x1234, which is read with FFmpeg: pip install 'distill[ffmpeg]'"
        unknown = Refused(text, "needs-ffmpeg")
    no_format = Refused("is a WAV file without a format chunk", "not-decodable")
    no_data = Refused("is a WAV file without samples: it has no data chunk", "no-samples")
    flac = Refused("damaged: its header is incomplete", "damaged")
    reason = "is a SPHERE file compressed with Shorten, which distill does not read: decompress it with sph2pipe"
    data = bytes(range(250)) * 16
    samples = chunk(b"data", data)
    shorten = sphere(b"ajkg\x02" + data, 1, 3_000, coding="pcm,embedded-shorten-v2.00")
    for name, content, refused in (
        ("only-a-riff-header.wav", b"RIFF\x24\x00\x00\x00WAVE", no_format),
        ("only-a-fmt-chunk.wav", riff(fmt(1, 2, 44_100, 16)), no_data),
        ("wav-65-channels.wav", riff(fmt(1, 65, 44_100, 16) + chunk(b"data", data[:2_600])), wide),
        ("only-a-flac-magic.flac", b"fLaC" * 9, flac),
        ("wav-unknown-codec.wav", riff(fmt(0x1234, 2, 44_100, 16) + samples), unknown),
        ("wav-unknown-guid.wav", riff(extensible(0x1234, 2, 44_100, 16, 16) + samples), unknown),
        ("sphere-shorten.sph", shorten, Refused(reason, "not-decodable")),
    ):
        _row(name, lambda path, content=content: path.write_bytes(content) and None, refused=refused)


_compressed_rows()
_ffmpeg_rows()
_not_sound()
