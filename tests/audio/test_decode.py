"""Decoding, compared with soundfile, numpy and scipy; and the reasons why a file cannot be used."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr

from distill.audio import decode, load_audio
from distill.audio.decode import decode_blocks, estimated_duration_s
from distill.audio.readers.pcm import Encoding, Part, PcmSound
from distill.audio.readers.protocol import Pcm
from distill.audio.readers.table import READERS
from distill.audio.versions import installed_decoder_version
from distill.errors import AudioFileError
from sounds import let_blocks_be_small, noise, sine, write

# (name, subtype, atol): the tolerance is that of rounding, or for lossy codecs what they do to a sine.
KINDS = [
    ("a.wav", "PCM_16", 2**-15),
    ("a.wav", "PCM_24", 2**-23),
    ("a.wav", "FLOAT", 1e-7),
    ("a.wav", "DOUBLE", 1e-7),
    ("a.wav", "PCM_U8", 2**-6),
    ("a.flac", "PCM_16", 2**-15),
    ("a.flac", "PCM_24", 2**-23),
    ("a.aiff", "PCM_16", 2**-15),
    ("a.caf", "PCM_24", 2**-23),
    ("a.au", "PCM_16", 2**-15),
    ("a.w64", "FLOAT", 1e-7),
    ("a.ogg", "VORBIS", 0.05),
    ("a.mp3", "MPEG_LAYER_III", 0.05),
]


def reason(path, rate=48_000) -> str:
    """Return why a file is refused, after checking that the message names the file."""
    with pytest.raises(AudioFileError) as caught:
        load_audio(path, rate)
    assert os.fspath(path) in str(caught.value)
    assert caught.value.reason in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize(("name", "subtype", "atol"), KINDS)
def test_all_formats_give_the_samples_that_were_written(tmp_path, name, subtype, atol):
    samples = sine(440, rate=44_100) * np.hanning(44_100)
    path = write(tmp_path / name, samples, 44_100, subtype)
    decoded = load_audio(path, 44_100)
    assert decoded.shape == (1, 44_100)
    assert decoded.dtype.is_floating_point
    np.testing.assert_allclose(decoded[0].numpy(), samples, atol=atol)


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_averaged(tmp_path, channels):
    samples = np.stack([noise(channel, 5_000) for channel in range(channels)], axis=1)
    path = write(tmp_path / "a.wav", samples)
    expected = samples.astype(np.float32).astype(np.float64).mean(axis=1)
    np.testing.assert_allclose(load_audio(path, 16_000)[0].numpy(), expected, atol=1e-7)


def test_floats_beyond_full_scale_are_not_changed(tmp_path):
    samples = sine(440, level=7.5)
    assert np.abs(samples).max() > 7
    path = write(tmp_path / "a.wav", samples)
    np.testing.assert_allclose(load_audio(path, 16_000)[0].numpy(), samples, atol=1e-6)


@pytest.mark.parametrize("source_rate", [8_000, 11_025, 22_050, 32_000, 44_100, 88_200, 96_000, 192_000])
def test_a_resampled_sine_is_the_sine_at_the_new_rate(tmp_path, source_rate):
    path = write(tmp_path / "a.wav", sine(1_000, 1.0, source_rate), source_rate)
    decoded = load_audio(path, 48_000)[0].numpy()
    assert abs(len(decoded) - 48_000) <= 1
    # Away from the ends, where every resampler rings: the same phase, level and frequency, to -80 dB.
    middle = slice(4_800, 43_200)
    np.testing.assert_allclose(decoded[middle], sine(1_000, 1.0, 48_000)[middle], atol=5e-5)


def test_frequencies_above_the_new_nyquist_frequency_are_removed(tmp_path):
    path = write(tmp_path / "a.wav", sine(1_000, 1.0, 48_000) + sine(11_000, 1.0, 48_000, 0.4), 48_000)
    decoded = load_audio(path, 16_000)[0].numpy()[2_000:14_000]
    frequencies, power = scipy.signal.periodogram(decoded, 16_000, "blackmanharris")
    tone = np.abs(frequencies - 1_000) < 20
    assert power[tone].sum() > 1e7 * power[~tone].sum()


@pytest.mark.parametrize("source_rate", [44_100, 48_000])
def test_blocks_equal_the_file_resampled_at_once(tmp_path, monkeypatch, source_rate):
    samples = noise(1, 30_777).astype(np.float32)
    path = write(tmp_path / "a.wav", samples, source_rate)
    let_blocks_be_small(monkeypatch, 10_000)
    blocks = list(decode_blocks(path, 48_000))
    assert len(blocks) >= 4
    whole = samples if source_rate == 48_000 else soxr.resample(samples, source_rate, 48_000, quality="HQ")
    assert [block.peak for block in blocks] == [np.abs(block.samples).max() for block in blocks]
    joined = np.concatenate([block.samples for block in blocks])
    assert joined.dtype == np.float32
    assert joined.shape == whole.shape
    # Resampling in pieces must give the same bits.
    np.testing.assert_array_equal(joined, whole)


def test_the_block_size_does_not_change_the_samples(tmp_path, monkeypatch):
    path = write(tmp_path / "a.flac", noise(2, 50_000), 44_100, "PCM_16")
    whole = load_audio(path).numpy()
    let_blocks_be_small(monkeypatch, 4_096)
    np.testing.assert_allclose(load_audio(path).numpy(), whole, atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 48_000, 192_000])
def test_a_file_of_one_sample_can_be_decoded(tmp_path, rate):
    path = write(tmp_path / "a.wav", np.array([0.25]), rate)
    decoded = load_audio(path, 16_000)[0].numpy()
    assert 1 <= len(decoded) <= 6
    assert np.abs(decoded).max() > 0.1
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize(
    "name", [b"two words.wav", b"new\nline.wav", b"\xff\xfe latin \xe9.wav", "ünïcode-音.wav".encode()]
)
def test_any_file_name_can_be_decoded(tmp_path, name):
    samples = noise(3)
    path = write(os.path.join(os.fsencode(tmp_path), name), samples)
    np.testing.assert_allclose(load_audio(path, 16_000)[0].numpy(), samples, atol=1e-7)
    np.testing.assert_allclose(load_audio(os.fspath(path), 16_000)[0].numpy(), samples, atol=1e-7)


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.au", "a.w64", "a.caf", "a.flac", "a.mp3", "a.ogg"])
@pytest.mark.parametrize("share", [0.3, 0.95])
def test_a_truncated_file_is_used_up_to_where_it_is_cut(tmp_path, name, share):
    path = write(tmp_path / name, noise(4, 300_000), 44_100, None)
    whole = load_audio(path, 44_100)[0].numpy()
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    decoding = decode_blocks(path, 44_100)
    found = np.concatenate([block.samples for block in decoding])
    assert share - 0.2 < len(found) / len(whole) < share + 0.05
    # A lossy decoder may fade the end of what it has.
    np.testing.assert_array_equal(found[:-4_000], whole[: len(found) - 4_000])
    assert decoding.partial is not None
    assert decoding.partial.code in ("cut-short", "damaged")


def test_the_reason_for_a_truncated_wav_gives_both_lengths(tmp_path):
    path = write(tmp_path / "a.wav", noise(4, 10_000), subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:-5_000])
    decoding = decode_blocks(path, 16_000)
    assert sum(block.samples.size for block in decoding) == 7_500
    assert decoding.partial == "cut short: its header promises 10000 frames, 7500 can be decoded"


@pytest.mark.parametrize("rates", [(16_000, 16_000), (16_000, 8_000), (8_000, 16_000)])
def test_parts_of_another_rate_or_channel_count_are_resampled_on_their_own(tmp_path, monkeypatch, rates):
    parts = [noise(1, 4_000).astype(np.float32), np.stack([noise(2, 3_000)] * 2, axis=1).astype(np.float32)]
    path = write(tmp_path / "a.wav", parts[0])
    open_sound = decode.open_sound

    def opened(source):
        sound = open_sound(source)
        first = [Pcm(parts[0][:, None], rates[0]), Pcm(np.empty((0, 1), np.float32), rates[0])]
        sound.blocks = lambda: iter([*first, Pcm(parts[1], rates[1])])
        return sound

    monkeypatch.setattr(decode, "open_sound", opened)
    decoding = decode_blocks(path, 16_000)
    found = np.concatenate([block.samples for block in decoding])
    mono = [parts[0], parts[1][:, 0]]
    expected = (
        [np.concatenate(mono)]
        if rates == (16_000, 16_000)
        else [
            part if rate == 16_000 else soxr.resample(part, rate, 16_000, quality="HQ")
            for part, rate in zip(mono, rates, strict=True)
        ]
    )
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-6)
    assert (decoding.channels, decoding.partial) == (2, None)


def test_the_decoder_version_names_libsndfile_and_soxr():
    """From attributes of the two packages that they may rename."""
    library = soundfile.__libsndfile_version__
    assert f"libsndfile {library}, soxr {soxr.__version__}" in decode.DECODER_VERSION
    assert all(version.split(".")[0].isdecimal() for version in (library, soxr.__version__))


def test_the_decoder_version_is_told_without_importing_the_decoders():
    code = (
        "import sys; from distill.audio.versions import installed_decoder_version; print(installed_decoder_version())"
    )
    code += "; print(sorted({'numpy', 'soundfile', 'soxr'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [decode.DECODER_VERSION, "[]"]


@pytest.mark.parametrize("broken", ["missing", "no version", "two versions"])
def test_a_decoder_whose_version_is_not_certain_has_none(tmp_path, monkeypatch, broken):
    data, soxr_dir = tmp_path / "_soundfile_data", tmp_path / "soxr"
    for folder in (data, soxr_dir):
        folder.mkdir()
        (folder / "__init__.py").touch()
    (data / "libsndfile_x86_64.so").write_bytes(b"\x7fELF libsndfile-1.2.3\0 more")
    (soxr_dir / "_version.py").write_text("__version__ = version = '0.9.1'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    # Packages that are imported already are found where they are.
    for name in [name for name in sys.modules if name.split(".")[0] in ("_soundfile_data", "soxr")]:
        monkeypatch.delitem(sys.modules, name)
    assert installed_decoder_version() == "readers 1, libsndfile 1.2.3, soxr 0.9.1"
    if broken == "missing":
        (data / "libsndfile_x86_64.so").unlink()
    elif broken == "no version":
        (soxr_dir / "_version.py").write_text("")
    else:
        (data / "libsndfile_x86_64.so").write_bytes(b"libsndfile-1.2.3\0libsndfile-1.2.4\0")
    assert installed_decoder_version() is None


def test_a_riff_size_that_is_a_few_bytes_off_is_accepted(tmp_path):
    samples = noise(5)
    path = write(tmp_path / "a.wav", samples)
    content = bytearray(path.read_bytes())
    content[4:8] = struct.pack("<I", struct.unpack("<I", content[4:8])[0] + 8)
    path.write_bytes(content)
    np.testing.assert_allclose(load_audio(path, 16_000)[0].numpy(), samples, atol=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_nan_and_infinite_samples_are_refused(tmp_path, value, channels):
    samples = np.stack([noise(6)] * channels, axis=1)
    samples[5_000, 0] = value
    samples[5_000, -1] = -value if channels > 1 else value
    assert "NaN or infinite" in reason(write(tmp_path / "a.wav", samples))


def test_floats_near_the_limit_are_averaged_or_refused_but_never_become_infinite(tmp_path):
    largest = np.float32(3.4e38)
    path = write(tmp_path / "a.wav", np.full((100, 2), largest))
    assert np.all(load_audio(path, 16_000).numpy() == largest)
    path = write(tmp_path / "b.wav", largest * np.sign(noise(7)))
    assert "too large" in reason(path)


def test_files_without_audio_are_refused(tmp_path):
    for name, content in (("text.wav", b"not a sound at all\n" * 50), ("empty.wav", b""), ("magic.flac", b"fLaC" * 9)):
        (tmp_path / name).write_bytes(content)
        assert reason(tmp_path / name)
    (tmp_path / "folder.wav").mkdir()
    assert "no such file" in reason(tmp_path / "missing.wav")
    assert "is a folder" in reason(tmp_path / "folder.wav")


def test_zero_frames_are_refused(tmp_path):
    assert reason(write(tmp_path / "a.wav", np.zeros(0))) == "holds no samples"


def test_limits_on_rate_and_channels(tmp_path):
    assert "900 Hz" in reason(write(tmp_path / "slow.wav", noise(8), 900))
    assert "65 channels" in reason(write(tmp_path / "wide.wav", np.stack([noise(8, 100)] * 65, axis=1)))


def test_no_file_stays_open(tmp_path):
    write(tmp_path / "a.wav", noise(9, 400_000))
    write(tmp_path / "b.wav", np.zeros(0))
    before = len(list(Path("/dev/fd").iterdir()))
    next(iter(decode_blocks(tmp_path / "a.wav", 48_000)))
    reason(tmp_path / "b.wav")
    load_audio(tmp_path / "a.wav")
    assert len(list(Path("/dev/fd").iterdir())) <= before


@pytest.mark.parametrize(
    "error", [ValueError("x"), struct.error("x"), OverflowError(), IndexError(), ZeroDivisionError()]
)
@pytest.mark.parametrize("begins", [False, True])
def test_what_a_reader_did_not_foresee_ends_the_reading_of_this_file_only(tmp_path, monkeypatch, error, begins):
    class Sound(PcmSound):
        def blocks(self):
            yield next(super().blocks())
            raise error

    def opener(source):
        if not begins:
            raise error
        return Sound(source, iter([Part(48_000, 1, Encoding("signed", 2), 44, None)]))

    write(tmp_path / "a.wav", noise(0, 200_000))
    monkeypatch.setitem(READERS, "wav", (opener,))
    decoding = decode_blocks(tmp_path / "a.wav", 48_000)
    if begins:
        assert sum(block.samples.size for block in decoding) == 65_536
        assert decoding.partial == "cannot be decoded any further: it is damaged"
        return
    assert estimated_duration_s(tmp_path / "a.wav") == 0
    with pytest.raises(AudioFileError, match="cannot be decoded: its header is damaged") as caught:
        list(decoding)
    assert caught.value.reason.code == "damaged"
