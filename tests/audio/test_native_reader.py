"""The decoders of the extension give the samples that FFmpeg gives, or a true reason."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from distill.audio.decode import decode_blocks
from distill.audio.readers import native
from distill.audio.readers.protocol import ByteSource, NotForMeError, SoundError

TOOLS = ("ffmpeg", "lame", "flac")
missing = [tool for tool in TOOLS if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")

RATE, SECONDS = 44_100, 1.2345
ID3V2 = b"ID3\x04\0\0\0\0\x03\x68" + bytes(3 * 128 + 0x68)
ID3V1 = b"TAG" + b"x" * 125


def run(*command: object, stdin: bytes | None = None) -> bytes:
    return subprocess.run([str(part) for part in command], input=stdin, capture_output=True, check=True).stdout


def ffmpeg(path: Path, channels: int) -> np.ndarray:
    raw = run("ffmpeg", "-v", "error", "-i", path, "-f", "f32le", "-")
    return np.frombuffer(raw, np.float32).reshape(-1, channels)


def decoded(path: Path, kind: str) -> tuple[list[np.ndarray], SoundError | None, int | None]:
    """Return the samples of each part, how decoding ended, and how many frames were promised."""
    source = ByteSource(path)
    sound = native.NativeSound(source, kind)
    parts: list[list[np.ndarray]] = []
    last = None
    fault = None
    try:
        for samples, rate in sound.blocks():
            if (rate, samples.shape[1]) != last:
                parts.append([])
            last = rate, samples.shape[1]
            parts[-1].append(samples)
    except SoundError as error:
        fault = error
    sound.close()
    return [np.concatenate(part) for part in parts], fault, sound.frames


def whole(path: Path, kind: str) -> np.ndarray:
    parts, fault, promised = decoded(path, kind)
    assert fault is None
    assert len(parts) == 1
    assert promised in (None, len(parts[0]))
    return parts[0]


def reason(path: Path, kind: str) -> tuple[str, str]:
    """Return text and code of the reason for which a file cannot be opened or decoded."""
    source = ByteSource(path)
    with pytest.raises(SoundError) as caught:
        for _ in native.NativeSound(source, kind).blocks():
            pass
    return str(caught.value.reason), caught.value.reason.code


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with WAV files: stereo, mono, at a low rate, of 24 bits, of six channels."""
    folder = tmp_path_factory.mktemp("native")
    sine = f"aevalsrc=0.4*sin(880*t)+0.1*random(0)|0.3*sin(3000*t*t):s={RATE}:d={SECONDS}"
    run("ffmpeg", "-v", "error", "-f", "lavfi", "-i", sine, folder / "stereo.wav")
    convert = ("ffmpeg", "-v", "error", "-i", folder / "stereo.wav")
    run(*convert, "-ac", 1, folder / "mono.wav")
    run(*convert, "-ar", 22_050, folder / "low.wav")
    run(*convert, "-ar", 48_000, "-c:a", "pcm_s24le", folder / "deep.wav")
    run(*convert, "-af", "pan=5.1|FL=FL|FR=FR|FC=FL|LFE=FR|BL=0.5*FL|BR=0.5*FR", folder / "six.wav")
    return folder


