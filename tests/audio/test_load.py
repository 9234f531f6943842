"""Loading of files, parts of files and file objects."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from distill.audio import AudioInfo, audio_info, load_audio
from distill.errors import AudioFileError
from sounds import noise, write

RATE = 44_100


@pytest.fixture(scope="module")
def stereo(tmp_path_factory) -> Path:
    samples = np.stack([noise(0, 3 * RATE), noise(1, 3 * RATE)], axis=1)
    return write(tmp_path_factory.mktemp("load") / "stereo.flac", samples, RATE, "PCM_16")


def test_the_rate_of_the_file_is_kept_on_request(stereo):
    waveform = load_audio(stereo, None)
    samples, rate = soundfile.read(stereo, dtype="float32")
    np.testing.assert_array_equal(waveform[0], samples.mean(axis=1, dtype=np.float64).astype(np.float32))
    assert audio_info(stereo) == AudioInfo(rate, 2, 3.0)
    assert load_audio(stereo).shape == (1, 3 * 48_000)


@pytest.mark.parametrize(("offset", "duration"), [(0.5, 1.0), (0.0, 0.25), (2.75, None), (2.5, 9.0), (1.0, 1e-9)])
def test_a_part_is_what_soundfile_reads_there(stereo, offset, duration):
    frames = -1 if duration is None else max(1, round(duration * RATE))
    expected, _ = soundfile.read(stereo, frames, round(offset * RATE), dtype="float32")
    waveform = load_audio(stereo, None, offset=offset, duration=duration)
    np.testing.assert_allclose(waveform[0], expected.mean(axis=1), atol=1e-6)


def test_a_part_of_a_resampled_file_is_that_of_the_whole(stereo):
    whole = load_audio(stereo, 16_000)
    assert torch.equal(load_audio(stereo, 16_000, offset=0.5, duration=0.75), whole[:, 8_000:20_000])


class Stream(io.RawIOBase):
    """Bytes that cannot be sought."""

    def __init__(self, content: bytes) -> None:
        self._rest = memoryview(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        taken = min(len(buffer), len(self._rest))
        buffer[:taken], self._rest = self._rest[:taken], self._rest[taken:]
        return taken


def test_file_objects_are_read_from_where_they_are(stereo):
    expected, content = load_audio(stereo), stereo.read_bytes()
    after = io.BytesIO(b"before" + content)
    after.seek(6)
    reading, writing = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(writing, content), os.close(writing)))
    small = write(stereo.with_name("small.flac"), noise(2, 4_000), RATE, "PCM_16")
    content = small.read_bytes()
    assert len(content) < 65_536  # what a pipe holds
    writer.start()
    with stereo.open("rb") as file, os.fdopen(reading, "rb") as pipe:
        for source in (file, after, Stream(stereo.read_bytes())):
            assert torch.equal(load_audio(source), expected)
        assert torch.equal(load_audio(pipe), load_audio(small))
    writer.join()
    assert audio_info(io.BytesIO(content)).sample_rate == RATE


def test_bad_sources_are_named(stereo, tmp_path):
    with pytest.raises(AudioFileError, match=r"stereo.flac: ends at 3.000 s, before the offset of 3 s"):
        load_audio(stereo, offset=3.0)
    with pytest.raises(AudioFileError, match="file object: not an audio file"):
        load_audio(io.BytesIO(b"no audio"))
    with pytest.raises(AudioFileError, match=r"gone.wav: no such file"):
        audio_info(tmp_path / "gone.wav")
    with (tmp_path / "bad.wav").open("w+b") as file:
        file.write(b"no audio")
        file.seek(0)
        with pytest.raises(AudioFileError, match=r"bad.wav: not an audio file"):
            load_audio(file)
    for other in (io.StringIO("text"), b"RIFF", None, 3):
        with pytest.raises(TypeError, match=r"binary mode.*, not"):
            load_audio(other)


def test_audio_info_leaves_a_file_object_where_it_is(stereo):
    for source in (io.BytesIO(b"before" + stereo.read_bytes()), io.BytesIO(stereo.read_bytes())):
        source.seek(len(source.getvalue()) - len(stereo.read_bytes()))
        assert audio_info(source).sample_rate == RATE
        assert torch.equal(load_audio(source), load_audio(stereo))


@pytest.mark.parametrize(
    "options",
    [
        {"offset": -1.0},
        {"offset": float("nan")},
        {"duration": 0.0},
        {"duration": float("inf")},
        {"sample_rate": 0},
        {"sample_rate": 10**9},
        {"sample_rate": 44_100.5},
    ],
)
def test_values_out_of_range_are_refused(stereo, options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name}=.* must be"):
        load_audio(stereo, **options)
