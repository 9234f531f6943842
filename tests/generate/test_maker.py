"""A maker that is kept makes the very sounds that ``generate`` writes, and opens no file twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distill.audio import load_audio
from distill.audio.chunking import Chunks
from distill.audio.sound_file import levelled
from distill.audio.sound_format import SoundFormat
from distill.errors import AudioFileError
from distill.generate import Recipe, generate
from distill.generate.maker import SoundMaker
from distill.runs.instrument import Instrument
from instruments import PITCHES, pitch_of, tones, write_axis, write_run
from sounds import CHUNK, RATE, forbid_decoding, sine, write

FLOAT = SoundFormat(sample_format="float")
STEP = np.linspace(-0.5, 0.5, 24)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    made = write_run(tmp_path_factory.mktemp("run") / "run", tones((0.25, 0.5, 1.0)))
    write_axis(made, np.tile(STEP, Instrument.load(made, "cpu").model.n_latents), "step")
    return made


@pytest.fixture(scope="module")
def instrument(run_dir) -> Instrument:
    return Instrument.load(run_dir, "cpu")


@pytest.fixture
def tone_files(tmp_path) -> list[Path]:
    return [write(tmp_path / f"{pitch}.wav", sine(pitch, 1.2, level=0.4)) for pitch in PITCHES[:4]]


def play(maker: SoundMaker, recipe: Recipe, seed: int = 3) -> list[np.ndarray]:
    return [np.concatenate(list(sound.blocks)) for sound in maker.make(recipe, seed).sounds()]


@pytest.fixture
def recipes(tone_files) -> list[Recipe]:
    return [
        Recipe(count=1, temperature=1.3),
        Recipe(count=1, around=tone_files[0], radius=0.4, axis=("step=1.5",)),
        Recipe(count=1, around=tone_files[1], duration=2.5),
        Recipe(count=1, duration=0.3, axis=("1=-2",)),
    ]


def test_threads_that_share_a_maker_get_the_sounds_that_generate_writes(run_dir, instrument, recipes, tmp_path):
    written = []
    for number, recipe in enumerate(recipes):
        made = generate(run_dir, tmp_path / str(number), recipe, seed=3, sample_format="float", device="cpu")
        written.append((soundfile.read(made.files[0], dtype="float32")[0], made))
    maker = SoundMaker(run_dir, instrument, kept=2)
    with ThreadPoolExecutor(3) as threads:
        played = list(threads.map(play, repeat(maker), 3 * recipes))
    for (sound,), (expected, made) in zip(played, 3 * written, strict=True):
        found, report = levelled(sound, RATE, FLOAT)
        np.testing.assert_array_equal(found, expected)
        assert (report.gain, report.limited) == (made.gains[0], made.limited[0])
        assert found.std() > 0.01


def test_a_sound_says_where_it_lies_and_how_its_level_was_held(run_dir, instrument, tone_files, tmp_path):
    recipe = Recipe(count=1, around=tone_files[2], radius=0.0, axis=("step=1.5",))
    maker = SoundMaker(run_dir, instrument)
    made = maker.make(recipe, 0)
    (sound,) = made.sounds()
    samples = np.concatenate(list(sound.blocks))
    assert (made.count, made.samples) == (1, samples.size) == (1, round(1.2 * RATE))
    latents = instrument.encode_waveform(load_audio(tone_files[2], RATE))
    expected = latents.numpy() + 1.5 * STEP
    np.testing.assert_allclose(sound.latents.numpy(), expected, atol=1e-5)
    assert sound.latents.shape[0] == instrument.count_latents(made.n_windows)
    result = generate(run_dir, tmp_path / "out", recipe, device="cpu")
    assert [sound.hold.change_db] == result.held_db


def test_the_sound_at_a_position_is_the_step_of_an_interpolation_that_lies_there(run_dir, instrument, tone_files):
    """Before what avoids clipping, which depends on the other sounds of a set."""
    maker, ends = SoundMaker(run_dir, instrument), {"start": tone_files[0], "end": tone_files[3]}
    steps = play(maker, Recipe(**ends, steps=5))
    for number, step in enumerate(steps):
        (sound,) = play(maker, Recipe(**ends, at=number / 4))
        np.testing.assert_array_equal(sound, step)
    assert [pitch_of(steps[number]) for number in (0, 4)] == pytest.approx([PITCHES[0], PITCHES[3]], abs=5)


def test_a_sound_from_the_start_of_a_chunk_is_encoded_like_the_chunk(run_dir, instrument, tmp_path):
    pieces = [sine(pitch, CHUNK / RATE, level=level) for pitch, level in zip(PITCHES, (0.8, 0.1, 0.3), strict=False)]
    path = write(tmp_path / "three.wav", np.concatenate(pieces) + 0.05)
    maker = SoundMaker(run_dir, instrument)
    for number, chunk in enumerate(Chunks(path, RATE, CHUNK, instrument.config.normalize)):
        offset = (number * CHUNK / RATE,)
        (sound,) = maker.make(Recipe(count=1, around=path, radius=0.0, offset=offset, duration=0.1), 0).sounds()
        (expected,) = instrument.encode(instrument.features(chunk[None, None]))
        np.testing.assert_allclose(sound.latents.numpy(), expected.numpy(), atol=1e-5)
    assert number == 2


def test_files_that_were_used_last_are_neither_decoded_nor_encoded_again(run_dir, instrument, tone_files, monkeypatch):
    maker = SoundMaker(run_dir, instrument, kept=2)
    calls = []
    recipes = [Recipe(count=1, around=path, radius=0.0) for path in tone_files[:3]]
    sounds = [play(maker, recipe)[0] for recipe in recipes]
    with monkeypatch.context() as patch:
        forbid_decoding(patch)
        maker.make(recipes[2], 0, lambda *figures: calls.append(figures))
        np.testing.assert_array_equal(play(maker, recipes[1])[0], sounds[1])
        assert calls == []
        with pytest.raises(pytest.fail.Exception, match="is decoded"):
            maker.make(replace(recipes[2], offset=(0.5,)), 0)
        with pytest.raises(pytest.fail.Exception, match="is decoded"):
            play(maker, recipes[0])
    np.testing.assert_array_equal(play(maker, recipes[0])[0], sounds[0])


def test_a_file_that_was_changed_or_is_gone_is_noticed(run_dir, instrument, tone_files):
    maker, path = SoundMaker(run_dir, instrument), tone_files[0]
    recipe = Recipe(count=1, around=path, radius=0.0)
    assert abs(pitch_of(play(maker, recipe)[0]) - PITCHES[0]) < 5
    write(path, sine(PITCHES[6], 1.2, level=0.4))
    assert abs(pitch_of(play(maker, recipe)[0]) - PITCHES[6]) < 5
    path.unlink()
    with pytest.raises(AudioFileError, match="no such file"):
        maker.make(recipe, 0)


def test_a_maker_reads_the_axes_of_its_run_once(run_dir, instrument, monkeypatch):
    maker = SoundMaker(run_dir, instrument)
    plain, moved = (Recipe(count=1, temperature=0.0, axis=axis) for axis in ((), ("step=2",)))
    first = play(maker, moved)[0]
    monkeypatch.setattr("distill.generate.maker.read_axes", lambda run: pytest.fail("read again"))
    np.testing.assert_array_equal(play(maker, moved)[0], first)
    assert np.abs(play(maker, plain)[0] - first).max() > 0.01
    assert first.shape == (CHUNK,)
