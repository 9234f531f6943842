"""WAV files, read back with soundfile: level, format, reproducible bytes, and atomic writing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from distill.audio import wav
from distill.audio.wav import write_wav
from distill.errors import StorageError
from sounds import RATE, noise, sine

KINDS = [("pcm16", "PCM_16", 2**-15), ("pcm24", "PCM_24", 2**-23), ("float", "FLOAT", 1e-7)]


@pytest.mark.parametrize(("kind", "subtype", "step"), KINDS)
def test_a_file_holds_the_samples_of_its_blocks(tmp_path, kind, subtype, step):
    samples = sine(300, 0.5).astype(np.float32)
    written = write_wav(tmp_path / "a.wav", np.array_split(samples, 7), RATE, kind)
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, subtype)
    assert (written.samples, written.gain) == (samples.size, 1.0)
    assert written.peak == np.abs(samples).max()
    np.testing.assert_allclose(soundfile.read(tmp_path / "a.wav")[0], samples, atol=1.5 * step)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.wav"]


@pytest.mark.parametrize(("kind", "ceiling"), [("pcm16", 10 ** (-1 / 20)), ("pcm24", 10 ** (-1 / 20)), ("float", 1.0)])
@pytest.mark.parametrize("peak", [3.0, 0.95, 0.3, 1e-3])
def test_loud_samples_are_scaled_down_and_nothing_clips(tmp_path, kind, ceiling, peak):
    samples = noise(1, level=peak).astype(np.float32)
    written = write_wav(tmp_path / "a.wav", [samples], RATE, kind)
    wanted = min(ceiling, peak)
    found = soundfile.read(tmp_path / "a.wav")[0]
    assert np.abs(found).max() == pytest.approx(wanted, abs=1e-4)
    assert written.peak == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(found, samples / np.abs(samples).max() * wanted, atol=1e-4)


def test_float_files_do_not_contain_the_time_of_writing(tmp_path):
    write_wav(tmp_path / "a.wav", [noise(1).astype(np.float32)], RATE, "float")
    content = (tmp_path / "a.wav").read_bytes()
    place = content.index(b"PEAK")
    assert content[place + 12 : place + 16] == bytes(4)


def test_a_file_too_large_for_wav_becomes_rf64(tmp_path, monkeypatch):
    monkeypatch.setattr(wav, "_LARGEST_WAV", 1000)
    samples = noise(1).astype(np.float32)
    write_wav(tmp_path / "a.wav", [samples], RATE, "pcm24")
    assert soundfile.info(tmp_path / "a.wav").format == "RF64"
    np.testing.assert_allclose(soundfile.read(tmp_path / "a.wav")[0], samples, atol=1e-6)


def test_an_exception_from_the_blocks_leaves_only_the_old_file(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"old")

    def blocks():
        yield noise(1).astype(np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_wav(tmp_path / "a.wav", blocks(), RATE, "pcm16")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.wav"]
    assert (tmp_path / "a.wav").read_bytes() == b"old"


def test_a_missing_folder_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"none/a\.wav: cannot be written: No such file") as error:
        write_wav(tmp_path / "none" / "a.wav", [noise(1).astype(np.float32)], RATE, "pcm16")
    assert "--out" in error.value.tip


def test_a_full_disk_leaves_only_the_old_file(tmp_path):
    """In a separate process, whose files may not grow beyond 50 kB."""
    (tmp_path / "a.wav").write_bytes(b"old")
    code = (
        "import resource, signal, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from distill.audio.wav import write_wav\n"
        "from distill.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "sys.dont_write_bytecode = True\n"  # or the bytecode of a module may be cut
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n"
        "    write_wav(Path(sys.argv[1]), [np.full(int(sys.argv[2]), 0.5, np.float32)], 16000, sys.argv[3])\n"
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
