"""What a validation sound keeps: pitch, envelope and level against librosa and numpy, in files and in a training."""

from __future__ import annotations

import functools
import json
import re

import librosa
import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from distill.config import config_to_toml
from distill.runs.instrument import Instrument
from distill.training import CachedSpectrogramDataset, train
from distill.training import report as reports
from distill.training.listening import compare, pitch_of, sentence
from instruments import config_of
from sound_measures import envelope_correlation, level_db
from sounds import CHUNK, RATE, chunks_by_hand, noise, sine, slot_of, write

pytestmark = pytest.mark.usefixtures("one_thread")
NOTES = np.geomspace(150, 1200, 24)
train_alone = functools.partial(train, analyze=False)


def note(pitch: float, rate: int = RATE, samples: int = CHUNK) -> np.ndarray:
    """A note of five harmonics that decays."""
    seconds = samples / rate
    tone = sum(sine(number * pitch, seconds, rate, level=0.3 / number) for number in range(1, 6))
    return tone * np.exp(-16 * np.arange(samples) / rate)


def oracle(recordings, sounds) -> dict[str, float]:
    """The figures by numpy and librosa."""

    def pitch(sound):
        # Of the first 0.1 s, where a note is loudest. At a higher rate, yin is more exact.
        frame = resample_poly(sound[: RATE // 10].astype(np.float64), 4, 1)
        return librosa.yin(frame, fmin=100, fmax=2000, sr=4 * RATE, frame_length=len(frame), center=False)[0]

    pairs = list(zip(recordings, sounds, strict=True))
    return {
        "pitch_cents": np.median([abs(1200 * np.log2(pitch(sound) / pitch(recording))) for recording, sound in pairs]),
        "envelope": np.median([envelope_correlation(recording, sound, RATE) for recording, sound in pairs]),
        "level_db": np.median([abs(level_db(recording, sound)) for recording, sound in pairs]),
    }


def test_figures_are_those_of_librosa_and_numpy():
    random = np.random.default_rng(0)
    recordings = [note(pitch) for pitch in NOTES]
    detuned = [note(pitch * 2 ** (random.uniform(20, 60) / 1200)) for pitch in NOTES]
    sounds = [random.uniform(0.5, 0.9) * sound + 0.1 * noise(1) for sound in detuned]
    found, expected = compare(recordings, sounds, RATE), oracle(recordings, sounds)
    assert found["envelope"] == pytest.approx(expected["envelope"], abs=1e-9)
    assert found["level_db"] == pytest.approx(expected["level_db"], abs=1e-9)
    assert found["pitch_cents"] == pytest.approx(expected["pitch_cents"], abs=2)
    assert 30 < found["pitch_cents"] < 50


@pytest.mark.parametrize("rate", [16_000, 48_000])
@pytest.mark.parametrize("make", [note, functools.partial(sine, level=0.3)])
def test_the_pitch_of_a_note_is_found_and_noise_has_none(rate, make):
    samples = rate // 10
    for pitch in np.geomspace(45, 1500, 20):
        sound = make(pitch, rate=rate, **({"samples": samples} if make is note else {"seconds": 0.1}))
        assert abs(1200 * np.log2(pitch_of(sound, rate) / pitch)) < 1
        assert pitch_of(sound + 0.05 * noise(2, samples), rate) == pytest.approx(pitch, rel=0.01)
    assert [pitch_of(noise(seed, samples), rate) for seed in range(20)] == [None] * 20


@pytest.mark.parametrize(
    "sound",
    [np.zeros(CHUNK), np.full(CHUNK, 0.2), noise(7), note(1900)],
    ids=["silence", "a constant", "noise", "another note"],
)
def test_what_keeps_nothing_has_bad_figures(sound):
    recordings = [note(pitch) for pitch in NOTES]
    found = compare(recordings, [sound] * len(recordings), RATE)
    assert found["pitch_cents"] > 400
    if not np.allclose(sound, note(1900)):
        assert abs(found["envelope"]) < 0.2
        assert found["level_db"] > 2
    copies = compare(recordings, [0.99 * recording for recording in recordings], RATE)
    assert copies["pitch_cents"] < 0.01
    assert copies["envelope"] > 0.9999
    assert copies["level_db"] < 0.1


def test_figures_that_mean_nothing_are_left_out():
    tones, hiss = [sine(pitch, CHUNK / RATE) for pitch in (200, 300)], [noise(seed) for seed in range(3)]
    found = compare([*tones, *hiss, np.zeros(CHUNK)], [*tones, *hiss, noise(9)], RATE)
    assert found["pitch_cents"] is None
    assert found["level_db"] == 0
    assert compare(tones, tones, RATE)["envelope"] is None
    nothing = dict.fromkeys(found)
    assert compare([], [], RATE) == compare([np.zeros(CHUNK)], [noise(1)], RATE) == nothing
    assert sentence(nothing) == sentence({}) == ""
    assert sentence({"level_db": 0.43}) == "a validation sound keeps its level within 0.4 dB"
    figures = {"pitch_cents": 9.2, "envelope": 0.93, "level_db": 0.4}
    alone = {"features_pitch_cents": 2.0, "features_envelope": 0.99, "features_level_db": 0.1}
    assert sentence(figures | alone) == (
        "a validation sound keeps its pitch within 9 cents, its envelope at 0.93, its level within 0.4 dB "
        "(features alone: 2 cents, 0.99, 0.1 dB)"
    )


def test_the_sentence_says_when_there_is_no_pitch_left():
    features = {"features_pitch_cents": 1.2, "features_envelope": 0.991, "features_level_db": 0.04}
    kept = {"pitch_cents": 9.4, "envelope": 0.93, "level_db": 0.41} | features
    assert sentence(kept) == (
        "a validation sound keeps its pitch within 9 cents, its envelope at 0.93, its level within 0.4 dB "
        "(features alone: 1 cent, 0.99, 0.0 dB)"
    )
    assert sentence(kept | {"pitch_cents": 1_200.0, "features_pitch_cents": 614.0}) == (
        "a validation sound loses its pitch, and keeps its envelope at 0.93, its level within 0.4 dB "
        "(features alone: no pitch, 0.99, 0.0 dB)"
    )
    assert sentence({"pitch_cents": 700.0}) == "a validation sound loses its pitch"


def test_chunks_too_short_for_a_pitch_have_none():
    sounds = [note(pitch)[: RATE // 20] for pitch in (220.0, 330.0, 440.0)]
    assert compare(sounds, sounds, RATE)["pitch_cents"] is None
    assert compare(*[[note(220.0)] * 3] * 2, RATE)["pitch_cents"] == pytest.approx(0, abs=1e-6)


@pytest.fixture
def notes(tmp_path):
    """A folder of decaying notes, one chunk long."""
    for number, pitch in enumerate(NOTES):
        for level in (0.9, 0.4):
            write(tmp_path / "notes" / f"{number:02d}-{level}.wav", level * note(pitch), subtype="PCM_24")
    return tmp_path / "notes"


def small(channels=2, **changes):
    return config_of(channels, **({"latent_dim": 16, "epochs": 2, "batch_size": 8, "val_fraction": 0.25} | changes))


def lines_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_training_measures_what_its_instrument_keeps_of_the_recordings(notes, tmp_path):
    result = train_alone(notes, tmp_path / "run", small())
    instrument = Instrument.load(tmp_path / "run", "cpu")
    held_out = CachedSpectrogramDataset(slot_of(notes), "val", 0.25)
    rows = held_out.rows(range(len(held_out))).numpy()
    chunks = np.concatenate([chunks_by_hand(path) for path in sorted(notes.glob("*.wav"))])
    features = instrument.features(chunks[:, None])
    stats = held_out.normalization_stats
    magnitude = (features[:, 0].numpy() - stats["mag_mean"]) / stats["mag_std"]
    nearest = [int(np.abs(magnitude - row[0]).mean(axis=(1, 2)).argmin()) for row in rows]
    recordings = chunks[nearest]

    def played(rows):
        return [np.concatenate(list(instrument.to_sound([row], CHUNK))) for row in rows]

    through = oracle(recordings, played(instrument.decode(instrument.encode(features[nearest]))))
    alone = oracle(recordings, played(features[nearest]))
    found = result.heard
    assert found["epoch"] == 2
    # In what went through a model, the partials are no exact multiples, so that estimates of one pitch differ.
    for prefix, expected, cents in (("", through, 20), ("features_", alone, 5)):
        assert found[f"{prefix}envelope"] == pytest.approx(expected["envelope"], abs=0.01)
        assert found[f"{prefix}level_db"] == pytest.approx(expected["level_db"], abs=0.2)
        assert found[f"{prefix}pitch_cents"] == pytest.approx(expected["pitch_cents"], abs=cents)
    assert found["features_envelope"] > 0.98
    assert found["features_pitch_cents"] < 10
    assert found.items() <= lines_of(tmp_path / "run")[-1].items()


@pytest.mark.parametrize("channels", [2, 1])
def test_the_originals_beside_previews_are_the_recordings(notes, tmp_path, channels):
    train_alone(notes, tmp_path / "run", small(channels, epochs=1, preview_epochs=1))
    folder = tmp_path / "run" / "previews" / "epoch-001"
    chunks = np.concatenate([chunks_by_hand(path) for path in sorted(notes.glob("*.wav"))])
    for number in range(1, 5):
        original, other = (
            soundfile.read(folder / f"{kind}-{number}.wav")[0] for kind in ("original", "reconstruction")
        )
        distances = np.abs(chunks - original).max(axis=1)
        assert distances.min() < 2**-14
        pitches = np.repeat(NOTES, 2)
        assert pitch_of(original[:1600], RATE) == pytest.approx(pitches[distances.argmin()], rel=0.005)
        assert envelope_correlation(original, other, RATE) > 0.8


@pytest.mark.parametrize("lost", ["some", "all"])
def test_recordings_that_are_gone_end_no_training(notes, tmp_path, caplog, lost):
    """After preprocessing, some files are removed or replaced, or all of them are."""
    cache = tmp_path / "cache"
    train_alone(notes, tmp_path / "whole", small(epochs=1), cache_dir=cache)
    whole = lines_of(tmp_path / "whole")[-1]

    def remove(event):
        if event.kind == "start":
            for number, path in enumerate(sorted(notes.glob("*.wav"))):
                if lost == "all" or number % 3 == 0:
                    path.unlink()
                    if number % 2:
                        write(path, noise(number), subtype="PCM_24")

    result = train_alone(notes, tmp_path / "run", small(epochs=1, preview_epochs=1), cache_dir=cache, on_event=remove)
    assert result.status == "finished"
    assert re.search(
        r"\d+ recordings? cannot be compared with the model:\n  \S+\.wav: (no such file|has changed)", caplog.text
    )
    (line,) = lines_of(tmp_path / "run")
    assert line["spectral_convergence"] == whole["spectral_convergence"]
    originals = list((tmp_path / "run" / "previews" / "epoch-001").glob("original-*.wav"))
    if lost == "all":
        assert result.heard is None
        assert line["envelope"] is line["level_db"] is None
        assert not originals
    else:
        assert 0.5 < result.heard["envelope"] <= 1


def test_the_command_ends_with_the_line_in_plain_words(notes, tmp_path, run):
    (tmp_path / "config.toml").write_text(config_to_toml(small()))
    code, out, _ = run("train", notes, "--out", tmp_path / "run", "--config", tmp_path / "config.toml", "--no-analyze")
    assert code == 0
    figures = lines_of(tmp_path / "run")[-1]
    (line,) = re.findall(r"^validation R²: .*\n(a validation sound keeps .*)$", out, re.MULTILINE)
    assert f"its pitch within {figures['pitch_cents']:.0f} cents, " in line
    assert f"its envelope at {figures['envelope']:.2f}, its level within {figures['level_db']:.1f} dB" in line
    assert f"(features alone: {figures['features_pitch_cents']:.0f} cents, " in line


def test_the_quality_is_drawn_from_its_first_measured_epoch(notes, tmp_path, monkeypatch):
    """Not only at the next time at which pictures are due, or at the end."""
    monkeypatch.setattr(reports, "_STEPS_BETWEEN", 10)
    there = {}

    def look(event):
        if event.kind == "step":
            there[event.values["epoch"]] = (tmp_path / "run" / "quality.png").exists()

    train_alone(notes, tmp_path / "run", small(epochs=4), on_event=look)
    assert [line["epoch"] for line in lines_of(tmp_path / "run") if "prior_frechet" in line] == [2, 4]
    assert there == {1: False, 2: False, 3: True, 4: True}