ENCODED = {
    # name: input, kind, command, channels
    "lame.mp3": ("stereo", "mpeg", "lame --quiet {} {}", 2),
    "stream-vbr.mp3": ("stereo", "mpeg", "lame --quiet -t -V6 {} {}", 2),
    "stream-cbr.mp3": ("stereo", "mpeg", "lame --quiet -t -b 128 {} {}", 2),
    "stream-abr.mp3": ("stereo", "mpeg", "lame --quiet -t --abr 130 {} {}", 2),
    "checksums.mp3": ("stereo", "mpeg", "lame --quiet -p -V2 {} {}", 2),
    "mono.mp3": ("mono", "mpeg", "lame --quiet -V2 {} {}", 1),
    "mpeg2.mp3": ("low", "mpeg", "lame --quiet {} {}", 2),
    "mpeg2.5.mp3": ("mono", "mpeg", "lame --quiet --resample 11.025 {} {}", 1),
    "layer2.mp2": ("stereo", "mpeg", "ffmpeg -v error -i {} -c:a mp2 {}", 2),
    "low.mp2": ("low", "mpeg", "ffmpeg -v error -i {} -c:a mp2 {}", 2),
    "mp3.wav": ("stereo", "mpeg", "ffmpeg -v error -i {} -c:a libmp3lame {}", 2),
    "mp2.wav": ("stereo", "mpeg", "ffmpeg -v error -i {} -c:a mp2 {}", 2),
    "aac.m4a": ("stereo", "mp4", "ffmpeg -v error -i {} -c:a aac {}", 2),
    "mono.m4a": ("mono", "mp4", "ffmpeg -v error -i {} -c:a aac {}", 1),
    "low.m4a": ("low", "mp4", "ffmpeg -v error -i {} -c:a aac {}", 2),
    "faststart.m4a": ("stereo", "mp4", "ffmpeg -v error -i {} -c:a aac -movflags faststart {}", 2),
    "no-edits.m4a": ("stereo", "mp4", "ffmpeg -v error -i {} -c:a aac -use_editlist 0 {}", 2),
    "quicktime.mov": ("stereo", "mp4", "ffmpeg -v error -i {} -c:a aac {}", 2),
    "fragments.m4a": (
        "stereo",
        "mp4",
        "ffmpeg -v error -i {} -c:a aac -movflags +frag_keyframe+empty_moov -frag_duration 200000 {}",
        2,
    ),
    "alac.m4a": ("stereo", "mp4", "ffmpeg -v error -i {} -c:a alac {}", 2),
    "alac24.m4a": ("deep", "mp4", "ffmpeg -v error -i {} -c:a alac -sample_fmt s32p {}", 2),
    "alac6.m4a": ("six", "mp4", "ffmpeg -v error -i {} -c:a alac {}", 6),
    "alac.caf": ("stereo", "caf", "ffmpeg -v error -i {} -c:a alac {}", 2),
    "alac24.caf": ("deep", "caf", "ffmpeg -v error -i {} -c:a alac -sample_fmt s32p {}", 2),
    "adts.aac": ("stereo", "adts", "ffmpeg -v error -i {} -c:a aac {}", 2),
    "low.aac": ("low", "adts", "ffmpeg -v error -i {} -c:a aac {}", 2),
    "flac.flac": ("stereo", "flac", "flac -s {} -o {}", 2),
    "deep.flac": ("deep", "flac", "flac -s -8 {} -o {}", 2),
    "six.flac": ("six", "flac", "ffmpeg -v error -i {} -c:a flac {}", 6),
    "blocks.flac": ("low", "flac", "flac -s --lax -b 20000 {} -o {}", 2),
    "flac.oga": ("stereo", "ogg-flac", "flac -s --ogg {} -o {}", 2),
    "ffmpeg.oga": ("deep", "ogg-flac", "ffmpeg -v error -i {} -c:a flac {}", 2),
}


