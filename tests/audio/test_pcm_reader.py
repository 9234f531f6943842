"""Uncompressed samples in every container, compared with soundfile and FFmpeg; and headers that are wrong."""

from __future__ import annotations

import math
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distill.audio.decode import decode_blocks
from distill.audio.readers.protocol import ByteSource, SoundError
from distill.audio.readers.table import open_sound
from sounds import noise, write

FRAMES = 5_001


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
    assert np.abs(expected - samples).max() < 0.05
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


def ffmpeg(*arguments: object, data: bytes = b"") -> bytes:
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    command = ["ffmpeg", "-nostdin", "-v", "error", *map(str, arguments)] if not data else ["ffmpeg", "-v", "error"]
    command += map(str, arguments) if data else ()
    return subprocess.run(command, input=data or None, stdout=subprocess.PIPE, check=True).stdout


def by_ffmpeg(path: Path, channels: int = 2) -> np.ndarray:
    return np.frombuffer(ffmpeg("-i", path, "-f", "f32le", "-c:a", "pcm_f32le", "-"), "<f4").reshape(-1, channels)


@pytest.mark.parametrize(("container", "codec"), FFMPEG_LAYOUTS)
@pytest.mark.parametrize("piped", [False, True])
def test_every_layout_that_ffmpeg_writes_gives_the_samples_that_it_reads(tmp_path, container, codec, piped):
    original = write(tmp_path / "original.wav", stereo(), 44_100)
    path = tmp_path / f"a.{container}"
    options = ("-i", original, "-c:a", f"pcm_{codec}", "-f", container)
    if piped:
        path.write_bytes(ffmpeg(*options, "-"))
    else:
        ffmpeg(*options, path)
    expected = by_ffmpeg(path)
    assert expected.shape == (FRAMES, 2)
    check(path, expected)
