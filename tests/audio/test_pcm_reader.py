"""Uncompressed samples in every container, compared with soundfile and FFmpeg; and headers that are wrong."""

from __future__ import annotations

import itertools
import math
import shutil
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distill.audio.decode import decode_blocks
from distill.audio.readers.protocol import ByteSource, SoundError
from distill.audio.readers.table import open_sound
from sounds import noise, write

# Even, because some writers pad the sound itself.
FRAMES = 5_000


def stereo(frames: int = FRAMES) -> np.ndarray:
    """Two channels of different noise, [frames, 2]."""
    return np.stack([noise(1, frames, 0.9), noise(2, frames, 0.5)], axis=1)


def read(path: Path) -> tuple[np.ndarray, int, int | None]:
    """Return all samples [n, channels] of a file with one rate, the rate, and the promised number of frames."""
    source = ByteSource(path)
    sound = open_sound(source)
    blocks = [(pcm.samples.copy(), pcm.sample_rate) for pcm in sound.blocks()]
    assert {rate for _, rate in blocks} <= {sound.sample_rate}
    assert {samples.dtype for samples, _ in blocks} <= {np.dtype(np.float32)}
    sound.close()
    source.close()
    samples = np.concatenate([samples for samples, _ in blocks]) if blocks else np.zeros((0, sound.channels))
    return samples, sound.sample_rate, sound.frames


def check(path: Path, expected: np.ndarray, rate: int = 44_100) -> None:
    """Check that a file holds these samples, and is whole."""
    samples, found, frames = read(path)
    assert found == rate
    assert frames in (None, len(expected))
    np.testing.assert_allclose(samples, expected, atol=1e-7, rtol=0)
    assert partial_of(path) is None


def partial_of(path: Path) -> str | None:
    decoding = decode_blocks(path, 44_100)
    for _ in decoding:
        pass
    return decoding.partial


def refusal_of(path: Path) -> str:
    with pytest.raises(SoundError) as caught:
        read(path)
    assert "libsndfile" not in caught.value.reason.lower()
    return caught.value.reason


