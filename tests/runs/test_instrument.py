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
from distill.runs.instrument import Synthesizer
from instruments import PITCHES, config_of, pitch_of, tones, write_run
from sounds import CHUNK, RATE, sine


@pytest.fixture(scope="module", params=[2, 1], ids=["two channels", "one channel"])
def synthesizer(request, tmp_path_factory) -> Synthesizer:
    return Synthesizer.load(write_run(tmp_path_factory.mktemp("run"), tones(), channels=request.param), "cpu")


def whole_windows(synthesizer: Synthesizer, count: int) -> int:
    """Samples that so many windows fill."""
    return (count - 1) * synthesizer.step_samples + CHUNK


def windows_of(synthesizer: Synthesizer, sound: np.ndarray) -> torch.Tensor:
    starts = range(0, len(sound) - CHUNK + 1, synthesizer.step_samples)
    return torch.from_numpy(np.stack([sound[start : start + CHUNK] for start in starts])).float()[:, None]


def through(synthesizer: Synthesizer, sound: np.ndarray) -> np.ndarray:
    """By way of the model, and back to a sound as long."""
    path = synthesizer.encode(synthesizer.features(windows_of(synthesizer, sound)))
    return np.concatenate(list(synthesizer.play(path, len(sound))))


def unsteadiness(sound: np.ndarray, pitch: float) -> np.ndarray:
    """What a steady sine of this pitch would not do from one sample to the next: 0 for that sine at any phase."""
    return np.abs(sound[2:] - 2 * np.cos(2 * np.pi * pitch / RATE) * sound[1:-1] + sound[:-2])


def at_seams(synthesizer: Synthesizer, samples: int) -> np.ndarray:
    """Samples at which windows meet, and half a frame around."""
    place = np.arange(samples) % synthesizer.step_samples
    return (place < synthesizer.fade * synthesizer.hop_length + 256) | (place > synthesizer.step_samples - 256)


@pytest.mark.parametrize("pitch", PITCHES)
def test_a_tone_keeps_its_pitch_and_its_level(synthesizer, pitch):
    sound = sine(pitch, whole_windows(synthesizer, 4) / RATE, level=0.5)
    out = through(synthesizer, sound)
    assert out.shape == sound.shape
    # Of one channel only the band is known; from the lowest pitch to the next is 50 %.
    tolerance = 4.0 if synthesizer.config.complex_spectrogram.enabled else 70.0
    assert abs(pitch_of(out) - pitch) < tolerance
    steady = slice(1000, -1000)
    assert out[steady].std() == pytest.approx(sound[steady].std(), rel=0.25)


@pytest.mark.parametrize("segment_values", [1 << 21, 1])
def test_no_click_where_windows_or_segments_meet(synthesizer, monkeypatch, segment_values):
    monkeypatch.setattr(crossfade, "_SEGMENT_VALUES", segment_values)
    pitch = 587.0
    sound = sine(pitch, whole_windows(synthesizer, 8) / RATE, level=0.5)
    out = through(synthesizer, sound)
    seams = at_seams(synthesizer, len(out))
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


