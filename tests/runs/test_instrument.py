"""A run as an instrument: tones go in and come out, however long, without a click where windows meet."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from distill.errors import DeviceError, RunError
from distill.features.inversion import crossfade
from distill.features.normalization import denormalize
from distill.runs.instrument import Instrument
from instruments import PITCHES, config_of, pitch_of, tones, write_run
from sounds import CHUNK, RATE, sine


@pytest.fixture(scope="module", params=[2, 1], ids=["two channels", "one channel"])
def instrument(request, tmp_path_factory) -> Instrument:
    return Instrument.load(write_run(tmp_path_factory.mktemp("run"), tones(), channels=request.param), "cpu")


def whole_windows(instrument: Instrument, count: int) -> int:
    """Samples that so many windows fill."""
    return (count - 1) * instrument.step_samples + CHUNK


def windows_of(instrument: Instrument, sound: np.ndarray) -> torch.Tensor:
    starts = range(0, len(sound) - CHUNK + 1, instrument.step_samples)
    return torch.from_numpy(np.stack([sound[start : start + CHUNK] for start in starts])).float()[:, None]


def through(instrument: Instrument, sound: np.ndarray) -> np.ndarray:
    """By way of the model, and back to a sound as long."""
    path = instrument.encode(instrument.features(windows_of(instrument, sound)))
    return np.concatenate(list(instrument.play(path, len(sound))))


def unsteadiness(sound: np.ndarray, pitch: float) -> np.ndarray:
    """What a steady sine of this pitch would not do from one sample to the next: 0 for that sine at any phase."""
    return np.abs(sound[2:] - 2 * np.cos(2 * np.pi * pitch / RATE) * sound[1:-1] + sound[:-2])


def at_seams(instrument: Instrument, samples: int) -> np.ndarray:
    """Samples at which windows meet, and half a frame around."""
    place = np.arange(samples) % instrument.step_samples
    return (place < instrument.shared_frames * instrument.hop_length + 256) | (place > instrument.step_samples - 256)


@pytest.mark.parametrize("pitch", PITCHES)
def test_a_tone_keeps_its_pitch_and_its_level(instrument, pitch):
    sound = sine(pitch, whole_windows(instrument, 4) / RATE, level=0.5)
    out = through(instrument, sound)
    assert out.shape == sound.shape
    # Of one channel only the band is known; from the lowest pitch to the next is 50 %.
    tolerance = 4.0 if instrument.config.complex_spectrogram.enabled else 70.0
    assert abs(pitch_of(out) - pitch) < tolerance
    steady = slice(1000, -1000)
    assert out[steady].std() == pytest.approx(sound[steady].std(), rel=0.25)


@pytest.mark.parametrize("segment_values", [1 << 21, 1])
def test_no_click_where_windows_or_segments_meet(instrument, monkeypatch, segment_values):
    monkeypatch.setattr(crossfade, "_SEGMENT_VALUES", segment_values)
    pitch = 587.0
    sound = sine(pitch, whole_windows(instrument, 8) / RATE, level=0.5)
    out = through(instrument, sound)
    seams = at_seams(instrument, len(out))
    inside = slice(1000, -1000)

    def ratio(samples: np.ndarray) -> float:
        jumps = unsteadiness(samples, pitch)[inside]
        here = seams[1:-1][inside]
        return jumps[here].max() / jumps[~here].max()

    if segment_values > 1:
        assert ratio(out) < 8
    # However it was cut: far below what windows one after the other do, at any seam.
    abrupt = np.concatenate([sound[start : start + 1003] for start in range(0, len(sound) - 1003, 1000)])
    assert unsteadiness(out, pitch)[inside].max() < 0.1 * unsteadiness(abrupt, pitch).max()


def test_features_of_joined_windows_are_those_of_the_whole(instrument):
    random = np.random.default_rng(0)
    sound = random.standard_normal(whole_windows(instrument, 5)) * 0.1
    rows = instrument.features(windows_of(instrument, sound))
    joined = torch.cat(list(instrument.join([rows[:2], rows[2:]])), dim=-1)
    whole = instrument.features(torch.from_numpy(sound).float()[None, None])[0]
    assert joined.shape == whole.shape
    # Frames at a window's edge see its reflection instead of what follows, and count little.
    assert (joined - whole)[0].abs().mean() < 0.02 * whole[0].std()
    middle = instrument.n_frames // 2
    torch.testing.assert_close(joined[..., middle], whole[..., middle], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("samples", [1, 300, CHUNK - 1, CHUNK, CHUNK + 1, 20_001])
def test_sound_is_as_long_as_asked_for(instrument, samples):
    count = instrument.count_windows(samples)
    path = torch.randn(count, instrument.model.latent_dim, generator=torch.Generator().manual_seed(1))
    sound = np.concatenate(list(instrument.play(path, samples)))
    assert sound.shape == (samples,)
    assert sound.dtype == np.float32
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() > 0


@pytest.mark.parametrize("samples", [CHUNK, CHUNK + 1, 3 * CHUNK, 50_000])
def test_there_are_as_many_windows_as_a_sound_needs(instrument, samples):
    count = instrument.count_windows(samples)
    frames = samples // instrument.hop_length + 1
    covered = [
        n * (instrument.n_frames - instrument.shared_frames) + instrument.shared_frames for n in (count - 1, count)
    ]
    assert covered[0] < frames <= covered[1] or count == 1


def test_latents_far_from_all_sounds_are_a_sound_still(instrument):
    sound = np.concatenate(list(instrument.play(torch.full((2, instrument.model.latent_dim), 1e4), 12_000)))
    assert np.isfinite(sound).all()


def test_sound_fades_at_its_ends(instrument):
    path = instrument.encode(instrument.features(windows_of(instrument, sine(587, CHUNK / RATE, level=0.5))))
    cut, faded = (np.concatenate(list(instrument.play(path, 4_000, fade_s))) for fade_s in (0.001, 0.05))
    assert np.abs(cut[[0, -1]]).max() < 0.05
    np.testing.assert_array_equal(cut[:3_000], faded[:3_000])
    assert np.abs(faded[-80:]).max() < 0.3 * np.abs(cut[-180:-80]).max()


def test_what_is_no_run_or_no_device(tmp_path):
    with pytest.raises(RunError, match="no such run folder"):
        Instrument.load(tmp_path / "none")
    run = write_run(tmp_path / "run", tones()[:5], latent_dim=3)
    with pytest.raises(DeviceError, match="cuda:99"):
        Instrument.load(run, "cuda:99")


def test_parts_of_a_run_that_do_not_fit_each_other(tmp_path):
    run = write_run(tmp_path / "run", tones()[:5], latent_dim=3)
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("chunk_samples = 8000", "chunk_samples = 9000"))
    with pytest.raises(
        RunError, match=r"model's rows are \[2, 32, 63\], those of the configuration \[2, 32, 71\]"
    ) as error:
        Instrument.load(run)
    assert "config.toml" in error.value.tip
    (run / "config.toml").write_text(text)
    described = json.loads((run / "model.json").read_text())
    del described["statistics"]["if_std"]
    (run / "model.json").write_text(json.dumps(described))
    with pytest.raises(RunError, match="statistics lack if_std"):
        Instrument.load(run)


def test_a_frame_longer_than_a_chunk(tmp_path):
    """One frame a window: nothing is shared, and nothing divides by that."""
    config = config_of(2)
    feature = dataclasses.replace(config.complex_spectrogram, hop_length=512)
    run = write_run(tmp_path / "run", tones()[:9, :400], latent_dim=4, complex_spectrogram=feature, chunk_samples=400)
    instrument = Instrument.load(run, "cpu")
    assert instrument.n_frames == 1
    sound = np.concatenate(list(instrument.play(torch.zeros(instrument.count_windows(5_000), 4), 5_000)))
    assert sound.shape == (5_000,)
    assert np.abs(sound).max() > 0


def test_hiss_is_weighed_down_and_sound_is_not(instrument):
    """Beside the model's own output, before anything is done to it."""
    z = torch.randn(4, instrument.model.latent_dim, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        rows = denormalize(instrument.model.decode(z), instrument.stats)[:, 0]
    found, deviation = instrument.decode(z)[:, 0], instrument.stats["mag_std"]
    quiet, loud = (rows > 0) & (rows < 0.1 * deviation), rows > 2 * deviation
    assert quiet.sum() > 20
    assert loud.sum() > 20
    assert (found[quiet] < 0.2 * rows[quiet]).all()
    torch.testing.assert_close(found[loud], rows[loud], rtol=0.02, atol=0)
    assert found.min() == 0
