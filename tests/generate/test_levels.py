"""Levels and peaks of what a run plays: they follow the sounds that it starts from, and need little limiting."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distill.generate.generation import Generated, generate
from distill.generate.recipe import Recipe
from distill.generate.reconstruction import reconstruct
from distill.runs.instrument import Instrument
from instruments import write_run
from sounds import CHUNK, RATE, write

STEPS = 10


def drum(seed: int) -> np.ndarray:
    """Return a hit [CHUNK] with a peak of 1: a falling tone and noise, each with a decay of its own."""
    random = np.random.default_rng(seed)
    time = np.arange(CHUNK) / RATE
    phase = 2 * np.pi * np.cumsum(random.uniform(60, 900) * (1 + 2 * np.exp(-time / 0.02))) / RATE
    tone = np.sin(phase) * np.exp(-time / random.uniform(0.02, 0.3))
    hiss = random.standard_normal(CHUNK) * np.exp(-time / random.uniform(0.005, 0.1))
    share = random.uniform(0.1, 0.9)
    sound = np.roll(share * tone + (1 - share) * hiss, random.integers(0, CHUNK // 2))
    return sound / np.abs(sound).max()


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    chunks = np.stack([drum(seed) for seed in range(200)])
    return write_run(tmp_path_factory.mktemp("run") / "run", chunks, latent_dim=16)


@pytest.fixture(scope="module")
def hits(tmp_path_factory) -> list[Path]:
    """Sounds that the run was not trained on, with levels that differ by up to 20 dB."""
    folder = tmp_path_factory.mktemp("hits")
    return [write(folder / f"{seed}.wav", 10 ** (-(seed % 3) / 2) * drum(seed)) for seed in range(200, 220)]


def decibels(ratio) -> np.ndarray:
    return 20 * np.log10(ratio)


def rms(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(sound))))


def levels_and_peaks(made: Generated) -> tuple[np.ndarray, np.ndarray]:
    """Return the levels of the files, and their peaks before the limiter, in dB without the gain of the set.

    What was limited reaches the ceiling; before, it was above that by the greatest reduction.
    """
    sounds = [soundfile.read(path)[0] for path in made.files]
    gains = decibels(made.gains)
    peaks = decibels([np.abs(sound).max() for sound in sounds]) + made.limited_db
    return decibels([rms(sound) for sound in sounds]) - gains, peaks - gains


def test_an_interpolation_keeps_to_the_line_between_the_levels_of_its_ends_and_has_no_high_peaks(
    run_dir, hits, tmp_path
):
    peaks = []
    for number, (start, end) in enumerate(pairwise(hits[:9])):
        recipe = Recipe(start=start, end=end, steps=STEPS)
        made = generate(run_dir, tmp_path / str(number), recipe, sample_format="float", device="cpu")
        levels, highest = levels_and_peaks(made)
        # Sounds, whose peak is 1, as loud as these: neither silence nor noise at full scale.
        wanted = [decibels(rms(sound) / np.abs(sound).max()) for sound in map(_read, (start, end))]
        assert np.abs(levels[[0, -1]] - wanted).max() < 2
        assert np.abs(levels - np.linspace(levels[0], levels[-1], STEPS)).max() < 1.5
        peaks.append(highest)
    assert np.max(peaks) < 3
    assert np.min(peaks) > -12


def test_an_interpolation_from_a_short_to_a_long_sound_is_no_louder_at_its_start_than_both_and_goes_on(
    run_dir, hits, tmp_path
):
    long = write(tmp_path / "long.wav", np.concatenate([drum(seed) for seed in range(300, 316)]))
    recipe = Recipe(start=hits[1], end=long, steps=5)
    made = generate(run_dir, tmp_path / "out", recipe, sample_format="float", device="cpu")
    levels, peaks = levels_and_peaks(made)
    assert np.abs(levels - np.linspace(levels[0], levels[-1], 5)).max() < 1.5
    assert peaks.max() < 3
    gains = np.array(made.gains)[:, None]
    sounds = np.stack([_read(path) for path in made.files]) / gains
    starts, rests = (decibels([rms(sound) for sound in part] + [1e-9]) for part in np.split(sounds, [CHUNK], axis=1))
    assert starts[1:4].max() < max(starts[0], starts[4]) + 1.5
    # What only the long sound has rises from step to step.
    assert (np.diff(rests[:5]) > 3).all()
    assert rests[1] > rests[4] - 60


@pytest.mark.parametrize("kind", ["sample", "variation"])
def test_samples_and_variations_have_no_high_peaks(run_dir, hits, tmp_path, kind):
    recipe = Recipe(count=30) if kind == "sample" else Recipe(around=hits[3], count=30, radius=0.7)
    made = generate(run_dir, tmp_path / "out", recipe, seed=5, sample_format="float", device="cpu")
    levels, peaks = levels_and_peaks(made)
    assert peaks.max() < 3
    assert peaks.min() > -25
    # Not the same sound again and again, and as loud as the sounds of the run.
    known = decibels([rms(drum(seed)) for seed in range(200)])
    assert levels.std() > 0.1
    assert known.min() - 2 < np.median(levels) < known.max() + 1


def test_a_reconstruction_is_as_loud_as_its_source(run_dir, hits, tmp_path):
    made = reconstruct(run_dir, hits[:6], tmp_path / "out", sample_format="float", device="cpu")
    errors = np.array(
        [decibels(rms(_read(out)) / rms(_read(source))) for source, out in zip(made.sources, made.files, strict=True)]
    )
    assert abs(np.median(errors)) < 0.5
    assert np.mean(np.abs(errors) < 2) >= 0.9


def test_the_gain_in_the_model_file_changes_the_level_of_what_a_run_plays(run_dir, tmp_path):
    latents = Instrument.load(run_dir, "cpu").model.latents[3]
    path = run_dir / "model.json"
    before = path.read_text()
    levels = []
    try:
        for gain in (-6.0, 0.0, 4.0):
            path.write_text(json.dumps(json.loads(before) | {"level": {"gain_db": gain, "rows_db": [30.0]}}))
            levels.append(decibels(rms(np.concatenate(list(Instrument.load(run_dir, "cpu").play(latents, CHUNK))))))
    finally:
        path.write_text(before)
    np.testing.assert_allclose(np.diff(levels), [6.0, 4.0], atol=0.3)


def _read(path: Path) -> np.ndarray:
    return soundfile.read(path)[0]
