"""Sound files, read back with soundfile: level, format, reproducible bytes, and atomic writing."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from distill.audio import sound_file
from distill.audio.sound_file import levelled, write_sound
from distill.audio.sound_format import SoundFormat
from distill.errors import ConfigError, StorageError
from ogg_files import pages_of
from sounds import RATE, noise, sine

FORMATS = {kind: SoundFormat(sample_format=kind) for kind in ("pcm16", "pcm24", "float")}
PCM16, PCM24, FLOAT = FORMATS.values()
KINDS = [("pcm16", "PCM_16", 2**-15), ("pcm24", "PCM_24", 2**-23), ("float", "FLOAT", 1e-7)]


@pytest.mark.parametrize(("kind", "subtype", "step"), KINDS)
def test_a_file_holds_the_samples_of_its_blocks(tmp_path, kind, subtype, step):
    samples = sine(300, 0.5).astype(np.float32)
    written = write_sound(tmp_path / "a.wav", np.array_split(samples, 7), RATE, FORMATS[kind])
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, subtype)
    assert (written.samples, written.gain) == (samples.size, 1.0)
    assert written.peak == np.abs(samples).max()
    np.testing.assert_allclose(soundfile.read(tmp_path / "a.wav")[0], samples, atol=1.5 * step)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.wav"]


CEILINGS = {"pcm16": 10 ** (-1 / 20), "pcm24": 10 ** (-1 / 20), "float": 1.0}


def snare(peak: float, seconds: float = 1.0) -> np.ndarray:
    """Decaying noise with an attack of a few samples, [S], float64."""
    sound = noise(4, round(seconds * RATE), level=0.8)
    sound *= np.exp(-np.arange(sound.size) / (0.4 * RATE))
    sound[500:504] = peak * np.array([0.6, 1.0, -0.9, 0.7])
    return sound


def level_db(sound: np.ndarray) -> float:
    return 10 * np.log10(np.square(sound).mean())


@pytest.mark.parametrize("kind", CEILINGS)
@pytest.mark.parametrize(
    "sound", [snare(2.0), snare(8.0), noise(1, level=1.3), 3 * sine(60, 0.7), sine(440, 0.2, level=40)]
)
def test_nothing_is_above_the_ceiling(tmp_path, kind, sound):
    written = write_sound(tmp_path / "a.wav", [sound.astype(np.float32)], RATE, FORMATS[kind])
    found = np.abs(soundfile.read(tmp_path / "a.wav")[0]).max()
    assert 0.9 * CEILINGS[kind] < found <= CEILINGS[kind]
    assert written.peak == pytest.approx(found, abs=1e-4)


def test_only_samples_near_a_peak_are_changed(tmp_path):
    """2 ms before it and after it; all others stay as they are, bit for bit, and the gain makes no click."""
    sound = snare(2.0).astype(np.float32)
    written = write_sound(tmp_path / "a.wav", [sound], RATE, FLOAT)
    found = soundfile.read(tmp_path / "a.wav", dtype="float32")[0]
    near = np.zeros(sound.size, bool)
    near[500 - 2 * RATE // 1000 : 504 + 2 * RATE // 1000] = True
    np.testing.assert_array_equal(found[~near], sound[~near])
    assert written.gain == 1.0
    assert written.limited == np.count_nonzero(near & (found != sound)) / sound.size > 0
    gain = found[near].astype(np.float64) / sound[near]
    assert written.limited_db == pytest.approx(-20 * np.log10(gain.min()), abs=1e-4)
    assert gain.min() == pytest.approx(0.5, abs=1e-6)
    # From 1 to 0.5 in 2 ms, which are 32 samples. Clipping takes 1.
    assert np.abs(np.diff(gain)).max() < 0.5 / 32 * 2.5


def test_a_few_peaks_do_not_make_a_sound_quieter(tmp_path):
    sound = snare(2.5).astype(np.float32)
    write_sound(tmp_path / "a.wav", [sound], RATE, PCM24)
    found = soundfile.read(tmp_path / "a.wav")[0]
    quieter = sound * CEILINGS["pcm24"] / 2.5
    errors = [abs(level_db(other) - level_db(sound)) for other in (found, quieter)]
    assert errors[0] < 1.0 < 5.0 < errors[1]
    assert np.linalg.norm(found - sound) < 0.6 * np.linalg.norm(quieter - sound)


def test_a_steady_sound_is_made_quieter_and_not_distorted(tmp_path):
    sound = sine(50, 1.0, level=2.0).astype(np.float32)
    written = write_sound(tmp_path / "a.wav", [sound], RATE, PCM24)
    spectrum = np.abs(np.fft.rfft(soundfile.read(tmp_path / "a.wav")[0]))
    spectrum[:45] = 0
    assert spectrum[55:].max() < 1e-3 * spectrum[50]
    assert written.gain == pytest.approx(CEILINGS["pcm24"] / 2, rel=0.01)


def test_a_peak_is_lowered_by_9_db_at_most_and_the_rest_by_a_gain(tmp_path):
    sound = snare(10.0).astype(np.float32)
    written = write_sound(tmp_path / "a.wav", [sound], RATE, FLOAT)
    assert written.limited_db == pytest.approx(9, abs=0.01)
    assert -20 * np.log10(written.gain) == pytest.approx(11, abs=0.01)
    found = soundfile.read(tmp_path / "a.wav")[0]
    np.testing.assert_allclose(found[1000:], sound[1000:] * written.gain, rtol=1e-6)


@pytest.mark.parametrize("sizes", [1, 777, 65_536, 100_000])
def test_the_length_of_the_blocks_makes_no_difference(tmp_path, sizes):
    sound = np.concatenate([snare(2.0, 2.0), sine(300, 3.0, level=0.8), snare(6.0, 5.0)]).astype(np.float32)
    sound[65_530:65_540] *= 2.5
    sound = sound[: 3_000 if sizes == 1 else None]
    write_sound(tmp_path / "whole.wav", [sound], RATE, FLOAT)
    write_sound(
        tmp_path / "blocks.wav",
        np.split(sound, range(sizes, sound.size, sizes)),
        RATE,
        FLOAT,
    )
    assert (tmp_path / "whole.wav").read_bytes() == (tmp_path / "blocks.wav").read_bytes()
    assert np.abs(sound).max() > 1.5


def test_float_files_do_not_contain_the_time_of_writing(tmp_path):
    write_sound(tmp_path / "a.wav", [noise(1).astype(np.float32)], RATE, FLOAT)
    content = (tmp_path / "a.wav").read_bytes()
    place = content.index(b"PEAK")
    assert content[place + 12 : place + 16] == bytes(4)


def test_a_file_too_large_for_wav_becomes_rf64(tmp_path, monkeypatch):
    monkeypatch.setattr(sound_file, "_LARGEST_WAV", 1000)
    samples = noise(1).astype(np.float32)
    write_sound(tmp_path / "a.wav", [samples], RATE, PCM24)
    assert soundfile.info(tmp_path / "a.wav").format == "RF64"
    np.testing.assert_allclose(soundfile.read(tmp_path / "a.wav")[0], samples, atol=1e-6)


def test_an_exception_from_the_blocks_leaves_only_the_old_file(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"old")

    def blocks():
        yield noise(1).astype(np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sound(tmp_path / "a.wav", blocks(), RATE, PCM16)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.wav"]
    assert (tmp_path / "a.wav").read_bytes() == b"old"


def test_a_missing_folder_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"none/a\.wav: cannot be written: No such file") as error:
        write_sound(tmp_path / "none" / "a.wav", [noise(1).astype(np.float32)], RATE, PCM16)
    assert "--out" in error.value.tip


def test_a_full_disk_leaves_only_the_old_file(tmp_path):
    """In a separate process, whose files may not grow beyond 50 kB."""
    (tmp_path / "a.wav").write_bytes(b"old")
    code = (
        "import resource, signal, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from distill.audio.sound_file import write_sound\n"
        "from distill.audio.sound_format import SoundFormat\n"
        "from distill.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "sys.dont_write_bytecode = True\n"  # or the bytecode of a module may be cut
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n"
        "    samples = np.full(int(sys.argv[2]), 0.5, np.float32)\n"
        "    write_sound(Path(sys.argv[1]), [samples], 16000, SoundFormat(sample_format=sys.argv[3]))\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    # Once the samples do not fit; once they fit, but not together with the header.
    for samples, kind, reason in ((100_000, "pcm16", "the disk is full"), (12_490, "float", "cannot be written: ")):
        command = [sys.executable, "-c", code, tmp_path / "a.wav", str(samples), kind]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"a.wav: {reason}" in done.stdout
        assert list(tmp_path.iterdir()) == [tmp_path / "a.wav"]
        assert (tmp_path / "a.wav").read_bytes() == b"old"


def test_a_recording_keeps_its_level_up_to_full_scale(tmp_path):
    samples = noise(3, level=1 - 2**-14).astype(np.float32)
    samples[7] = 1.2
    write_sound(tmp_path / "a.wav", [samples], RATE, PCM24, keeps_level=True)
    found = soundfile.read(tmp_path / "a.wav")[0]
    np.testing.assert_allclose(found[100:], samples[100:], atol=2**-22)
    assert 0.999 < found[7] <= 1


@pytest.mark.parametrize(("kind", "step"), [("pcm16", 2**-15), ("pcm24", 2**-23), ("float", 0.0)])
@pytest.mark.parametrize("rate", [None, 22_050])
@pytest.mark.parametrize("sound", [sine(300, 0.5), snare(2.0, 9.0), snare(10.0), 3 * sine(60, 0.7)])
def test_what_is_levelled_in_memory_is_what_is_written(tmp_path, kind, step, rate, sound):
    """Up to the rounding to integers, which is less than a step."""
    form, samples = SoundFormat(sample_format=kind, sample_rate=rate), sound.astype(np.float32)
    written = write_sound(tmp_path / "a.wav", np.array_split(samples, 3), RATE, form)
    found, report = levelled(samples, RATE, form)
    assert found.dtype == np.float32
    assert report == written
    np.testing.assert_allclose(found, soundfile.read(tmp_path / "a.wav")[0], rtol=0, atol=step)


def test_without_a_form_what_is_levelled_is_what_is_written_without_one(tmp_path):
    samples = snare(4.0).astype(np.float32)
    write_sound(tmp_path / "a.wav", [samples], RATE)
    np.testing.assert_allclose(levelled(samples, RATE)[0], soundfile.read(tmp_path / "a.wav")[0], rtol=0, atol=2**-23)


FILES = {
    "wav": ("WAV", "PCM_24", 2**-22),
    "flac": ("FLAC", "PCM_24", 2**-22),
    "ogg": ("OGG", "VORBIS", 0.03),
    "mp3": ("MP3", "MPEG_LAYER_III", 0.03),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("rate", [None, 22_050, 48_000])
def test_each_kind_of_file_holds_the_sound_at_the_rate_that_is_asked_for(tmp_path, kind, rate):
    sound = (sine(300, 1.5, level=0.4) + sine(1_700, 1.5, level=0.3)).astype(np.float32)
    form = SoundFormat(file_format=kind, sample_rate=rate)
    paths = [tmp_path / f"{number}.{kind}" for number in range(2)]
    for path, pieces in zip(paths, (1, 7), strict=True):
        written = write_sound(path, np.array_split(sound, pieces), RATE, form)
    # Equal sounds give equal bytes.
    assert paths[0].read_bytes() == paths[1].read_bytes()
    info, new = soundfile.info(paths[0]), rate or RATE
    assert (info.format, info.subtype, info.samplerate, info.channels) == (*FILES[kind][:2], new, 1)
    found = soundfile.read(paths[0])[0]
    assert len(found) == written.samples == round(1.5 * new)
    wanted = sine(300, 1.5, new, 0.4) + sine(1_700, 1.5, new, 0.3)
    inner = slice(new // 10, -new // 10)
    tolerance = max(FILES[kind][2], 1e-3 if rate else 0.0)
    np.testing.assert_allclose(found[inner], wanted[inner], atol=tolerance)


@pytest.mark.parametrize("kind", FILES)
def test_nothing_clips_when_a_file_is_decoded(tmp_path, kind):
    """Also if resampling and the loss of Vorbis and MP3 raise the peaks."""
    rng = np.random.default_rng(5)
    square = (2.0 * np.sign(sine(233, 1.0)) * rng.uniform(0.4, 1, RATE)).astype(np.float32)
    written = write_sound(tmp_path / "a", [square], RATE, SoundFormat(file_format=kind, sample_rate=44_100))
    found = soundfile.read(tmp_path / "a")[0]
    assert 0.8 < np.abs(found).max() <= 1.0
    assert written.peak == pytest.approx(np.abs(found).max(), abs=1e-4)
    assert np.abs(soundfile.read(tmp_path / "a", dtype="int16")[0]).max() < 2**15 - 1


def test_the_pages_of_an_ogg_file_have_right_checksums(tmp_path):
    write_sound(tmp_path / "a.ogg", [noise(1, 5 * RATE).astype(np.float32)], RATE, SoundFormat(file_format="ogg"))
    pages = pages_of(tmp_path / "a.ogg")
    assert len(pages) > 3
    assert {page.serial for page in pages} == {1}
    assert b"".join(map(bytes, pages)) == (tmp_path / "a.ogg").read_bytes()


@pytest.mark.parametrize(
    ("form", "rate", "message"),
    [
        ({"sample_rate": 7_999}, None, "--sample-rate 7999 must be from 8000 to 192000 Hz"),
        ({"sample_rate": 400_000, "file_format": "ogg"}, None, "--sample-rate 400000 must be from 8000"),
        ({"sample_rate": 96_000, "file_format": "mp3"}, 16_000, "of 96000 Hz: give --sample-rate 44100, or leave out"),
        ({"file_format": "mp3"}, 96_000, "--format mp3: MP3 has no sample rate of 96000 Hz: give --sample-rate 44100"),
        ({"file_format": "ogg"}, 4_000, "--format ogg: a sample rate of 4000 Hz is outside 8000 to 192000"),
        ({"file_format": "flac", "sample_format": "float"}, None, "--sample-format float: a FLAC file holds integers"),
        (
            {"file_format": "ogg", "sample_format": "pcm16"},
            None,
            "--sample-format pcm16 has no effect with --format ogg",
        ),
    ],
)
def test_a_form_that_no_file_can_have_is_refused_with_a_remedy(form, rate, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        SoundFormat(**form).check(rate)
    SoundFormat(file_format=form.get("file_format", "wav"), sample_rate=44_100).check(rate)