def encoded(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        wav, _, command, _ = ENCODED[name]
        run(*command.format(folder / f"{wav}.wav", path).split(" "))
    return path


@pytest.mark.parametrize("name", ENCODED)
def test_every_sample_is_that_of_ffmpeg(folder: Path, name: str) -> None:
    _, kind, _, channels = ENCODED[name]
    path = encoded(folder, name)
    expected = ffmpeg(path, channels)
    assert np.abs(expected).max() > 0.2
    np.testing.assert_allclose(whole(path, kind), expected, rtol=0, atol=1e-4)


def ape_tag(content: bytes) -> bytes:
    def head(flags: int) -> bytes:
        fields = (2000, len(content) + 32, 1, flags)
        return b"APETAGEX" + b"".join(field.to_bytes(4, "little") for field in fields) + bytes(8)

    return head(0xA000_0000) + content + head(0x8000_0000)


# What looks like frames is in a tag, and is no sound.
PICTURE = b"\xff\xfb\x90\x64" * 3000
LYRICS = b"LYRICSBEGININD0000200LYR00012hello\xff\xfb\x90world000040LYRICS200"
AROUND = {
    "ID3v2 twice": (ID3V2 * 2, b""),
    "a picture of 5 MB": (b"ID3\x04\0\0" + bytes([2, 0x40, 0, 0]) + (PICTURE * 500)[: 5 << 20], b""),
    "ID3v1": (b"", ID3V1),
    "APE and ID3v1": (b"", ape_tag(PICTURE) + ID3V1),
    "APE in front": (ape_tag(PICTURE), b""),
    "lyrics": (b"", LYRICS + ID3V1),
    "300 bytes of junk": (bytes(range(256)) + b"\xff\xfb\x90" * 14 + b"xy", b""),
    "junk at the end": (b"", b"made with a program\n" * 20),
    "zeros at the end": (b"", bytes(100_000)),
    "more junk than the header promises frames": (b"", b"made with a program\n" * 5000),
}


@pytest.mark.parametrize("around", AROUND)
def test_tags_and_junk_around_an_mp3_change_nothing(folder: Path, tmp_path: Path, around: str) -> None:
    before, behind = AROUND[around]
    plain = encoded(folder, "lame.mp3")
    path = tmp_path / "a.mp3"
    path.write_bytes(before + plain.read_bytes() + behind)
    np.testing.assert_allclose(whole(path, "mpeg"), ffmpeg(plain, 2), rtol=0, atol=1e-4)


@pytest.mark.parametrize("between", [b"", ID3V1, ID3V2], ids=["nothing", "ID3v1", "ID3v2"])
def test_joined_mp3_files_give_all_parts_each_trimmed(folder: Path, tmp_path: Path, between: bytes) -> None:
    names = ("lame.mp3", "mono.mp3", "mpeg2.mp3")
    files = [encoded(folder, name) for name in names]
    path = tmp_path / "a.mp3"
    path.write_bytes(between.join(file.read_bytes() for file in files))
    parts, fault, _ = decoded(path, "mpeg")
    assert fault is None
    assert len(parts) == 3
    for part, file, channels in zip(parts, files, (2, 1, 2), strict=True):
        np.testing.assert_allclose(part, ffmpeg(file, channels), rtol=0, atol=1e-4)


def test_a_cut_mp3_gives_its_whole_frames_and_says_so(folder: Path, tmp_path: Path) -> None:
    full = encoded(folder, "stream-vbr.mp3")
    path = tmp_path / "a.mp3"
    path.write_bytes(full.read_bytes()[:-1000])
    (part,), fault, _ = decoded(path, "mpeg")
    assert fault is not None
    assert fault.reason.code == "cut-short"
    np.testing.assert_allclose(part, ffmpeg(full, 2)[: len(part)], rtol=0, atol=1e-4)
    assert len(part) > 40_000


def test_a_hole_in_an_mp3_is_reported_and_the_rest_is_decoded(folder: Path, tmp_path: Path) -> None:
    full = encoded(folder, "stream-cbr.mp3")
    content = bytearray(full.read_bytes())
    content[8000:10_000] = bytes(2000)
    path = tmp_path / "a.mp3"
    path.write_bytes(content)
    (part,), fault, _ = decoded(path, "mpeg")
    assert fault is not None
    assert fault.reason.code == "damaged"
    expected = ffmpeg(full, 2)
    np.testing.assert_allclose(part[:20_000], expected[:20_000], rtol=0, atol=1e-4)
    np.testing.assert_allclose(part[-5000:], expected[-5000:], rtol=0, atol=1e-4)


def test_zeros_behind_an_mp3_without_a_header_are_no_damage_but_other_bytes_are(folder: Path, tmp_path: Path) -> None:
    plain = encoded(folder, "stream-cbr.mp3")
    path = tmp_path / "a.mp3"
    path.write_bytes(plain.read_bytes() + bytes(100_000))
    np.testing.assert_allclose(whole(path, "mpeg"), ffmpeg(plain, 2), rtol=0, atol=1e-4)
    path.write_bytes(plain.read_bytes() + b"xyz" * 2000)
    (part,), fault, _ = decoded(path, "mpeg")
    assert fault is not None
    assert fault.reason == "damaged: 6000 bytes behind its last frame cannot be decoded"
    np.testing.assert_allclose(part, ffmpeg(plain, 2), rtol=0, atol=1e-4)


def test_flac_that_goes_on_as_something_else_says_so(folder: Path, tmp_path: Path) -> None:
    plain = encoded(folder, "flac.flac")
    path = tmp_path / "a.flac"
    other = encoded(folder, "lame.mp3").read_bytes()
    path.write_bytes(plain.read_bytes() + other)
    (part,), fault, _ = decoded(path, "flac")
    assert fault is not None
    assert fault.reason == f"goes on as something else behind frame {len(part)}: {len(other)} bytes"
    np.testing.assert_array_equal(part, ffmpeg(plain, 2))


def test_a_file_without_one_good_frame_says_so(folder: Path, tmp_path: Path) -> None:
    plain = encoded(folder, "flac.flac").read_bytes()
    first = plain.index(b"\xff\xf8", 42)
    frames = adts_frames(encoded(folder, "adts.aac").read_bytes())
    files = {
        "flac": plain[: first + 20] + bytes(byte ^ 0x55 for byte in plain[first + 20 :]),
        "adts": b"".join(
            frame[:7] + b"\x01\x55" * (len(frame) // 2 - 4) + bytes(len(frame) % 2 + 1) for frame in frames
        ),
        # A layer 3 frame of 417 bytes whose side information is invalid.
        "mpeg": (b"\xff\xfb\x90\0" + b"\xff" * 413) * 20,
    }
    for kind, content in files.items():
        path = tmp_path / f"a.{kind}"
        path.write_bytes(content)
        assert reason(path, kind) == ("damaged: no frame of it can be decoded", "damaged")


def test_other_codecs_and_a_damaged_table_in_caf_are_named(folder: Path, tmp_path: Path) -> None:
    content = encoded(folder, "alac.caf").read_bytes()
    path = tmp_path / "a.caf"
    for code, words in ((b"ima4", "IMA ADPCM"), (b"opus", "Opus"), (b"MAC3", "MACE 3:1"), (b"zzzz", "the codec zzzz")):
        path.write_bytes(content.replace(b"alac", code, 1))
        text, found = reason(path, "caf")
        assert found == "needs-ffmpeg"
        assert f"holds {words} in CAF" in text
    sizes = content.index(b"pakt") + 12 + 24
    for damaged in (slice(sizes, sizes + 16), slice(sizes - 24, sizes - 16)):
        path.write_bytes(content[: damaged.start] + b"\xff" * (damaged.stop - damaged.start) + content[damaged.stop :])
        assert reason(path, "caf") == ("damaged: its table of packets is damaged", "damaged")


def with_total(flac: bytes, total: int) -> bytes:
    packed = int.from_bytes(flac[18:26], "big") >> 36 << 36 | total
    return flac[:18] + packed.to_bytes(8, "big") + flac[26:]


@pytest.mark.parametrize(
    ("total", "before", "behind"),
    [
        (0, b"", b""),
        (1000, b"", b""),
        (None, ID3V2, b""),
        (None, b"", ID3V1),
        (0, b"", ID3V1),
        (None, b"", b"xyz" * 1000),
        (None, b"", bytes(100_000)),
        (0, b"", bytes(100_000)),
        (0, b"", ape_tag(PICTURE) + ID3V1),
    ],
    ids=[
        "no length",
        "a length too small",
        "ID3v2",
        "ID3v1",
        "no length and ID3v1",
        "junk at the end",
        "zeros",
        "no length and zeros",
        "no length and APE",
    ],
)
def test_flac_is_decoded_whatever_its_header_says(
    folder: Path, tmp_path: Path, total: int | None, before: bytes, behind: bytes
) -> None:
    plain = encoded(folder, "flac.flac")
    content = plain.read_bytes()
    path = tmp_path / "a.flac"
    path.write_bytes(before + (content if total is None else with_total(content, total)) + behind)
    (part,), fault, promised = decoded(path, "flac")
    assert fault is None
    assert promised in (total or None, len(part))
    np.testing.assert_array_equal(part, ffmpeg(plain, 2))


def test_flac_with_a_length_too_large_is_cut_short(folder: Path, tmp_path: Path) -> None:
    plain = encoded(folder, "flac.flac")
    path = tmp_path / "a.flac"
    path.write_bytes(with_total(plain.read_bytes(), 1 << 33))
    (part,), fault, promised = decoded(path, "flac")
    assert promised == 1 << 33
    assert fault is not None
    assert str(fault.reason) == f"cut short: its header promises {1 << 33} frames, {len(part)} can be decoded"
    np.testing.assert_array_equal(part, ffmpeg(plain, 2))


@pytest.mark.parametrize("kind", ["flac", "ogg-flac"])
def test_a_flipped_bit_in_flac_ends_the_sound_before_it(folder: Path, tmp_path: Path, kind: str) -> None:
    plain = encoded(folder, "flac.flac" if kind == "flac" else "flac.oga")
    content = bytearray(plain.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path = tmp_path / "a.flac"
    path.write_bytes(content)
    (part,), fault, _ = decoded(path, kind)
    assert fault is not None
    assert fault.reason == f"damaged: the checksum is wrong after {len(part)} frames"
    np.testing.assert_array_equal(part, ffmpeg(plain, 2)[: len(part)])
    assert len(part) > 20_000


@pytest.mark.parametrize(
    ("first", "second", "kind"), [("flac.flac", "deep.flac", "flac"), ("flac.oga", "ffmpeg.oga", "ogg-flac")]
)
def test_joined_flac_files_give_all_parts(folder: Path, tmp_path: Path, first: str, second: str, kind: str) -> None:
    files = [encoded(folder, first), encoded(folder, second)]
    path = tmp_path / "a"
    path.write_bytes(b"".join(file.read_bytes() for file in files))
    parts, fault, _ = decoded(path, kind)
    assert fault is None
    assert len(parts) == 2
    for part, file in zip(parts, files, strict=True):
        np.testing.assert_array_equal(part, ffmpeg(file, 2))


def ogg_pages(content: bytes) -> list[bytes]:
    pages, at = [], 0
    while at < len(content):
        head = 27 + content[at + 26]
        end = at + head + sum(content[at + 27 : at + head])
        pages.append(content[at:end])
        at = end
    return pages


def test_a_damaged_page_of_comments_in_ogg_flac_changes_nothing(folder: Path, tmp_path: Path) -> None:
    plain = encoded(folder, "flac.oga")
    first, comments, *others = ogg_pages(plain.read_bytes())
    path = tmp_path / "a.oga"
    for damaged in (b"", comments[:26] + b"\xff" + comments[27:], comments[:27] + b"\xff" + comments[28:], bytes(99)):
        path.write_bytes(first + damaged + b"".join(others))
        np.testing.assert_array_equal(whole(path, "ogg-flac"), ffmpeg(plain, 2))


def test_ogg_flac_without_its_first_page_of_sound_does_not_begin_later(folder: Path, tmp_path: Path) -> None:
    pages = ogg_pages(encoded(folder, "ffmpeg.oga").read_bytes())
    path = tmp_path / "a.oga"
    path.write_bytes(b"".join(pages[:2] + pages[3:]))
    _, fault, _ = decoded(path, "ogg-flac")
    assert fault is not None
    assert fault.reason == "damaged: its first frames are missing"


def adts_frames(content: bytes) -> list[bytes]:
    frames, at = [], 0
    while at < len(content):
        length = (content[at + 3] & 3) << 11 | content[at + 4] << 3 | content[at + 5] >> 5
        frames.append(content[at : at + length])
        at += length
    return frames


def with_band_replication(frame: bytes) -> bytes:
    """Return an ADTS frame with a fill element of band replication in place of its end."""
    bits = "".join(f"{byte:08b}" for byte in frame[7:]).rstrip("0")
    assert bits.endswith("111")
    bits = bits[:-3] + "110" + "0100" + "1101" + "0" * 28 + "111"
    payload = bytes(int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8))
    header = bytearray(frame[:7])
    length = len(payload) + 7
    header[3] = header[3] & 0xFC | length >> 11
    header[4] = length >> 3 & 0xFF
    header[5] = (length & 7) << 5 | header[5] & 0x1F
    return bytes(header) + payload


def test_he_aac_that_no_header_mentions_is_recognised(folder: Path, tmp_path: Path) -> None:
    frames = adts_frames(encoded(folder, "low.aac").read_bytes())
    path = tmp_path / "a.aac"
    path.write_bytes(b"".join(with_band_replication(frame) for frame in frames))
    text, code = reason(path, "adts")
    assert code == "needs-ffmpeg"
    assert "HE-AAC" in text
    assert "pip install 'distill[ffmpeg]'" in text


def test_one_packet_that_looks_like_he_aac_does_not_make_it_he_aac(folder: Path, tmp_path: Path) -> None:
    plain = encoded(folder, "low.aac")
    frames = adts_frames(plain.read_bytes())
    frames[5] = with_band_replication(frames[5])
    path = tmp_path / "a.aac"
    path.write_bytes(b"".join(frames))
    parts, _, _ = decoded(path, "adts")
    np.testing.assert_allclose(parts[0][: 5 * 1024], ffmpeg(plain, 2)[: 5 * 1024], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "name"), [(b"\x2b\x92", "HE-AAC"), (b"\xeb\x92", "HE-AACv2"), (b"\xf9\x48", "xHE-AAC")]
)
def test_other_kinds_of_aac_are_named(folder: Path, tmp_path: Path, config: bytes, name: str) -> None:
    content = encoded(folder, "aac.m4a").read_bytes()
    # The configuration of AAC-LC at 44.1 kHz in stereo, behind the head of its descriptor.
    assert content.count(b"\x05\x80\x80\x80\x05\x12\x10") == 1
    path = tmp_path / "a.m4a"
    path.write_bytes(content.replace(b"\x05\x80\x80\x80\x05\x12\x10", b"\x05\x80\x80\x80\x05" + config))
    text, code = reason(path, "mp4")
    assert code == "needs-ffmpeg"
    assert name in text


@pytest.mark.parametrize(
    ("entry", "words", "code"),
    [
        (b"drms", "is encrypted", "not-decodable"),
        (b"enca", "is encrypted", "not-decodable"),
        (b"ac-3", "holds AC-3", "needs-ffmpeg"),
        (b"sowt", "holds PCM in QuickTime", "needs-ffmpeg"),
    ],
)
def test_other_codecs_in_mp4_are_named(folder: Path, tmp_path: Path, entry: bytes, words: str, code: str) -> None:
    content = encoded(folder, "aac.m4a").read_bytes()
    path = tmp_path / "a.m4a"
    path.write_bytes(content.replace(b"mp4a", entry))
    text, found = reason(path, "mp4")
    assert words in text
    assert found == code


def test_a_recording_without_an_index_says_so(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    path.write_bytes(encoded(folder, "aac.m4a").read_bytes()[:-2000])
    assert reason(path, "mp4") == (
        "cut short: it has no index (moov), as a recording that was not finished",
        "cut-short",
    )


def test_a_cut_m4a_gives_the_frames_before_the_cut(folder: Path, tmp_path: Path) -> None:
    full = encoded(folder, "faststart.m4a")
    path = tmp_path / "a.m4a"
    path.write_bytes(full.read_bytes()[:-3000])
    (part,), fault, promised = decoded(path, "mp4")
    expected = ffmpeg(full, 2)
    assert fault is not None
    assert fault.reason == f"cut short: its header promises {promised} frames, {len(part)} can be decoded"
    assert promised == len(expected) > len(part) > 20_000
    np.testing.assert_allclose(part, expected[: len(part)], rtol=0, atol=1e-4)


def box(kind: bytes, content: bytes) -> bytes:
    return (len(content) + 8).to_bytes(4, "big") + kind + content


def test_the_priming_that_itunes_states_is_left_out(folder: Path, tmp_path: Path) -> None:
    content = encoded(folder, "no-edits.m4a").read_bytes()
    at = content.index(b"moov") - 4
    assert at + int.from_bytes(content[at : at + 4], "big") == len(content)
    text = b" 00000000 00000840 000001CA 00000000003F31F6 00000000 00000000"
    item = box(b"mean", bytes(4) + b"com.apple.iTunes") + box(b"name", bytes(4) + b"iTunSMPB")
    item = box(b"----", item + box(b"data", b"\0\0\0\1" + bytes(4) + text))
    meta = box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9)) + box(b"ilst", item)
    movie = content[at + 8 :].replace(b"udta", b"free") + box(b"udta", box(b"meta", bytes(4) + meta))
    path = tmp_path / "a.m4a"
    path.write_bytes(content[:at] + box(b"moov", movie))
    expected = ffmpeg(encoded(folder, "no-edits.m4a"), 2)[0x840:]
    np.testing.assert_allclose(ffmpeg(path, 2), expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(whole(path, "mp4"), expected, rtol=0, atol=1e-4)


def test_aac_in_caf_is_trimmed_as_its_table_says(folder: Path, tmp_path: Path) -> None:
    frames = [frame[7:] for frame in adts_frames(encoded(folder, "adts.aac").read_bytes())]
    frames_of_sound = 50_000

    def size(length: int) -> bytes:
        return bytes([0x80 | length >> 7, length & 0x7F])

    def chunk(kind: bytes, content: bytes) -> bytes:
        return kind + len(content).to_bytes(8, "big") + content

    remainder = len(frames) * 1024 - 1024 - frames_of_sound
    table = len(frames).to_bytes(8, "big") + frames_of_sound.to_bytes(8, "big")
    table += (1024).to_bytes(4, "big") + remainder.to_bytes(4, "big") + b"".join(size(len(frame)) for frame in frames)
    description = (
        np.array([RATE], ">f8").tobytes() + b"aac " + b"".join(field.to_bytes(4, "big") for field in (0, 0, 1024, 2, 0))
    )
    path = tmp_path / "a.caf"
    path.write_bytes(
        b"caff\0\1\0\0"
        + chunk(b"desc", description)
        + chunk(b"kuki", b"\x12\x10")
        + chunk(b"pakt", table)
        + chunk(b"data", bytes(4) + b"".join(frames))
    )
    expected = ffmpeg(encoded(folder, "adts.aac"), 2)[1024 : 1024 + frames_of_sound]
    np.testing.assert_allclose(whole(path, "caf"), expected, rtol=0, atol=1e-4)


HOSTILE = {
    # name: kind, what the file is made of, and how often it is repeated
    "lyrics that do not end": ("mpeg", b"LYRICSBEGIN", 1 << 16),
    "lyrics that end": ("mpeg", b"LYRICSBEGIN LYRICS300", 1 << 15),
    "synchronization": ("mpeg", b"\xff", 1 << 20),
    "APE tags": ("mpeg", b"APETAGEX", 1 << 17),
    "FLAC marks": ("flac", b"fLaC\0\0\0\x22", 1 << 17),
    "Ogg marks": ("ogg-flac", b"OggS" + b"\xff" * 23, 1 << 15),
    "boxes": ("mp4", b"\0\0\0\x08free", 1 << 17),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_the_time_for_bytes_made_to_take_long_is_proportional_to_their_number(
    folder: Path, tmp_path: Path, name: str
) -> None:
    kind, piece, count = HOSTILE[name]
    plain = {"mpeg": "lame.mp3", "flac": "flac.flac", "ogg-flac": "flac.oga", "mp4": "fragments.m4a"}[kind]
    content = encoded(folder, plain).read_bytes()
    path = tmp_path / "a"

    def seconds(repeated: int) -> float:
        path.write_bytes(content + piece * repeated)
        start = time.process_time()
        parts, _, _ = decoded(path, kind)
        assert len(parts[0]) > 50_000
        return time.process_time() - start

    few, many = seconds(count // 4), seconds(count)
    # Four times as much in four times the time, and not in sixteen.
    assert many < 8 * few + 0.5


def test_the_end_of_a_last_frame_is_tried_at_few_places(tmp_path: Path) -> None:
    # A header of 65 535 frames with 24 bits, and zeros behind which the checksum stays right.
    head = b"\xff\xf8\x7a\x1c\x00\xff\xfe"
    frame = head + bytes([crc(head, 8, 0x07)]) + b"\x02"
    frame += crc(frame, 16, 0x8005).to_bytes(2, "big")
    info = b"\0\x10\xff\xff" + bytes(6) + (48_000 << 44 | 1 << 41 | 23 << 36).to_bytes(8, "big") + bytes(16)
    path = tmp_path / "a.flac"
    path.write_bytes(b"fLaC\x80\0\0\x22" + info + frame + bytes(1 << 19))
    start = time.process_time()
    decoded(path, "flac")
    # To try all places takes minutes.
    assert time.process_time() - start < 5


def crc(content: bytes, width: int, polynomial: int) -> int:
    value = 0
    for byte in content:
        value ^= byte << width - 8
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value >> width - 1 else 0)) & (1 << width) - 1
    return value


def test_a_file_of_another_kind_is_left_to_other_readers(folder: Path) -> None:
    source = ByteSource(folder / "stereo.wav")
    for opener in (native.open_mpeg, native.open_adts, native.open_flac, native.open_ogg_flac, native.open_caf):
        with pytest.raises(NotForMeError):
            opener(source)


def test_an_error_of_the_system_is_no_damage(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    run("ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"anoisesrc=r={RATE}:d=30", "-c:a", "flac", path)
    source = ByteSource(path)
    sound = native.open_flac(source)
    blocks = sound.blocks()
    next(blocks)
    source.close()
    with pytest.raises(OSError, match=r"a\.flac"):
        for _ in blocks:
            pass


def test_free_format_is_named(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    run("lame", "--quiet", "--freeformat", "-b", "400", folder / "stereo.wav", path)
    assert reason(path, "mpeg") == ("is free-format MP3, which distill does not read", "not-decodable")


@pytest.mark.parametrize("name", [*ENCODED, "picture.mp3", "picture.flac"])
def test_each_byte_is_read_once(folder: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("picture"):
        path.write_bytes(with_picture(encoded(folder, f"{'lame' if '.mp3' in name else 'flac'}.{path.suffix[1:]}")))
    else:
        path.write_bytes(encoded(folder, name).read_bytes())
    source = ByteSource(path)
    for _ in decode_blocks(source, RATE, path=path):
        pass
    source.digest()
    assert source.bytes_read == path.stat().st_size


def with_picture(path: Path) -> bytes:
    """Return a file with 6 MB of a picture before its sound."""
    content, picture = path.read_bytes(), bytes(range(128)) * 48_000
    if path.suffix == ".flac":
        return content[:42] + b"\6" + len(picture).to_bytes(3, "big") + picture + content[42:]
    length = len(picture)
    return b"ID3\4\0\0" + bytes(length >> shift & 127 for shift in (21, 14, 7, 0)) + picture + content
