"""The demo: its dataset, and the sounds that it ends with."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from distill.demo import FAMILIES, main, play, write_dataset
from distill.demo_m4a import write_m4a
from kinds.table import heard


def spectrum(path: Path) -> np.ndarray:
    """Return the log of the mean power in 64 bands of 375 Hz, at 48 kHz, [64]."""
    samples, rate = soundfile.read(path, always_2d=True)
    samples = resample_poly(samples.mean(axis=1), 48_000, rate)
    frames = np.lib.stride_tricks.sliding_window_view(samples, 1024)[::512] * np.hanning(1024)
    power = np.square(np.abs(np.fft.rfft(frames)[:, :512])).mean(axis=0).reshape(64, 8).sum(axis=1)
    return np.log(power / power.sum() + 1e-4)


@pytest.mark.usefixtures("one_thread")
def test_the_demo_writes_sounds_and_pictures_and_replaces_those_of_an_earlier_demo(run, tmp_path):
    code, out, err = run(tmp_path, "--epochs", 1, command=main)
    assert code == 0, err
    assert f"  {tmp_path / 'generated'}: new sounds, " in out
    assert f"  {tmp_path / 'reconstructed'}: six sounds that were not in the dataset, reconstructed" in out
    wavs = sorted([*(tmp_path / "generated").glob("*.wav"), *(tmp_path / "reconstructed").glob("*.wav")])
    # Six reconstructions, each beside its original.
    assert len(wavs) == 4 + 5 + 1 + 2 * 6
    for path in wavs:
        path.write_bytes(b"of another run")
    (run_dir,) = tmp_path.glob("sounds-*")
    assert out.splitlines()[-1] == f"play it:  distill play {run_dir}"
    heard = {family: next((tmp_path / "sounds").glob(f"{family}00.*")) for family in FAMILIES}
    assert play(run_dir, tmp_path, heard) == 0
    for path in wavs:
        samples, rate = soundfile.read(path)
        assert (rate, samples.ndim) == (48_000, 1)
        assert samples.std() > 1e-3
    spectra = {path: spectrum(path) for path in wavs}
    samples = [spectra[path] for path in wavs if path.name.startswith("sample")]
    assert min(np.abs(one - other).max() for one, other in combinations(samples, 2)) > 0.5
    unheard = [path for path in (tmp_path / "unheard").rglob("*.*") if path.is_file() and path.name[0] != "."]
    assert len(unheard) == 6
    for source in unheard:
        found = tmp_path / "reconstructed" / f"{source.stem}.wav"
        assert found.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
        info = soundfile.info(source)
        assert soundfile.info(found).duration == pytest.approx(info.duration, abs=1e-4)
    # A constant sound would be as far from its source as from the other five.
    found = [spectra[tmp_path / "reconstructed" / f"{source.stem}.wav"] for source in unheard]
    apart = np.abs(np.stack(found)[:, None] - np.stack([spectrum(source) for source in unheard])).mean(axis=2)
    assert np.diag(apart).mean() < 0.5 * apart.mean()


def test_the_dataset_depends_only_on_the_seed(sounds, tmp_path):
    again, other = tmp_path / "again", tmp_path / "other"
    write_dataset(again)
    write_dataset(other, seed=8)
    for path in sounds.rglob("*.*"):
        name = path.relative_to(sounds)
        if path.suffix == ".m4a":  # which libsndfile does not read
            assert (again / name).read_bytes() == path.read_bytes() != (other / name).read_bytes(), name
            continue
        samples = soundfile.read(path)[0]
        assert np.array_equal(soundfile.read(again / name)[0], samples), name
        assert not np.array_equal(soundfile.read(other / name)[0], samples), name


def test_the_dataset_has_several_formats_sample_rates_and_channel_counts(sounds):
    paths = [path for path in sounds.rglob("*.*") if path.is_file() and path.name[0] != "."]
    assert len(paths) == 60
    assert sum(path.suffix == ".m4a" for path in paths) == 6
    found = [soundfile.info(path) for path in paths if path.suffix != ".m4a"]
    assert {info.samplerate for info in found} == {22_050, 44_100, 48_000}
    assert {info.channels for info in found} == {1, 2}
    kinds = {(info.format, info.subtype) for info in found}
    assert kinds >= {("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("OGG", "VORBIS")}
    assert ("OGG", "OPUS") in kinds


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("shape", [(13_231,), (13_231, 2), (8_192, 2), (100, 1)])
def test_ffmpeg_hears_in_an_m4a_file_what_was_written(tmp_path, shape):
    samples = np.random.default_rng(0).uniform(-1, 1, shape)
    write_m4a(tmp_path / "a.m4a", samples, 44_100)
    found, rate = heard(tmp_path / "a.m4a")
    assert rate == 44_100
    np.testing.assert_allclose(found, samples.reshape(len(samples), -1), atol=2.0**-14)