def test_features_of_joined_windows_are_those_of_the_whole(synthesizer):
    random = np.random.default_rng(0)
    sound = random.standard_normal(whole_windows(synthesizer, 5)) * 0.1
    rows = synthesizer.features(windows_of(synthesizer, sound))
    joined = torch.cat(list(synthesizer.join([rows[:2], rows[2:]])), dim=-1)
    whole = synthesizer.features(torch.from_numpy(sound).float()[None, None])[0]
    assert joined.shape == whole.shape
    # Frames at a window's edge see its reflection instead of what follows, and count little.
    assert (joined - whole)[0].abs().mean() < 0.02 * whole[0].std()
    middle = synthesizer.n_frames // 2
    torch.testing.assert_close(joined[..., middle], whole[..., middle], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("samples", [1, 300, CHUNK - 1, CHUNK, CHUNK + 1, 20_001])
def test_sound_is_as_long_as_asked_for(synthesizer, samples):
    count = synthesizer.windows_of(samples)
    path = torch.randn(count, synthesizer.model.latent_dim, generator=torch.Generator().manual_seed(1))
    sound = np.concatenate(list(synthesizer.play(path, samples)))
    assert sound.shape == (samples,)
    assert sound.dtype == np.float32
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() > 0


@pytest.mark.parametrize("samples", [CHUNK, CHUNK + 1, 3 * CHUNK, 50_000])
def test_there_are_as_many_windows_as_a_sound_needs(synthesizer, samples):
    count = synthesizer.windows_of(samples)
    frames = samples // synthesizer.hop_length + 1
    covered = [n * (synthesizer.n_frames - synthesizer.fade) + synthesizer.fade for n in (count - 1, count)]
    assert covered[0] < frames <= covered[1] or count == 1


def test_latents_far_from_all_sounds_are_a_sound_still(synthesizer):
    sound = np.concatenate(list(synthesizer.play(torch.full((2, synthesizer.model.latent_dim), 1e4), 12_000)))
    assert np.isfinite(sound).all()


def test_sound_fades_at_its_ends(synthesizer):
    path = synthesizer.encode(synthesizer.features(windows_of(synthesizer, sine(587, CHUNK / RATE, level=0.5))))
    cut, faded = (np.concatenate(list(synthesizer.play(path, 4_000, fade_s))) for fade_s in (0.001, 0.05))
    assert np.abs(cut[[0, -1]]).max() < 0.05
    np.testing.assert_array_equal(cut[:3_000], faded[:3_000])
    assert np.abs(faded[-80:]).max() < 0.3 * np.abs(cut[-180:-80]).max()


def test_what_is_no_run_or_no_device(tmp_path):
    with pytest.raises(RunError, match="no such run folder"):
        Synthesizer.load(tmp_path / "none")
    run = write_run(tmp_path / "run", tones()[:5], latent_dim=3)
    with pytest.raises(DeviceError, match="cuda:99"):
        Synthesizer.load(run, "cuda:99")


def test_parts_of_a_run_that_do_not_fit_each_other(tmp_path):
    run = write_run(tmp_path / "run", tones()[:5], latent_dim=3)
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("chunk_samples = 8000", "chunk_samples = 9000"))
    with pytest.raises(
        RunError, match=r"model's rows are \[2, 32, 63\], those of the configuration \[2, 32, 71\]"
    ) as error:
        Synthesizer.load(run)
    assert "config.toml" in error.value.tip
    (run / "config.toml").write_text(text)
    described = json.loads((run / "model.json").read_text())
    del described["statistics"]["if_std"]
    (run / "model.json").write_text(json.dumps(described))
    with pytest.raises(RunError, match="statistics lack if_std"):
        Synthesizer.load(run)


def test_a_frame_longer_than_a_chunk(tmp_path):
    """One frame a window: nothing is shared, and nothing divides by that."""
    config = config_of(2)
    feature = dataclasses.replace(config.complex_spectrogram, hop_length=512)
    run = write_run(tmp_path / "run", tones()[:9, :400], latent_dim=4, complex_spectrogram=feature, chunk_samples=400)
    synthesizer = Synthesizer.load(run, "cpu")
    assert synthesizer.n_frames == 1
    sound = np.concatenate(list(synthesizer.play(torch.zeros(synthesizer.windows_of(5_000), 4), 5_000)))
    assert sound.shape == (5_000,)
    assert np.abs(sound).max() > 0


def test_hiss_is_weighed_down_and_sound_is_not(synthesizer):
    """Beside the model's own output, before anything is done to it."""
    z = torch.randn(4, synthesizer.model.latent_dim, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        rows = denormalize(synthesizer.model.decode(z), synthesizer.stats)[:, 0]
    found, deviation = synthesizer.decode(z)[:, 0], synthesizer.stats["mag_std"]
    quiet, loud = (rows > 0) & (rows < 0.1 * deviation), rows > 2 * deviation
    assert quiet.sum() > 20
    assert loud.sum() > 20
    assert (found[quiet] < 0.2 * rows[quiet]).all()
    torch.testing.assert_close(found[loud], rows[loud], rtol=0.02, atol=0)
    assert found.min() == 0
