"""Samples, interpolations, variations and moves along axes have the properties that define them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from distill.errors import ConfigError, RunError
from distill.generate import generate, reconstruct
from distill.generate.paths import interpolate
from distill.generate.recipe import Recipe
from distill.runs.instrument import Instrument
from instruments import PITCHES, pitch_of, tones, write_axis, write_run
from sounds import CHUNK, RATE, noise, sine, write

LEVELS = (0.25, 0.5, 1.0)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "run", tones(LEVELS))


@pytest.fixture
def play(run_dir, tmp_path):
    """A function that returns the sounds [count, S] of a recipe."""
    made = iter(range(100))

    def make(seed: int = 1, **recipe) -> np.ndarray:
        out = tmp_path / f"out-{next(made)}"
        result = generate(run_dir, out, Recipe(**recipe), seed=seed, sample_format="float", device="cpu")
        # Without the gain that avoids clipping, which depends on the other sounds of the set.
        sounds = [soundfile.read(file)[0] / gain for file, gain in zip(result.files, result.gains, strict=True)]
        assert all(len(sound) == round(result.duration_s * result.sample_rate) for sound in sounds)
        return np.stack(sounds)

    return make


def spectrum(sound: np.ndarray) -> np.ndarray:
    """Log of the mean power spectrum, computed with numpy only, [257]."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, 512)[::128] * np.hanning(512)
    return np.log(np.square(np.abs(np.fft.rfft(frames))).mean(axis=0) + 1e-3)


def distance_of(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(np.square(spectrum(one) - spectrum(other)).mean()))