LAYOUTS = [
    (container, subtype, endian)
    for container in ("WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU", "IRCAM", "NIST", "VOC", "MPC2K")
    for subtype in ("PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
    for endian in ("FILE", "LITTLE", "BIG")
    if soundfile.check_format(container, subtype, endian)
]


@pytest.mark.parametrize(("container", "subtype", "endian"), LAYOUTS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_layout_that_libsndfile_writes_gives_the_samples_that_it_reads(
    tmp_path, container, subtype, endian, channels
):
    path = tmp_path / "a"
    samples = stereo()[:, :channels]
    soundfile.write(path, samples, 44_100, subtype, endian, container)
    expected, rate = soundfile.read(path, dtype="float32", always_2d=True)
    # Of VOC it also reads the mark of the end.
    assert np.abs(expected[:FRAMES] - samples).max() < 0.05
    check(path, expected, rate)


FFMPEG_LAYOUTS = [
    *[("wav", codec) for codec in ("u8", "s16le", "s24le", "s32le", "f32le", "f64le", "mulaw", "alaw")],
    *[("w64", codec) for codec in ("s16le", "f32le")],
    *[("aiff", codec) for codec in ("s8", "s16be", "s24be", "s32be", "f32be", "f64be", "s16le", "mulaw", "alaw")],
    *[("caf", codec) for codec in ("s8", "s16be", "s16le", "s24le", "s32be", "f32le", "f64be", "mulaw", "alaw")],
    *[("au", codec) for codec in ("s8", "s16be", "s24be", "s32be", "f32be", "f64be", "mulaw", "alaw")],
    *[("voc", codec) for codec in ("u8", "s16le", "mulaw", "alaw")],
    *[("ircam", codec) for codec in ("s16le", "f32le")],
]


def ffmpeg(*arguments: object) -> bytes:
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    command = ["ffmpeg", "-nostdin", "-v", "error", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


def by_ffmpeg(path: Path, channels: int = 2) -> np.ndarray:
    return np.frombuffer(ffmpeg("-i", path, "-f", "f32le", "-c:a", "pcm_f32le", "-"), "<f4").reshape(-1, channels)


@pytest.mark.parametrize(("container", "codec"), FFMPEG_LAYOUTS)
def test_every_layout_that_ffmpeg_writes_gives_the_samples_that_it_reads(tmp_path, container, codec):
    original = write(tmp_path / "original.wav", stereo(), 44_100)
    path, piped = tmp_path / f"a.{container}", tmp_path / "piped"
    options = ("-i", original, "-c:a", f"pcm_{codec}", "-f", container)
    ffmpeg(*options, path)
    # Without the sizes, which are not known yet when a header goes to a pipe. FFmpeg itself reads not all of these.
    piped.write_bytes(ffmpeg(*options, "-"))
    expected = by_ffmpeg(path)
    assert expected.shape == (FRAMES, 2)
    rate = 44_107 if (container, codec) == ("voc", "u8") else 44_100  # its clock has steps
    check(path, expected, rate)
    check(piped, expected, rate)


def chunk(name: bytes, content: bytes = b"", size: int | None = None, order: str = "<", pad: bool = True) -> bytes:
    """A chunk; its header may lie about its size."""
    header = struct.pack(f"{order}4sI", name, len(content) if size is None else size)
    return header + content + b"\0" * (pad and len(content) % 2)


def fmt(tag: int = 1, channels: int = 2, rate: int = 44_100, bits: int = 16, align: int | None = None) -> bytes:
    align = channels * ((bits + 7) // 8) if align is None else align
    return struct.pack("<HHIIHH", tag, channels, rate, rate * align, align, bits)


def wav(*chunks: bytes, size: int | None = None, outer: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return outer + struct.pack("<I", len(body) if size is None else size) + body


INTEGERS = (stereo(1_000) * 32_767).astype("<i2")
SOUND = INTEGERS.tobytes()
EXPECTED = INTEGERS.astype(np.float32) / 32_768
LIST = chunk(b"LIST", b"INFOISFT\x05\0\0\0Lavf\0\0")
HEAD = chunk(b"fmt ", fmt())
DS64 = chunk(b"ds64", struct.pack("<qqqI", 5_000, len(SOUND), 1_000, 0))

WHOLE_WAVS = {
    "plain": wav(HEAD, chunk(b"data", SOUND)),
    "recorder that crashed": wav(HEAD, chunk(b"data", SOUND, 0), size=4_088),
    "size never known": wav(HEAD, chunk(b"data", SOUND, 0xFFFF_FFFF), size=0xFFFF_FFFF),
    "size of another stream": wav(HEAD, chunk(b"data", SOUND, 0x7FFF_F000), size=0x7FFF_F024),
    "size less the header": wav(HEAD, chunk(b"data", SOUND, 0xFFFF_FFFF - 36), size=0xFFFF_FFFF),
    "RIFF size 0": wav(HEAD, chunk(b"data", SOUND), size=0),
    "RIFF size too large": wav(HEAD, chunk(b"data", SOUND), size=1 << 30),
    "chunks behind": wav(HEAD, chunk(b"data", SOUND), LIST, chunk(b"id3 ", b"ID3" + b"x" * 90)),
    "tag of another format behind": wav(HEAD, chunk(b"data", SOUND)) + b"TAG" + b"\0" * 125,
    "format behind": wav(chunk(b"data", SOUND), HEAD),
    "format chunk of 18": wav(chunk(b"fmt ", fmt() + b"\0\0"), chunk(b"data", SOUND)),
    "format chunk of 14": wav(chunk(b"fmt ", fmt()[:14]), chunk(b"data", SOUND)),
    "format chunk of 40": wav(
        chunk(
            b"fmt ", fmt(0xFFFE) + struct.pack("<HHI", 22, 16, 3) + bytes.fromhex("0100000000001000800000aa00389b71")
        ),
        chunk(b"data", SOUND),
    ),
    "two formats": wav(HEAD, HEAD, chunk(b"data", SOUND)),
    "two data chunks": wav(HEAD, chunk(b"data", SOUND[:1_200]), LIST, chunk(b"data", SOUND[1_200:])),
    "an empty data chunk before": wav(HEAD, chunk(b"data"), chunk(b"data", SOUND)),
    "two files joined": wav(HEAD, chunk(b"data", SOUND[:1_200])) + wav(LIST, HEAD, chunk(b"data", SOUND[1_200:])),
    "odd chunk with padding": wav(chunk(b"bext", b"a" * 301), HEAD, chunk(b"data", SOUND)),
    "odd chunk without padding": wav(chunk(b"bext", b"a" * 301, pad=False), HEAD, chunk(b"data", SOUND)),
    "odd LIST without padding": wav(HEAD, chunk(b"LIST", b"INFO" + b"z" * 61, pad=False), chunk(b"data", SOUND)),
    "LIST too long": wav(HEAD, chunk(b"LIST", LIST[8:], 900), chunk(b"data", SOUND)),
    "LIST beyond the end": wav(HEAD, chunk(b"LIST", LIST[8:], 90_000), chunk(b"data", SOUND)),
    "LIST too short": wav(HEAD, chunk(b"LIST", LIST[8:], 6), chunk(b"data", SOUND)),
    "PEAK for other channels": wav(HEAD, chunk(b"PEAK", b"\1\0\0\0" * 3), chunk(b"data", SOUND)),
    "PEAK beyond the end": wav(HEAD, chunk(b"PEAK", b"\1\0\0\0" * 3, 1 << 31), chunk(b"data", SOUND)),
    "smpl with a million loops": wav(HEAD, chunk(b"smpl", struct.pack("<9I", *[1 << 20] * 9)), chunk(b"data", SOUND)),
    "smpl too long": wav(HEAD, chunk(b"smpl", b"\0" * 36, 1 << 31), chunk(b"data", SOUND)),
    "everything beyond the end": wav(chunk(b"bext", b"b" * 60, 1 << 30), HEAD, chunk(b"data", SOUND)),
    "big bext": wav(chunk(b"bext", b"b" * 100_000), chunk(b"JUNK", b"\0" * 9), HEAD, chunk(b"data", SOUND)),
    "ID3 before": b"ID3\4\0\0\0\0\2\0" + b"\0" * 256 + wav(HEAD, chunk(b"data", SOUND)),
    "two ID3 before": (b"ID3\4\0\0\0\0\0\5" + b"\0" * 5) * 2 + wav(HEAD, chunk(b"data", SOUND)),
    "RF64": wav(DS64, HEAD, chunk(b"data", SOUND, 0xFFFF_FFFF), LIST, outer=b"RF64", size=0xFFFF_FFFF),
    "BW64": wav(DS64, HEAD, chunk(b"data", SOUND, 0xFFFF_FFFF), LIST, outer=b"BW64", size=0xFFFF_FFFF),
    "RF64 that crashed": wav(
        chunk(b"ds64", b"\0" * 28), HEAD, chunk(b"data", SOUND, 0xFFFF_FFFF), outer=b"RF64", size=0xFFFF_FFFF
    ),
    "BW64 with 32-bit size": wav(chunk(b"ds64", b"\0" * 28), HEAD, chunk(b"data", SOUND), LIST, outer=b"BW64"),
}


@pytest.mark.parametrize("name", WHOLE_WAVS)
def test_a_wav_with_an_odd_header_gives_all_of_its_sound(tmp_path, name):
    path = tmp_path / "a"
    path.write_bytes(WHOLE_WAVS[name])
    samples, rate, frames = read(path)
    assert rate == 44_100
    assert frames in (None, 1_000)
    np.testing.assert_array_equal(samples, EXPECTED)
    assert partial_of(path) is None


CUT_WAVS = {
    "some frames too large": (wav(HEAD, chunk(b"data", SOUND, len(SOUND) + 68)), 1_000),
    "far too large": (wav(HEAD, chunk(b"data", SOUND, 1 << 29)), 1_000),
    "cut in a frame": (wav(HEAD, chunk(b"data", SOUND))[:-1_001], 749),
    "RF64 cut": (wav(DS64, HEAD, chunk(b"data", SOUND, 0xFFFF_FFFF), outer=b"RF64", size=0xFFFF_FFFF)[:-1_001], 749),
    "second data chunk cut": (wav(HEAD, chunk(b"data", SOUND[:1_200]), chunk(b"data", SOUND[1_200:]))[:-1_001], 749),
    "format behind, of which nothing is left": (wav(HEAD, chunk(b"data", SOUND, 9_000)), 1_000),
}


@pytest.mark.parametrize("name", CUT_WAVS)
def test_a_wav_that_promises_more_than_it_holds_is_partial(tmp_path, name):
    path = tmp_path / "a"
    content, left = CUT_WAVS[name]
    path.write_bytes(content)
    samples, _, _ = read(path)
    np.testing.assert_array_equal(samples, EXPECTED[:left])
    reason = partial_of(path)
    assert reason.code == "cut-short"
    assert f"{left} can be decoded" in reason


def test_a_wav_of_more_than_4_gib_has_all_of_its_frames(tmp_path):
    path = tmp_path / "a.wav"
    size = (1 << 32) + 4_000
    with path.open("wb") as file:
        file.write(wav(HEAD, chunk(b"data", b"", size % (1 << 32))))
        file.truncate(44 + size)
    source = ByteSource(path)
    sound = open_sound(source)
    assert sound.frames == size // 4
    assert len(next(sound.blocks()).samples) <= 1 << 17
    # The end of the file is not visited to open it, and a block is all that is read.
    assert source.bytes_read <= 4 << 20


def left_justified(values: np.ndarray, width: int) -> bytes:
    return values.astype("<i4").view("u1").reshape(-1, 4)[:, 4 - width :].tobytes()


@pytest.mark.parametrize(("bits", "width"), [(8, 1), (12, 2), (16, 2), (20, 3), (24, 3), (24, 4), (32, 4)])
def test_samples_of_all_widths_lie_in_the_upper_bits_of_their_containers(tmp_path, bits, width):
    path = tmp_path / "a.wav"
    values = np.random.default_rng(3).integers(-(1 << 31), 1 << 31, 2_000) >> (32 - bits) << (32 - bits)
    stored = left_justified(values ^ (1 << 31 if width == 1 else 0), width)
    path.write_bytes(wav(chunk(b"fmt ", fmt(bits=bits, align=2 * width)), chunk(b"data", stored)))
    expected = (values / 2**31).astype(np.float32).reshape(-1, 2)
    check(path, expected)
    if (bits, width) != (24, 4):  # which FFmpeg takes for the floats of Cool Edit
        np.testing.assert_allclose(by_ffmpeg(path), expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize(("bits", "scale", "more"), [(24, 2.0**23, b""), (32, 2.0**15, b"\2\0\1\0")])
def test_the_floats_of_cool_edit_are_scaled_as_by_ffmpeg(tmp_path, bits, scale, more):
    path = tmp_path / "a.wav"
    stored = (stereo() * scale).astype("<f4").tobytes()
    path.write_bytes(wav(chunk(b"fmt ", fmt(bits=bits, align=8) + more), chunk(b"data", stored)))
    check(path, stereo().astype(np.float32))
    np.testing.assert_allclose(by_ffmpeg(path), stereo(), atol=1e-6)


def test_bits_of_0_follow_from_the_size_of_a_frame(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(chunk(b"fmt ", fmt(bits=0, align=4)), chunk(b"data", SOUND)))
    np.testing.assert_array_equal(read(path)[0], EXPECTED)


def rifx(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"RIFX" + struct.pack(">I", 1_000) + b"WAVE" + b"".join(chunk(*each, order=">") for each in chunks)


@pytest.mark.parametrize(("tag", "kind"), [(1, ">i2"), (1, ">i4"), (3, ">f4"), (3, ">f8")])
def test_rifx_is_wav_with_the_highest_byte_first(tmp_path, tag, kind):
    path, width = tmp_path / "a.wav", int(kind[-1])
    scale = 1 if tag == 3 else 2.0 ** (8 * width - 1) - 1
    stored = (stereo() * scale).astype(kind)
    header = struct.pack(">HHIIHH", tag, 2, 44_100, 0, 2 * width, 8 * width)
    path.write_bytes(rifx((b"fmt ", header), (b"data", stored.tobytes())))
    check(path, (stored / (1 if tag == 3 else 2.0 ** (8 * width - 1))).astype(np.float32))
    # FFmpeg takes the samples, not the header, for those of RIFF.
    np.testing.assert_allclose(soundfile.read(path)[0], read(path)[0], atol=1e-7)


def aiff(frames: int, size: int, sound: bytes, *more: bytes, kind: bytes = b"", bits: int = 16, before=True) -> bytes:
    common = struct.pack(">HIH", 2, frames, bits) + bytes.fromhex("400eac44000000000000") + kind
    common = chunk(b"COMM", common, order=">")
    data = struct.pack(">4sI", b"SSND", size) + b"\0" * 8 + sound
    body = (b"AIFC" if kind else b"AIFF") + (common + data if before else data + common) + b"".join(more)
    return b"FORM" + struct.pack(">I", len(body)) + body


WIDE = (INTEGERS.astype("<i4") << 16).astype(">i4")
BIG_SOUND = INTEGERS.astype(">i2").tobytes()
MARK = chunk(b"MARK", b"\0\0", order=">")
AIFFS = {
    "plain": aiff(1_000, 4_008, BIG_SOUND, MARK),
    "COMM says 0 frames": aiff(0, 4_008, BIG_SOUND, MARK),
    "COMM says too many frames": aiff(5_000, 4_008, BIG_SOUND, MARK),
    "COMM says too few frames": aiff(10, 4_008, BIG_SOUND, MARK),
    "COMM behind": aiff(1_000, 4_008, BIG_SOUND, before=False),
    "pipe, all sizes 0": aiff(0, 0, BIG_SOUND),
    "pipe, size 0": aiff(1_000, 0, BIG_SOUND, MARK),
    "pipe, size -1": aiff(0xFFFF_FFFF, 0xFFFF_FFFF, BIG_SOUND),
    "pipe, size of sox": aiff(0x7F00_0000 // 4, 0x7F00_0008, BIG_SOUND),
    "sowt": aiff(1_000, 4_008, SOUND, kind=b"sowt\0\0"),
    "twos": aiff(1_000, 4_008, BIG_SOUND, kind=b"twos\0\0"),
    "NONE": aiff(1_000, 4_008, BIG_SOUND, kind=b"NONE\0\0"),
    "a name too long": aiff(1_000, 4_008, BIG_SOUND, kind=b"NONE\xff" + b"a" * 13),
    "in24": aiff(1_000, 6_008, WIDE.view("u1").reshape(-1, 4)[:, :3].tobytes(), kind=b"in24\0\0", bits=24),
    "in32": aiff(1_000, 8_008, WIDE.tobytes(), kind=b"in32\0\0", bits=32),
    "fl32": aiff(1_000, 8_008, EXPECTED.astype(">f4").tobytes(), kind=b"FL32\0\0", bits=32),
    "fl64": aiff(1_000, 16_008, EXPECTED.astype(">f8").tobytes(), kind=b"fl64\0\0", bits=64),
}


@pytest.mark.parametrize("name", AIFFS)
def test_an_aiff_with_an_odd_header_gives_all_of_its_sound(tmp_path, name):
    path = tmp_path / "a"
    path.write_bytes(AIFFS[name])
    samples, rate, _ = read(path)
    assert rate == 44_100
    np.testing.assert_array_equal(samples, EXPECTED)
    assert partial_of(path) is None


def caf(size: int, sound: bytes, flags: int = 2, bits: int = 16, *more: bytes) -> bytes:
    description = struct.pack(">d4s5I", 44_100, b"lpcm", flags, bits // 4, 1, 2, bits)
    return (
        b"caff\0\1\0\0"
        + struct.pack(">4sq", b"desc", 32)
        + description
        + struct.pack(">4sq", b"free", 7)
        + b"\0" * 7
        + struct.pack(">4sqI", b"data", size, 0)
        + sound
        + b"".join(more)
    )


@pytest.mark.parametrize("size", [4_004, -1, 0, (1 << 63) - 1])
def test_a_caf_whose_size_is_not_known_gives_all_of_its_sound(tmp_path, size):
    path = tmp_path / "a"
    path.write_bytes(caf(size, SOUND))
    np.testing.assert_array_equal(read(path)[0], EXPECTED)
    assert partial_of(path) is None
    path.write_bytes(caf(size, SOUND)[:-1_001])
    np.testing.assert_array_equal(read(path)[0], EXPECTED[:749])
    assert (partial_of(path) is not None) == (size == 4_004)


@pytest.mark.parametrize("size", [4_000, 0, 0xFFFF_FFFF, 9_000])
def test_an_au_whose_size_is_wrong_gives_all_of_its_sound(tmp_path, size):
    path = tmp_path / "a"
    path.write_bytes(b".snd" + struct.pack(">5I", 28, size, 3, 44_100, 2) + b"abcd" + BIG_SOUND)
    np.testing.assert_array_equal(read(path)[0], EXPECTED)
    assert (partial_of(path) is not None) == (size == 9_000)


def voc_block(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + len(content).to_bytes(3, "little") + content


def test_a_voc_of_several_blocks_gives_each_at_its_rate(tmp_path):
    path = tmp_path / "a"
    eight_bits = np.random.default_rng(4).integers(0, 256, 3_000).astype(np.uint8)
    blocks = [
        voc_block(5, b"a text\0"),
        voc_block(1, b"\xa5\0" + eight_bits[:1_000].tobytes()),
        voc_block(2, eight_bits[1_000:1_500].tobytes()),
        voc_block(3, struct.pack("<HB", 99, 0xA5)),
        voc_block(8, struct.pack("<HBB", 65_536 - 256_000_000 // (2 * 22_050), 0, 1)),
        voc_block(1, b"\xd3\0" + eight_bits[1_500:].tobytes()),
        voc_block(9, struct.pack("<IBBHI", 44_100, 16, 2, 4, 0) + SOUND),
        b"\0",
    ]
    path.write_bytes(b"Creative Voice File\x1a" + struct.pack("<HHH", 26, 0x010A, 0x1129) + b"".join(blocks))
    sound = open_sound(ByteSource(path))
    parts = [(pcm.samples, pcm.sample_rate) for pcm in sound.blocks()]
    assert sound.frames == 1_500 + 750 + 1_000
    assert [rate for _, rate in parts] == [10_989, 10_989, 22_053, 44_100]
    first = (eight_bits.astype(np.float32) - 128) / 128
    np.testing.assert_array_equal(np.concatenate([parts[0][0], parts[1][0]])[:, 0], first[:1_500])
    np.testing.assert_array_equal(parts[2][0], first[1_500:].reshape(-1, 2))
    np.testing.assert_array_equal(parts[3][0], EXPECTED)


def test_short_blocks_of_a_voc_are_joined_and_stay_in_order(tmp_path):
    path = tmp_path / "a"
    eight_bits = np.random.default_rng(4).integers(0, 256, 90_000).astype(np.uint8)
    bounds = [0, *np.cumsum([1, 2, 3] * 400), 80_000, 80_001, 90_000]
    pairs = list(itertools.pairwise(bounds))
    blocks = b"".join(voc_block(1, b"\xa5\0" + eight_bits[start:stop].tobytes()) for start, stop in pairs)
    path.write_bytes(b"Creative Voice File\x1a" + struct.pack("<HHH", 26, 0x010A, 0x1129) + blocks + b"\0")
    assert len(list(open_sound(ByteSource(path)).blocks())) < 10
    check(path, ((eight_bits.astype(np.float32) - 128) / 128)[:, None], 10_989)


@pytest.mark.parametrize(
    "content",
    [
        b"Creative Voice File\x1a\x1a\0\x0a\1\x29\x11" + b"\5\0\0\0" * 70_000,
        wav(b"junk\0\0\0\0" * 70_000),
        b"FORM\0\0\0\0AIFF" + b"junk\0\0\0\0" * 70_000,
    ],
    ids=["voc", "wav", "aiff"],
)
def test_a_header_of_endless_chunks_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert refusal_of(tmp_path / "a") == "is damaged: it has too many chunks"


def sphere(*fields: str, sound: bytes = SOUND) -> bytes:
    head = "\n".join(["NIST_1A", "   1024", *fields, "end_head", ""]).encode()
    return head.ljust(1_024, b"\n") + sound


FIELDS = ("channel_count -i 2", "sample_rate -i 44100", "sample_n_bytes -i 2", "sample_byte_format -s2 01")


def test_a_sphere_file_is_read_and_a_compressed_one_is_refused(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(sphere(*FIELDS, "sample_count -i 1000", "sample_coding -s3 pcm"))
    check(path, EXPECTED)
    path.write_bytes(sphere(*FIELDS, "sample_count -i 1000")[:-1_001])
    np.testing.assert_array_equal(read(path)[0], EXPECTED[:749])
    assert partial_of(path).code == "cut-short"
    path.write_bytes(sphere(*FIELDS, "sample_coding -s26 pcm,embedded-shorten-v2.00"))
    assert "compressed with Shorten" in refusal_of(path)
    for coding in ("pcm,\x1b[2J\x07" + "q" * 500, "\x1b[2J" + "q" * 500):
        path.write_bytes(sphere(*FIELDS, f"sample_coding -s26 {coding}"))
        assert refusal_of(path).isprintable()
        assert len(refusal_of(path)) < 160
    path.write_bytes(sphere(*FIELDS, "channels_interleaved -s5 FALSE"))
    assert "one channel after the other" in refusal_of(path)


REFUSED = {
    "0 channels": (wav(chunk(b"fmt ", fmt(channels=0)), chunk(b"data", SOUND)), "0 channels"),
    "0 Hz": (wav(chunk(b"fmt ", fmt(rate=0)), chunk(b"data", SOUND)), "0 Hz"),
    "AIFF without COMM": (b"FORM\0\0\0\x10AIFFSSND\0\0\0\x08" + b"\0" * 8, "without a COMM chunk"),
    "AIFF without SSND": (aiff(9, 9, b"")[:38], "no SSND chunk"),
    "no data": (wav(HEAD, LIST), "no data chunk"),
    "no format": (wav(chunk(b"data", SOUND)), "without a format chunk"),
    "format too short": (wav(chunk(b"fmt ", b"\1\0\2\0"), chunk(b"data", SOUND)), "format chunk is too short"),
    "unknown codec": (wav(chunk(b"fmt ", fmt(tag=0x1234)), chunk(b"data", SOUND)), "codec"),
    "AU cut": (b".snd\0\0\0\x18", "ends in its header"),
    "CAF cut": (b"caff\0\1\0\0desc", "does not say what it holds"),
    "IRCAM cut": (b"\x64\xa3\1\0" + b"\0" * 9, "not an audio file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_header_without_sense_is_refused_in_words(tmp_path, name):
    path = tmp_path / "a"
    content, words = REFUSED[name]
    path.write_bytes(content)
    assert words in refusal_of(path)


@pytest.mark.parametrize("content", [wav(HEAD, chunk(b"data")), wav(HEAD, chunk(b"data"), LIST), aiff(0, 8, b"")])
def test_a_file_without_samples_gives_none(tmp_path, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    assert len(read(path)[0]) == 0


def test_floats_that_are_not_finite_or_too_large_come_without_a_warning(tmp_path):
    path = tmp_path / "a.wav"
    values = np.array([0.5, math.nan, math.inf, 1e300, -7.5, 0.25])
    path.write_bytes(wav(chunk(b"fmt ", fmt(3, 1, bits=64)), chunk(b"data", values.astype("<f8").tobytes())))
    np.testing.assert_array_equal(read(path)[0][:, 0], [0.5, math.nan, math.inf, math.inf, -7.5, 0.25])


@pytest.mark.parametrize("subtype", ["MS_ADPCM", "IMA_ADPCM", "GSM610", "NMS_ADPCM_32", "G721_32"])
def test_compressed_wavs_with_a_wrong_size_are_read_by_libsndfile(tmp_path, subtype):
    good, path = tmp_path / "good.wav", tmp_path / "a.wav"
    soundfile.write(good, noise(5, 8_000), 8_000, subtype, format="WAV")
    expected, _ = soundfile.read(good, dtype="float32", always_2d=True)
    content = good.read_bytes()
    if subtype == "GSM610":
        assert len(expected) == 8_320  # with a block of which there is nothing in the file
        expected = expected[:8_000]
    at = content.index(b"data") + 4
    sizes = [struct.unpack_from("<I", content, at)[0], 0, 0xFFFF_FFFF, 1 << 27]
    for size in sizes:
        path.write_bytes(content[:at] + struct.pack("<I", size) + content[at + 4 :])
        samples = read_to_the_end(path)
        np.testing.assert_array_equal(samples[: len(expected)], expected)
        assert len(samples) - len(expected) <= (0 if subtype == "GSM610" else 64)
        assert (partial_of(path) is not None) == (size == 1 << 27)


def read_to_the_end(path: Path) -> np.ndarray:
    """Return what can be decoded of a file that may be cut short."""
    blocks = []
    with suppress(SoundError):
        for pcm in open_sound(ByteSource(path)).blocks():
            blocks += [pcm.samples.copy()]
    return np.concatenate(blocks)
