"""Kinds of files that only FFmpeg reads: what is refused without PyAV, and with it, what lossless codecs were given."""

from __future__ import annotations

import errno
import importlib.util
import struct
import sys

import numpy as np
import pytest

from distill import extensions
from distill._native import ByteSource
from distill.audio import load_audio
from distill.audio.decode import decode_blocks, estimated_duration_s
from distill.audio.readers import ffmpeg
from distill.audio.readers.table import open_sound
from distill.errors import AudioFileError
from distill.extensions import FFMPEG_EXTENSIONS, read_extensions, unread_lines
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


@needs_av
@pytest.mark.parametrize("size", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_damaged_number_in_flash_video_ends_the_reading_of_this_file_only(tmp_path, size):
    path = tmp_path / "a.flv"
    metadata = b"\x00\x08filesize\x00" + struct.pack(">d", size)
    path.write_bytes(b"FLV\x01\x01\0\0\0\x09\0\0\0\0" + metadata + bytes(200))
    assert estimated_duration_s(path) == 0
    with pytest.raises(AudioFileError, match="is Flash video with a damaged header"):
        load_audio(path)


@pytest.fixture
def broken_av(tmp_path, monkeypatch):
    """A package av that is installed and cannot be loaded."""
    package = tmp_path / "broken" / "av"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('libavcodec.so.62: no such file')")
    for name in [name for name in sys.modules if name.split(".")[0] == "av"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(package.parent)
    extensions._is_loadable.cache_clear()
    yield
    extensions._is_loadable.cache_clear()


def test_a_broken_installation_is_named_once_and_its_files_are_not_taken_for_damaged(tmp_path, broken_av, caplog):
    path = tmp_path / "a.wv"
    path.write_bytes(b"wvpk" + bytes(500))
    for _ in range(2):
        with pytest.raises(AudioFileError, match="WavPack, which is read with FFmpeg: pip install --force-") as caught:
            load_audio(path)
        assert caught.value.reason.code == "needs-ffmpeg"
        assert not set(FFMPEG_EXTENSIONS) & set(read_extensions())
    assert "pip install --force-reinstall av" in unread_lines({"wv": 1})[0]
    (line,) = caplog.messages
    assert line.endswith("is installed and cannot be loaded: libavcodec.so.62: no such file")


@needs_av
@pytest.mark.parametrize(
    ("number", "has_memory", "is_damage"),
    [
        (errno.ENOMEM, False, False),
        (errno.ENOMEM, True, True),  # a damaged size, for which there is never enough
        (errno.EMFILE, True, False),
        (errno.EINVAL, True, True),
    ],
)
def test_want_of_memory_is_not_taken_for_damage(tmp_path, monkeypatch, number, has_memory, is_damage):
    import av

    if not has_memory:
        monkeypatch.setattr(ffmpeg, "_SOME_MEMORY", 1 << 60)

    path = tmp_path / "a.wv"
    written(path, "wavpack", "wv")
    opened, count = av.open, iter(range(100))

    class Packet:
        is_corrupt = False

        def __init__(self, packet):
            self.packet = packet

        def decode(self):
            if next(count) == 2:
                av.error.err_check(-number)
            return self.packet.decode()

    class Container:
        def __init__(self, container):
            self.streams, self.close = container.streams, container.close
            self.demux = lambda track: map(Packet, container.demux(track))

    monkeypatch.setattr(av, "open", lambda *given, **named: Container(opened(*given, **named)))
    decoding = decode_blocks(path, RATE)
    if is_damage:
        list(decoding)
        assert decoding.partial.code == "damaged"
        return
    with pytest.raises((MemoryError, AudioFileError)) as caught:
        list(decoding)
    error = caught.value
    assert isinstance(error, MemoryError) or (error.reason.code, error.__cause__.errno) == ("unreadable", number)


@needs_av
def test_joined_aac_goes_on_with_ffmpeg_where_it_is_needed(tmp_path):
    import av

    content = b""
    for channels, layout in ((2, "stereo"), (6, "5.1")):
        with av.open(str(tmp_path / "part.aac"), "w", format="adts") as file:
            track = file.add_stream("aac", rate=RATE, layout=layout)
            samples = np.stack([noise(seed, 40_960) for seed in range(channels)]).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = RATE, 0
            for packet in [*track.encode(frame), *track.encode(None)]:
                file.mux(packet)
        content += (tmp_path / "part.aac").read_bytes()
    path = tmp_path / "a.aac"
    path.write_bytes(content)
    with av.open(str(path)) as file:
        expected = np.concatenate([frame.to_ndarray().mean(axis=0) for frame in file.decode(audio=0)])
    decoding = decode_blocks(path, RATE)
    samples = np.concatenate([block.samples for block in decoding])
    assert decoding.partial is None
    assert decoding.channels == 6
    np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-4)


@needs_av
def test_a_tag_in_front_of_an_mp4_is_passed_over(tmp_path):
    path = tmp_path / "a.m4a"
    expected = written(path, "alac", "ipod")
    path.write_bytes(b"ID3\4\0\0\0\0\0\x10" + bytes(16) + path.read_bytes())
    samples, _ = read(path)
    np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-7)