def test_a_sound_depends_on_its_seed_and_number_only(play):
    two, three, other = play(count=2), play(count=3), play(seed=2, count=2)
    # A set has one gain, which depends on its loudest sound.
    np.testing.assert_allclose(two / np.abs(two).max(), three[:2] / np.abs(three[:2]).max(), atol=1e-5)
    assert distance_of(two[0], two[1]) > 0.1
    assert all(distance_of(one, another) > 0.1 for one in two for another in other)
    # A longer path begins like a shorter one. So does its sound, except for the end, and for the level
    # if it would clip.
    longer = play(count=1, duration=2.0)
    one, other = (sound[0, 100 : CHUNK // 2] for sound in (longer, two))
    assert distance_of(one * (other.std() / one.std()), other) < 0.1


def test_samples_are_close_to_the_sounds_that_the_model_was_trained_on(run_dir, play):
    """At temperature 0 all samples are the average sound; at higher ones they vary."""
    calm, normal, hot = (play(count=24, temperature=temperature) for temperature in (0.0, 1.0, 2.0))
    np.testing.assert_array_equal(calm, np.tile(calm[0], (24, 1)))
    spread = [np.std([spectrum(sound) for sound in sounds], axis=0).mean() for sounds in (normal, hot)]
    # Not more at 2 than at 1: levels stay in the range of the known sounds.
    assert min(spread) > 0.3
    known = tones(LEVELS)
    instrument = Instrument.load(run_dir, "cpu")

    def sounds_of(z: torch.Tensor) -> list[np.ndarray]:
        return [np.concatenate(list(instrument.play(vectors, CHUNK))) for vectors in z]

    def nearest(sounds) -> float:
        return float(np.median([min(distance_of(sound, tone) for tone in known) for sound in sounds]))

    normal_latents = torch.randn(24, *instrument.density.shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        again = sounds_of(instrument.encode(instrument.features(known[::3][:, None].astype(np.float32))))
    assert 0.5 * nearest(again) < nearest(normal) < 0.9 * nearest(sounds_of(normal_latents))


def test_a_long_sample_changes_slowly_and_keeps_its_variance(play):
    (sound,) = play(count=1, duration=60.0)
    power = np.square(sound).reshape(-1, RATE // 4).mean(axis=1)
    halves = 10 * np.log10([power[:120].mean(), power[120:].mean()])
    assert abs(halves[0] - halves[1]) < 6
    # Neighbouring pieces are more alike than distant ones.
    pieces = sound.reshape(-1, RATE // 2)
    near = np.mean([distance_of(a, b) for a, b in pairwise(pieces)])
    far = np.mean([distance_of(a, b) for a, b in zip(pieces, pieces[40:], strict=False)])
    assert near < 0.8 * far


def test_long_samples_vary_as_much_at_the_end_as_at_the_beginning(play):
    sounds = play(count=80, duration=5.0)
    first, last = (
        np.std([spectrum(sound[piece]) for sound in sounds], axis=0).mean()
        for piece in (slice(CHUNK // 4, CHUNK // 2), slice(-CHUNK // 2, -CHUNK // 4))
    )
    assert 0.9 < last / first < 1.1


def test_an_interpolation_begins_and_ends_with_its_sounds(play, tmp_path):
    start = write(tmp_path / "start.wav", sine(PITCHES[1], 1.2))
    end = write(tmp_path / "end.wav", sine(PITCHES[6], 0.9))
    interpolation = play(start=start, end=end, steps=5)
    assert interpolation.shape == (5, round(1.2 * RATE))
    sources = [soundfile.read(path)[0] for path in (start, end)]
    steady = slice(1000, CHUNK)
    distance = np.array([[distance_of(sound[steady], source[steady]) for source in sources] for sound in interpolation])
    assert distance[0, 0] < 0.5 * distance[0, 1]
    assert distance[-1, 1] < 0.5 * distance[-1, 0]
    # Closer to the first sound, then to the last.
    assert (np.diff((distance[:, 0] < distance[:, 1]).astype(int)) <= 0).all()
    assert abs(pitch_of(interpolation[0][steady]) - PITCHES[1]) < 5
    assert abs(pitch_of(interpolation[-1][steady]) - PITCHES[6]) < 5


def test_levels_along_an_interpolation_are_on_the_line_between_its_ends(play, tmp_path):
    """In dB, for ends that differ by 12 dB, against a level that does not change or is interpolated as amplitude."""
    start = write(tmp_path / "start.wav", sine(PITCHES[1], CHUNK / RATE))
    quiet = sine(PITCHES[6], CHUNK / RATE, level=0.1)
    quiet[4_000] = 0.4
    end = write(tmp_path / "end.wav", quiet)
    sounds = play(start=start, end=end, steps=10)[:, 500:-500]
    levels = 20 * np.log10(sounds.std(axis=1))
    assert levels[0] - levels[-1] > 8
    assert np.abs(levels - np.linspace(levels[0], levels[-1], 10)).max() < 1.5


def test_an_offset_chooses_the_part_of_a_file_that_a_sound_starts_from(play, tmp_path):
    """Each source its own: here the last two of three tones, one second each, which are as loud as the first."""
    three = write(tmp_path / "three.wav", np.concatenate([sine(pitch, 1.0) for pitch in PITCHES[:3]]))
    (variation,) = play(around=three, count=1, radius=0.0, offset=(1.0,))
    assert variation.shape == (2 * RATE,)  # what is left of the file
    pitches = [pitch_of(piece[1000:-1000]) for piece in np.split(variation, 2)]
    np.testing.assert_allclose(pitches, PITCHES[1:3], atol=5)
    ends = play(start=three, end=three, steps=2, offset=(2.25, 1.25), duration=0.5)
    np.testing.assert_allclose([pitch_of(sound) for sound in ends], [PITCHES[2], PITCHES[1]], atol=5)
    through = play(through=(three, three, three), steps=3, offset=(1.25, 0.25, 2.25), duration=0.5)
    np.testing.assert_allclose([pitch_of(sound) for sound in through], [PITCHES[n] for n in (1, 0, 2)], atol=5)


@pytest.mark.parametrize(("steps", "at"), [(None, (0, 4, 8)), (3, (0, 1, 2)), (6, (0, 2, 5))])
def test_a_path_through_sounds_that_were_not_trained_on_passes_each_of_them(play, tmp_path, steps, at):
    pitches = (PITCHES[5], 500.0, PITCHES[2])
    paths = [write(tmp_path / f"{pitch}.wav", sine(pitch, 0.8)) for pitch in pitches]
    sounds = play(through=tuple(paths), steps=steps)
    assert len(sounds) == (steps or 9)
    alone = [play(start=path, end=path, steps=2)[0] for path in paths]
    for step, sound in zip(at, alone, strict=True):
        assert distance_of(sounds[step], sound) < 0.1 * min(
            distance_of(sound, other) for other in alone if other is not sound
        )
    # Steps resemble the sounds one after the other.
    nearest = np.argmin([[distance_of(sound, other) for other in alone] for sound in sounds], axis=1)
    assert (np.diff(nearest) >= 0).all()
    assert set(nearest.tolist()) == {0, 1, 2}
    between = play(start=paths[0], end=paths[1], steps=at[1] + 1)
    np.testing.assert_allclose(sounds[: at[1]], between[:-1], atol=1e-6)


def test_the_radius_is_the_distance_of_variations_from_their_sound(play, tmp_path):
    source = write(tmp_path / "tone.wav", sine(PITCHES[4], 1.0, level=0.4))
    same, near, far = (play(around=source, count=6, radius=radius) for radius in (0.0, 0.2, 1.0))
    assert abs(pitch_of(same[0]) - PITCHES[4]) < 5
    np.testing.assert_array_equal(same, np.tile(same[0], (6, 1)))
    distances = [np.mean([distance_of(sound, same[0]) for sound in sounds]) for sounds in (near, far)]
    assert 0.02 < distances[0] < 0.7 * distances[1]
    assert distance_of(near[0], near[1]) > 0.02


@pytest.fixture
def loudness_run(tmp_path) -> Path:
    """A run with one axis, the direction of increasing loudness."""
    chunks = tones(LEVELS)
    made = write_run(tmp_path / "run", chunks)
    instrument = Instrument.load(made, "cpu")
    z = instrument.encode(instrument.features(chunks.astype(np.float32)[:, None])).flatten(1).double().numpy()
    level = np.log(np.abs(chunks).max(axis=1))
    direction = np.linalg.lstsq(np.c_[level - level.mean(), np.ones(len(level))], z, rcond=None)[0][0]
    write_axis(made, direction * level.std(), "loudness")
    return made


@pytest.mark.parametrize("axis", ["loudness", "1"])
def test_a_move_along_the_loudness_axis_changes_the_level(loudness_run, tmp_path, axis):
    levels = []
    for value in (-2, -1, 0, 1, 2):
        recipe = Recipe(count=1, temperature=0.0, axis=(f"{axis}={value}",))
        made = generate(loudness_run, tmp_path / f"out{value}", recipe, sample_format="float", device="cpu")
        # Before what avoids clipping.
        levels.append(20 * np.log10(soundfile.read(made.files[0])[0].std() / made.gains[0]))
    assert (np.diff(levels) > 1).all()


def test_unknown_and_repeated_axes_are_refused(run_dir, loudness_run, tmp_path):
    with pytest.raises(RunError, match="has not been analysed") as missing:
        generate(run_dir, tmp_path / "out", Recipe(axis=("1=1",)))
    assert "distill analyze" in missing.value.tip
    with pytest.raises(ConfigError, match=r"no axis 'pitch'; there are 1 \(loudness\)"):
        generate(loudness_run, tmp_path / "out", Recipe(axis=("pitch=1",)))
    with pytest.raises(ConfigError, match="--axis loudness=1 and --axis 1=2 move along the same axis"):
        generate(loudness_run, tmp_path / "out", Recipe(axis=("loudness=1", "1=2")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seconds", [0.01, 0.02, CHUNK / RATE, CHUNK / RATE + 1 / RATE, 1.7])
def test_sounds_have_the_requested_length_and_fade_out(play, seconds):
    (sound,) = play(count=1, duration=seconds)
    assert len(sound) == round(seconds * RATE)
    assert np.isfinite(sound).all()
    assert np.abs(sound[[0, -1]]).max() < 0.2 * np.abs(sound).max()


def test_the_default_duration_is_that_of_the_source_up_to_a_minute(play, tmp_path):
    long = write(tmp_path / "long.wav", noise(1, 70 * RATE))
    assert play(around=long, count=1).shape == (1, 60 * RATE)
    assert play(count=1).shape == (1, CHUNK)


@pytest.mark.parametrize("kind", ["pcm16", "pcm24", "float"])
def test_a_sound_that_is_far_too_loud_does_not_clip(run_dir, tmp_path, kind):
    recipe = Recipe(count=2, temperature=15.0)
    for file in generate(run_dir, tmp_path, recipe, seed=1, sample_format=kind, device="cpu").files:
        sound, _ = soundfile.read(file)
        assert 0.1 < np.abs(sound).max() <= (1.0 if kind == "float" else 10 ** (-1 / 20) + 1e-4)
        assert (np.abs(sound) > 0.99 * np.abs(sound).max()).sum() < 20


def test_interpolate_changes_direction_and_length_at_constant_rates():
    random = np.random.default_rng(0)
    start, end = random.standard_normal((2, 40, 16))
    for share in (0.0, 0.3, 0.5, 1.0):
        found = interpolate(torch.from_numpy(start), torch.from_numpy(end), share).numpy()
        lengths = np.linalg.norm(start, axis=1), np.linalg.norm(end, axis=1)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), (1 - share) * lengths[0] + share * lengths[1])
        whole, part = (
            np.arccos(np.clip((start * to).sum(axis=1) / lengths[0] / np.linalg.norm(to, axis=1), -1, 1))
            for to in (end, found)
        )
        np.testing.assert_allclose(part, share * whole, atol=1e-6)
        # All three vectors lie in a plane.
        for number in range(40):
            assert np.linalg.matrix_rank(np.stack([start[number], end[number], found[number]]), tol=1e-8) <= 2


def test_interpolate_is_linear_between_parallel_opposite_and_zero_vectors():
    one = torch.randn(1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for start, end in ((one, 3 * one), (one, -one), (one, 0 * one), (0 * one, 0 * one)):
        torch.testing.assert_close(interpolate(start, end, 0.25), 0.75 * start + 0.25 * end)


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        ({"count": 2}, ["sample-001", "sample-002"]),
        ({"start": Path("a"), "end": Path("b"), "steps": 2}, ["interpolation-001", "interpolation-002"]),
        ({"around": Path("a"), "count": 1}, ["variation-001"]),
    ],
)
def test_files_are_named_after_the_kind_of_sound_and_sort_by_number(recipe, names):
    assert Recipe(**recipe).names == names
    assert Recipe(count=1000).names[-1] == "sample-1000"
    assert sorted(Recipe(count=1000).names) == Recipe(count=1000).names


def test_threads_generate_and_reconstruct_at_once(run_dir, tmp_path):
    """Each gets the very files that it gets alone."""
    source = write(tmp_path / "tone.wav", sine(PITCHES[1], 1.0))

    def make(out: Path, number: int) -> list[bytes]:
        if number % 2:
            files = reconstruct(run_dir, [source], out, device="cpu")
            return [path.read_bytes() for path in files.files + files.pictures]
        return [path.read_bytes() for path in generate(run_dir, out, seed=number, device="cpu").files]

    alone = [make(tmp_path / f"alone-{number}", number) for number in range(2)]
    with ThreadPoolExecutor(2) as threads:
        together = threads.map(lambda number: make(tmp_path / f"together-{number}", number), range(2))
        assert list(together) == alone
