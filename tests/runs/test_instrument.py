"""An instrument keeps the pitch, level and length of tones, and makes no click where windows meet."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from distill.audio import load_audio
from distill.errors import DeviceError, RunError
from distill.features.inversion import crossfade
from distill.features.normalization import denormalize
from distill.runs.instrument import Instrument
from instruments import PITCHES, config_of, pitch_of, tones, write_run
from sounds import CHUNK, RATE, sine, write


@pytest.fixture(scope="module", params=[2, 1], ids=["two channels", "one channel"])
def instrument(request, tmp_path_factory) -> Instrument:
    return Instrument.load(write_run(tmp_path_factory.mktemp("run"), tones(), channels=request.param), "cpu")


def samples_of_windows(instrument: Instrument, count: int) -> int:
    """The number of samples that `count` windows fill."""
    return (count - 1) * instrument.step_samples + CHUNK


def split_windows(instrument: Instrument, sound: np.ndarray) -> torch.Tensor:
    starts = range(0, len(sound) - CHUNK + 1, instrument.step_samples)
    return torch.from_numpy(np.stack([sound[start : start + CHUNK] for start in starts])).float()[:, None]


def reconstruct(instrument: Instrument, sound: np.ndarray) -> np.ndarray:
    """The reconstruction of a sound, of the same length."""
    path = instrument.join_latents(instrument.encode(instrument.features(split_windows(instrument, sound))))
    return np.concatenate(list(instrument.play(path, len(sound))))


def unsteadiness(sound: np.ndarray, pitch: float) -> np.ndarray:
    """The residual of the recurrence of a sine of this pitch: 0 for a steady sine of any phase."""
    return np.abs(sound[2:] - 2 * np.cos(2 * np.pi * pitch / RATE) * sound[1:-1] + sound[:-2])


def at_seams(instrument: Instrument, samples: int) -> np.ndarray:
    """A mask of the samples where windows overlap, with a margin of half a frame."""
    place = np.arange(samples) % instrument.step_samples
    return (place < instrument.shared_frames * instrument.hop_length + 256) | (place > instrument.step_samples - 256)


@pytest.mark.parametrize("pitch", PITCHES)
def test_a_tone_keeps_its_pitch_and_its_level(instrument, pitch):
    sound = sine(pitch, samples_of_windows(instrument, 4) / RATE, level=0.5)
    out = reconstruct(instrument, sound)
    assert out.shape == sound.shape
    # One channel gives only the band; the second lowest pitch is 50 % above the lowest.
    tolerance = 4.0 if instrument.config.complex_spectrogram.enabled else 70.0
    assert abs(pitch_of(out) - pitch) < tolerance
    steady = slice(1000, -1000)
    assert out[steady].std() == pytest.approx(sound[steady].std(), rel=0.25)


@pytest.mark.parametrize("segment_values", [1 << 21, 1])
def test_there_is_no_click_where_windows_or_segments_meet(instrument, monkeypatch, segment_values):
    monkeypatch.setattr(crossfade, "_SEGMENT_VALUES", segment_values)
    pitch = 587.0
    sound = sine(pitch, samples_of_windows(instrument, 8) / RATE, level=0.5)
    out = reconstruct(instrument, sound)
    seams = at_seams(instrument, len(out))
    inside = slice(1000, -1000)

    if segment_values > 1:
        # The residual at seams is below a hundredth of the tone's amplitude.
        assert unsteadiness(out, pitch)[inside][seams[1:-1][inside]].max() < 0.005
    # With any segment length: far below concatenated windows, at every seam.
    abrupt = np.concatenate([sound[start : start + 1003] for start in range(0, len(sound) - 1003, 1000)])
    assert unsteadiness(out, pitch)[inside].max() < 0.1 * unsteadiness(abrupt, pitch).max()


def test_joined_features_of_windows_equal_those_of_the_whole_sound(instrument):
    random = np.random.default_rng(0)
    sound = random.standard_normal(samples_of_windows(instrument, 5)) * 0.1
    rows = instrument.features(split_windows(instrument, sound))
    joined = torch.cat(list(instrument.join([rows[:2], rows[2:]])), dim=-1)
    whole = instrument.features(torch.from_numpy(sound).float()[None, None])[0]
    assert joined.shape == whole.shape
    # Frames at the edge of a window see its reflection instead of the following sound, and have little weight.
    assert (joined - whole)[0].abs().mean() < 0.02 * whole[0].std()
    middle = instrument.n_frames // 2
    torch.testing.assert_close(joined[..., middle], whole[..., middle], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("samples", [1, 300, CHUNK - 1, CHUNK, CHUNK + 1, 20_001])
def test_sound_has_the_requested_length(instrument, samples):
    count = instrument.count_windows(samples)
    path = torch.randn(
        instrument.count_latents(count), instrument.model.latent_dim, generator=torch.Generator().manual_seed(1)
    )
    sound = np.concatenate(list(instrument.play(path, samples)))
    assert sound.shape == (samples,)
    assert sound.dtype == np.float32
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() > 0


@pytest.mark.parametrize("samples", [CHUNK, CHUNK + 1, 3 * CHUNK, 50_000])
def test_count_windows_is_the_smallest_number_that_covers_the_sound(instrument, samples):
    count = instrument.count_windows(samples)
    frames = samples // instrument.hop_length + 1
    covered = [
        n * (instrument.n_frames - instrument.shared_frames) + instrument.shared_frames for n in (count - 1, count)
    ]
    assert covered[0] < frames <= covered[1] or count == 1


def test_latent_vectors_far_from_all_sounds_give_finite_sound(instrument):
    path = torch.full((instrument.count_latents(2), instrument.model.latent_dim), 1e4)
    sound = np.concatenate(list(instrument.play(path, 12_000)))
    assert np.isfinite(sound).all()


def test_sound_fades_in_and_out(instrument):
    tone = split_windows(instrument, sine(587, CHUNK / RATE, level=0.5))
    path = instrument.join_latents(instrument.encode(instrument.features(tone)))
    cut, faded = (np.concatenate(list(instrument.play(path, 4_000, fade_s))) for fade_s in (0.001, 0.05))
    assert np.abs(cut[[0, -1]]).max() < 0.05
    np.testing.assert_array_equal(cut[:3_000], faded[:3_000])
    assert np.abs(faded[-80:]).max() < 0.3 * np.abs(cut[-180:-80]).max()


def test_a_missing_run_and_a_missing_device_are_errors(tmp_path):
    with pytest.raises(RunError, match="no such run folder"):
        Instrument.load(tmp_path / "none")
    run = write_run(tmp_path / "run", tones()[:5], latent_dim=3)
    with pytest.raises(DeviceError, match="cuda:99"):
        Instrument.load(run, "cuda:99")


def test_files_of_a_run_that_do_not_fit_each_other_are_an_error(tmp_path):
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


def test_a_window_of_one_frame_works(tmp_path):
    """A window has one frame: none is shared, and nothing is divided by that number."""
    config = config_of(2)
    feature = dataclasses.replace(config.complex_spectrogram, hop_length=512)
    run = write_run(tmp_path / "run", tones()[:9, :400], latent_dim=4, complex_spectrogram=feature, chunk_samples=400)
    instrument = Instrument.load(run, "cpu")
    assert instrument.n_frames == 1
    path = torch.zeros(instrument.count_latents(instrument.count_windows(5_000)), 4)
    sound = np.concatenate(list(instrument.play(path, 5_000)))
    assert sound.shape == (5_000,)
    assert np.abs(sound).max() > 0


def test_decode_attenuates_hiss_and_keeps_sound(instrument):
    """Compared with the output of the model before the correction."""
    z = torch.randn(4, *instrument.density.shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        rows = denormalize(instrument.model.decode(z), instrument.stats)[:, 0]
    found, deviation = instrument.decode(z)[:, 0], instrument.stats["mag_std"]
    quiet, loud = (rows > 0) & (rows < 0.1 * deviation), rows > 2 * deviation
    assert quiet.sum() > 20
    assert loud.sum() > 20
    assert (found[quiet] < 0.2 * rows[quiet]).all()
    torch.testing.assert_close(found[loud], rows[loud], rtol=0.02, atol=0)
    assert found.min() == 0


def test_a_waveform_is_encoded_and_decoded_like_a_file(instrument, tmp_path):
    pitch = PITCHES[2]
    sound = sine(pitch, samples_of_windows(instrument, 3) / RATE, level=0.25) + 0.05
    latents = instrument.encode_waveform(torch.from_numpy(sound)[None])
    assert latents.shape == (instrument.count_latents(3), instrument.model.latent_dim)
    out = instrument.decode_latents(latents, len(sound))
    assert (out.shape, out.dtype) == ((1, len(sound)), torch.float32)
    assert abs(pitch_of(out[0].numpy()) - pitch) < (4.0 if instrument.config.complex_spectrogram.enabled else 70.0)
    # Of the level of files: their peak is 1.
    assert out[0, 1000:-1000].abs().max() == pytest.approx(1.0, rel=0.35)
    path = write(tmp_path / "tone.wav", sound)
    loaded = load_audio(path, instrument.sample_rate)
    torch.testing.assert_close(instrument.encode_waveform(loaded), latents, atol=1e-3, rtol=0)
    torch.testing.assert_close(instrument.encode_waveform(sound), latents, atol=1e-4, rtol=0)
    every_other = torch.from_numpy(sound.repeat(2)).float()[::2]
    torch.testing.assert_close(instrument.encode_waveform(every_other), latents, atol=1e-4, rtol=0)
    whole = instrument.decode_latents(latents)
    assert len(sound) - instrument.hop_length < whole.shape[1] <= len(sound)
    torch.testing.assert_close(whole[0, : -2 * 512], out[0, : whole.shape[1] - 2 * 512], atol=0.05, rtol=0)


def test_waveforms_and_latents_that_are_none_are_refused(instrument):
    for bad, reason in (
        (torch.zeros(2, 100), "mono"),
        (torch.zeros(100, dtype=torch.int16), "of floats"),
        (np.zeros(0), "no samples"),
        (np.full(CHUNK, np.nan), "NaN"),
        (np.zeros(CHUNK), "silent"),
    ):
        with pytest.raises(ValueError, match=reason):
            instrument.encode_waveform(bad)
    latents = instrument.encode_waveform(sine(440.0, 1.0))
    assert torch.equal(instrument.decode_latents(latents.double().numpy()), instrument.decode_latents(latents))
    for bad in (latents[0], latents[:0], latents[None], latents[:, :1], torch.tensor(1.0)):
        with pytest.raises(ValueError, match="latent vectors of shape"):
            instrument.decode_latents(bad)
    for samples in (0, 10**9):
        with pytest.raises(ValueError, match=f"samples={samples}"):
            instrument.decode_latents(latents, samples)
    with pytest.raises(TypeError):
        instrument.decode_latents(latents, 1.5)


def test_threads_share_an_instrument(instrument):
    sounds = [sine(pitch, 1.0) for pitch in PITCHES]
    expected = [instrument.decode_latents(instrument.encode_waveform(sound)) for sound in sounds]
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda sound: instrument.decode_latents(instrument.encode_waveform(sound)), 3 * sounds)
        assert all(map(torch.equal, found, 3 * expected))
