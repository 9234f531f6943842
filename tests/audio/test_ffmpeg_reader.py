"""Kinds of files that only FFmpeg reads: what is refused without PyAV, and with it, what lossless codecs were given."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from distill._native import ByteSource
from distill.audio import load_audio
from distill.audio.decode import decode_blocks
from distill.audio.readers.table import open_sound
from distill.errors import AudioFileError
from distill.preprocess.pipeline import preprocess
from distill.preprocess.status import dataset_status
from sounds import noise, training, write

needs_av = pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="needs PyAV")
RATE = 44_100
FRAMES = 100_003
# Codec and container, and whether the header says how many frames there are.
LOSSLESS = [
    ("wavpack", "wv", True),
    ("tta", "tta", True),
    ("flac", "matroska", False),
    ("pcm_s16le", "matroska", False),
    ("pcm_s16le", "avi", False),
    ("pcm_s16le", "mov", False),
]


def written(path, codec, container, frames=FRAMES, seed=0):
    """Encode 16-bit stereo noise with FFmpeg, and return it as [n, 2], float32."""
    import av

    samples = np.stack([noise(seed, frames), noise(seed + 1, frames)], axis=1)
    integers = np.round(samples * 32_767).astype(np.int16)
    with av.open(str(path), "w", format=container) as file:
        track = file.add_stream(codec, rate=RATE, layout="stereo")
        if codec in ("wavpack", "tta"):  # whose first choice are 8 bits
            track.format = "s16p" if codec == "wavpack" else "s16"
        for start in range(0, frames, 4_096):
            part = integers[start : start + 4_096]
            frame = av.AudioFrame.from_ndarray(part.reshape(1, -1), format="s16", layout="stereo")
            frame.sample_rate, frame.pts = RATE, start
            for packet in track.encode(frame):
                file.mux(packet)
        for packet in track.encode(None):
            file.mux(packet)
    return integers / np.float32(32_768)


def read(path):
    """Return the first two channels of all blocks, and the sound."""
    sound = open_sound(ByteSource(path))
    samples = np.concatenate([block.samples.copy() for block in sound.blocks()])
    sound.close()
    return samples, sound


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"wvpk", "WavPack"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", "WMA"),
        (b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
        (b"TTA1", "TTA"),
        (b"MAC ", "Monkey's Audio"),
        (b"MPCK", "Musepack"),
        (b"#!AMR\n", "AMR"),
        (b"RIFF\x00\x10\x00\x00AVI LIST", "AVI"),
        (b"FLV\x01", "Flash video"),
    ],
)
def test_without_pyav_the_reason_says_what_to_install(tmp_path, monkeypatch, head, kind):
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "a.wav"
    path.write_bytes(head + bytes(4_000))
    with pytest.raises(AudioFileError) as caught:
        load_audio(path)
    assert caught.value.reason == f"is {kind}, which is read with FFmpeg: pip install 'distill[ffmpeg]'"
    assert caught.value.reason.code == "needs-ffmpeg"


@needs_av
@pytest.mark.parametrize(("codec", "container", "counted"), LOSSLESS)
def test_lossless_sound_is_what_was_written(tmp_path, capfd, codec, container, counted):
    path = tmp_path / "a.wav"  # the name does not matter
    expected = written(path, codec, container)
    samples, sound = read(path)
    assert (sound.sample_rate, sound.channels) == (RATE, 2)
    assert sound.frames == (FRAMES if counted else None)
    np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-7)
    assert capfd.readouterr().err == ""


@needs_av
def test_the_first_track_of_sound_is_read(tmp_path):
    import av

    path = tmp_path / "a.mkv"
    first, second = (np.round(noise(seed, FRAMES) * 32_767).astype(np.int16) for seed in (1, 2))
    with av.open(str(path), "w", format="matroska") as file:
        picture = file.add_stream("mpeg4", rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        tracks = [file.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        black = av.VideoFrame(64, 48, "yuv420p")
        black.pts = 0
        for packet in [*picture.encode(black), *picture.encode(None)]:
            file.mux(packet)
        for track, integers in zip(tracks, (first, second), strict=True):
            frame = av.AudioFrame.from_ndarray(integers[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, 0
            for packet in [*track.encode(frame), *track.encode(None)]:
                file.mux(packet)
    samples, _ = read(path)
    np.testing.assert_allclose(samples[:, 0], first / np.float32(32_768), rtol=0, atol=1e-7)


@needs_av
@pytest.mark.parametrize(("codec", "container", "counted"), LOSSLESS[:5])
def test_a_file_that_is_cut_is_used_in_part(tmp_path, capfd, codec, container, counted):
    path = tmp_path / "a"
    expected = written(path, codec, container).mean(axis=1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    decoding = decode_blocks(path, RATE)
    samples = np.concatenate([block.samples for block in decoding])
    assert 0.3 * FRAMES < len(samples) < 0.65 * FRAMES
    np.testing.assert_allclose(samples, expected[: len(samples)], rtol=0, atol=1e-6)
    assert decoding.partial is not None
    assert decoding.partial.startswith(("cut short: its header promises", "decoding fails after"))
    assert capfd.readouterr().err == ""


@needs_av
def test_what_a_decoder_makes_up_for_a_cut_packet_is_left_out(tmp_path):
    path = tmp_path / "a.ac3"
    written(path, "ac3", "ac3")
    whole, _ = read(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100])
    decoding = decode_blocks(path, RATE)
    samples = np.concatenate([block.samples for block in decoding])
    assert decoding.partial.startswith("decoding fails after")
    np.testing.assert_allclose(samples, whole[: len(samples)].mean(axis=1), rtol=0, atol=1e-6)


@needs_av
def test_a_video_without_sound_says_so(tmp_path):
    import av

    path = tmp_path / "a.mkv"
    with av.open(str(path), "w", format="matroska") as file:
        picture = file.add_stream("mpeg4", rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame(64, 48, "yuv420p")
        frame.pts = 0
        for packet in [*picture.encode(frame), *picture.encode(None)]:
            file.mux(packet)
    with pytest.raises(AudioFileError, match="is Matroska or WebM without sound"):
        load_audio(path)


@needs_av
def test_no_other_file_is_opened(tmp_path):
    written(tmp_path / "a.wv", "wavpack", "wv")
    path = tmp_path / "a.mka"
    path.write_bytes(b"\x1a\x45\xdf\xa3\n#EXTM3U\n#EXTINF:1,\n" + str(tmp_path / "a.wv").encode() + b"\n" + bytes(500))
    with pytest.raises(AudioFileError, match="is Matroska or WebM with a damaged header"):
        load_audio(path)


@needs_av
def test_a_file_that_was_skipped_for_want_of_ffmpeg_is_read_once_it_is_there(tmp_path, monkeypatch):
    dataset = tmp_path / "dataset"
    write(dataset / "a.wav", noise(7, 20_000))
    written(dataset / "b.wav", "wavpack", "wv")
    found = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name, *given: None if name == "av" else found(name, *given))
        for _ in range(2):
            result = preprocess(dataset, training())
            assert [(path, reason.code) for path, reason in result.skipped] == [("b.wav", "needs-ffmpeg")]
        assert result.decoded == 0
    assert dataset_status(dataset)["skipped"] == 0
    for decoded in (1, 0):
        result = preprocess(dataset, training())
        assert (result.decoded, result.skipped) == (decoded, [])
