"""What a file is follows from its bytes, whatever its name is; and what is no sound is named."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import struct
import subprocess
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distill.audio import load_audio
from distill.audio.readers.ffmpeg import FFMPEG_KINDS
from distill.audio.readers.kinds import NAMES, kind_of
from distill.audio.readers.protocol import ByteSource
from distill.errors import AudioFileError
from distill.extensions import FFMPEG_EXTENSIONS
from sounds import noise


def kind(path: Path, content: bytes) -> str | None:
    path.write_bytes(content)
    source = ByteSource(path)
    found = kind_of(source)
    source.close()
    assert found is None or found in NAMES
    return found


def reason(path: Path) -> str:
    with pytest.raises(AudioFileError) as caught:
        load_audio(path)
    found = caught.value.reason
    assert "libsndfile" not in found.lower()
    assert len(found) < 120
    return found


@pytest.fixture(scope="module")
def encoded(tmp_path_factory) -> dict[str, bytes]:
    """The same sound in the formats that soundfile writes."""
    folder, found = tmp_path_factory.mktemp("encoded"), {}
    for name in KINDS:
        path = folder / name
        soundfile.write(path, noise(1, 20_000), 44_100, format=name)
        found[name] = path.read_bytes()
    return found


KINDS = {
    "WAV": "wav",
    "RF64": "wav",
    "W64": "w64",
    "AIFF": "aiff",
    "CAF": "caf",
    "AU": "au",
    "FLAC": "flac",
    "OGG": "ogg",
    "MP3": "mpeg",
    "VOC": "voc",
    "NIST": "sphere",
    "IRCAM": "ircam",
    "MPC2K": "mpc2000",
    "SVX": "svx",
    "PAF": "paf",
    "PVF": "pvf",
    "AVR": "avr",
    "XI": "xi",
}


@pytest.mark.parametrize("name", KINDS)
def test_the_kind_follows_from_the_bytes_and_not_from_the_name(tmp_path, encoded, name):
    assert kind(tmp_path / "a.txt", encoded[name]) == KINDS[name]
    assert kind(tmp_path / "a.mp3", encoded[name]) == KINDS[name]
    samples = load_audio(tmp_path / "a.mp3", 44_100)[0].numpy()
    assert len(samples) >= 20_000
    assert np.abs(samples).max() > 0.05


def id3(size: int, flags: int = 0) -> bytes:
    body = b"TXXX" + b"\0" * (size - 4)
    parts = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\4\0" + bytes([flags]) + parts + body + (b"3DI\4\0\0" + parts if flags & 0x10 else b"")


JUNK = random.Random(7).randbytes(70_000)
FRONTS = {
    "nothing": b"",
    "ID3v2": id3(300),
    "ID3v2 with footer": id3(300, 0x10),
    "ID3v2 twice": id3(40) + id3(5_000),
    "a picture of 5 MB": id3(5 << 20),
}
MPEG_FRONTS = {
    "300 bytes of junk": JUNK[:300],
    "64 KB of junk": JUNK[: 1 << 16],
    "zeros": b"\0" * 5_000,
    "a byte order mark": b"\xef\xbb\xbf",
    "ID3v2 and junk": id3(200) + JUNK[:700],
    "ID3v2 and zeros": id3(200) + b"\0" * 4_096,
    "an ID3v2 that is longer than it says": id3(200) + b"TXXX" + b"\0" * 900,
}


@pytest.mark.parametrize("name", ["WAV", "AIFF", "FLAC", "OGG", "MP3", "CAF"])
@pytest.mark.parametrize("front", FRONTS)
def test_tags_before_the_sound_do_not_hide_it(tmp_path, encoded, name, front):
    assert kind(tmp_path / "a", FRONTS[front] + encoded[name]) == KINDS[name]
    if name not in ("FLAC", "OGG", "MP3"):
        np.testing.assert_array_equal(
            load_audio(tmp_path / "a", 44_100)[0].numpy(),
            soundfile.read(io.BytesIO(encoded[name]), dtype="float32")[0],
        )


@pytest.mark.parametrize("front", MPEG_FRONTS)
def test_mpeg_is_found_behind_other_bytes(tmp_path, encoded, front):
    assert kind(tmp_path / "a", MPEG_FRONTS[front] + encoded["MP3"]) == "mpeg"


def run(*command: object) -> None:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"needs {command[0]}")
    subprocess.run([*map(str, command)], check=True, capture_output=True)


ENCODERS = {
    "mp2": ("ffmpeg", "mpeg"),
    "mp3 -ar 8000": ("ffmpeg", "mpeg"),
    "mp3 -ar 24000": ("ffmpeg", "mpeg"),
    "mp3 -ac 1 -b:a 320k": ("ffmpeg", "mpeg"),
    "aac -f adts": ("ffmpeg", "aac"),
    "aac -f latm": ("ffmpeg", "latm"),
    "aac -f ipod": ("ffmpeg", "mp4"),
    "aac -f mov": ("ffmpeg", "mp4"),
    "alac -f caf": ("ffmpeg", "caf"),
    "wavpack": ("ffmpeg", "wavpack"),
    "tta": ("ffmpeg", "tta"),
    "ac3": ("ffmpeg", "ac3"),
    "wmav2 -f asf": ("ffmpeg", "asf"),
    "libvorbis -f matroska": ("ffmpeg", "matroska"),
    "mp2 -f mpegts": ("ffmpeg", "mpegts"),
    "mp2 -f vob": ("ffmpeg", "mpegps"),
    "mp3 -f avi": ("ffmpeg", "avi"),
    "mp3 -f flv -ar 44100": ("ffmpeg", "flv"),
    "libmp3lame --freeformat -b 400": ("lame", "mpeg"),
    "libmp3lame -b 32 --resample 11.025": ("lame", "mpeg"),
    "libmp3lame -V2 -t": ("lame", "mpeg"),
}


@pytest.mark.parametrize("options", ENCODERS)
def test_what_encoders_write_is_recognised(tmp_path, options):
    tool, expected = ENCODERS[options]
    original, path = tmp_path / "original.wav", tmp_path / "a"
    soundfile.write(original, np.stack([noise(1, 44_100), noise(2, 44_100)], axis=1), 44_100)
    codec, *rest = options.split()
    if tool == "lame":
        run("lame", "--quiet", *rest, original, path)
    else:
        codec = {"mp3": "libmp3lame"}.get(codec, codec)
        rest = rest if "-f" in rest else ["-f", options.split()[0].replace("wavpack", "wv"), *rest]
        run("ffmpeg", "-v", "error", "-i", original, "-c:a", codec, *rest, path)
    content = path.read_bytes()
    assert kind(tmp_path / "b", content) == expected
    if expected in ("mpeg", "aac"):
        for front in (
            id3(99),
            id3(99) + id3(99),
            *([JUNK[:300], JUNK[: 1 << 16]] if "--freeformat" not in rest else []),
        ):
            assert kind(tmp_path / "b", front + content) == expected
        # One frame, and one and a half.
        assert kind(tmp_path / "b", content[: len(content) // 3]) == expected


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.mp3", content)
    return file.getvalue()


OTHERS = {
    "zip": (zipped, "is a ZIP archive"),
    "gzip": (gzip.compress, "is compressed with gzip"),
    "png": (lambda mp3: b"\x89PNG\r\n\x1a\n" + mp3, "is a PNG picture"),
    "jpeg": (lambda mp3: b"\xff\xd8\xff\xe0\0\x10JFIF" + mp3, "is a JPEG picture"),
    "pdf": (lambda mp3: b"%PDF-1.7\n" + mp3, "is a PDF document"),
    "html": (lambda mp3: b"\n<!DOCTYPE html>\n<html>404</html>", "is an HTML page"),
    "html with a mark": (lambda mp3: b"\xef\xbb\xbf<HTML><body>", "is an HTML page"),
    "midi": (lambda mp3: b"MThd\0\0\0\6\0\1\0\1\0\x60MTrk", "is a MIDI file: it holds notes, no sound"),
    "midi in riff": (lambda mp3: b"RIFF\x20\0\0\0RMIDdata", "is a MIDI file"),
    "webp": (lambda mp3: b"RIFF\x20\0\0\0WEBPVP8 ", "is a WebP picture"),
    "iff": (lambda mp3: b"FORM\0\0\0\x20ILBMBMHD", "is an IFF file of the type ILBM"),
    "lfs": (
        lambda mp3: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "is a Git LFS pointer: run git lfs pull",
    ),
    "empty": (lambda mp3: b"", "is empty"),
    "zeros": (lambda mp3: b"\0" * 9_999, "holds only zeros"),
    "many zeros": (lambda mp3: b"\0" * (3 << 20) + b"x", "begins with a megabyte of zeros"),
    "only a tag": (lambda mp3: id3(500), "holds an ID3 tag and no sound"),
    "text": (lambda mp3: "not sound, but text: äöü\n".encode() * 9, "not an audio file: it is text"),
    "long text": (lambda mp3: "ä日本語\n".encode() * 9_999, "not an audio file: it is text"),
    "utf-16": (lambda mp3: "some text\n".encode("utf-16") * 99, "not an audio file"),
    "random": (lambda mp3: random.Random(3).randbytes(1 << 20), "not an audio file"),
    "one byte": (lambda mp3: b"\xff", "not an audio file"),
    "a lone sync": (lambda mp3: b"\xff\xfb\x90\x64" + b"\1" * 5_000, "not an audio file"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_sound_is_named(tmp_path, encoded, name):
    make, words = OTHERS[name]
    path = tmp_path / "a.wav"
    assert kind(path, make(encoded["MP3"])) is None
    assert reason(path).startswith(words)


def test_the_seeds_of_other_bytes_are_never_taken_for_sound(tmp_path):
    for seed in range(40):
        content = random.Random(seed).randbytes(200_000)
        assert kind(tmp_path / "a", content) is None, seed


def test_a_known_kind_that_is_not_read_is_named(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"ajkg\2" + b"\0" * 99)
    assert "Shorten" in reason(tmp_path / "a.wav")


def test_reasons_of_the_system_are_in_its_words(tmp_path):
    assert reason(tmp_path / "missing.wav") == "no such file"
    (tmp_path / "folder.wav").mkdir()
    assert reason(tmp_path / "folder.wav") == "is a folder"
    os.mkfifo(tmp_path / "fifo.wav")
    assert "not a regular file" in reason(tmp_path / "fifo.wav")


def test_nothing_is_written_to_standard_error(tmp_path, encoded, capfd):
    for name, content in encoded.items():
        if name == "MP3":
            continue  # has tests of its own
        for cut in (len(content) // 2, 60, 30):
            path = tmp_path / name
            path.write_bytes(content[:cut] + struct.pack("<I", 0xDEAD_BEEF) * 9)
            with suppress(AudioFileError):
                load_audio(path)
    assert capfd.readouterr() == ("", "")


# The first bytes of a file with each extension that is promised with FFmpeg, as their formats define them.
_MP4 = b"\0\0\0\x20ftypisom"
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_MKV, _MPG, _OGG = b"\x1a\x45\xdf\xa3", b"\0\0\x01\xba", b"OggS"
_TS = (b"\x47" + bytes(187)) * 3
_SYNC_LATM = b"\x56\xe0\x02\0\0\x56\xe0\x02\0\0"
FFMPEG_HEADS = {
    **dict.fromkeys(("wma", "asf", "wmv"), _ASF),
    **dict.fromkeys(("mp4", "m4v", "mov", "qt", "3gp", "3g2", "3ga", "f4v", "f4a"), _MP4),
    **dict.fromkeys(("webm", "mkv", "mk3d", "weba", "mka"), _MKV),
    **dict.fromkeys(("ogv", "ogm", "ogx", "spx"), _OGG),
    **dict.fromkeys(("mpg", "mpeg", "vob"), _MPG),
    **dict.fromkeys(("avi", "divx"), b"RIFF\0\0\0\0AVI LIST"),
    **dict.fromkeys(("ac3", "eac3", "ec3"), b"\x0b\x77"),
    **dict.fromkeys(("rm", "rmvb", "ra"), b".RMF"),
    **dict.fromkeys(("latm", "loas"), _SYNC_LATM),
    **dict.fromkeys(("oma", "aa3"), b"ea3\x03"),
    **dict.fromkeys(("amr", "awb"), b"#!AMR"),
    **dict.fromkeys(("mpc", "mp+"), b"MP+\x07"),
    **dict.fromkeys(("thd", "truehd"), b"\x80\x3b\xff\xd8\xf8\x72\x6f\xba"),
    "mlp": b"\x80\x35\xff\xd8\xf8\x72\x6f\xbb",
    "at3": b"RIFF\0\0\0\0WAVEfmt ",
    "xwma": b"RIFF\0\0\0\0XWMAfmt ",
    "wv": b"wvpk",
    "ape": b"MAC ",
    "tta": b"TTA1",
    "tak": b"tBaK",
    "shn": b"ajkg",
    "dts": b"\x7f\xfe\x80\x01",
    "dtshd": b"DTSHDHDR",
    "dsf": b"DSD ",
    "dff": b"FRM8",
    "dss": b"\x02dss",
    "vqf": b"TWIN97012000",
    "qoa": b"qoaf",
    "sox": b".SoX",
    "hcom": bytes(65) + b"FSSD" + bytes(59) + b"HCOM",
    "wve": b"ALawSoundFile**",
    "maud": b"FORM\0\0\0\0MAUD",
    "nut": b"nut/multimedia container\0",
    "flv": b"FLV\x01",
    "mts": _TS,
    "m2ts": b"\0\0\0\0" + (b"\x47" + bytes(191)) * 3,
    "mxf": bytes.fromhex("060e2b34020501010d01020101020400"),
    "dv": bytes.fromhex("1f0700bf"),
}


def test_each_extension_that_is_promised_with_ffmpeg_is_of_a_kind_that_is_read(tmp_path):
    assert set(FFMPEG_HEADS) == set(FFMPEG_EXTENSIONS)
    for extension, head in FFMPEG_HEADS.items():
        assert kind(tmp_path / "a.wav", head + bytes(2_000)) in FFMPEG_KINDS, extension


def test_samples_are_not_taken_for_frames_without_a_length(tmp_path):
    # As in 16-bit samples of a quiet sound: -1, small numbers, -1 again and again.
    quiet = np.random.default_rng(3).integers(-9, 9, 60_000).astype("<i2").tobytes()
    assert kind(tmp_path / "a.smp", b"SOUND SAMPLE DATA 2.1 " + quiet) is None


@pytest.mark.parametrize("head", [b"\1\2\3", b"\1\2\3" * 3_000])
def test_what_only_looks_like_frames_is_not_called_a_damaged_mp3(tmp_path, head):
    frame = b"\xff\xfb\x90\x64" + b"\xfe" * 413
    path = tmp_path / "a.mp3"
    path.write_bytes(head + frame * 9 + bytes(500))
    assert reason(path) == "not an audio file, or of no kind that distill reads"
