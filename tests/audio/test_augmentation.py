"""Augmentation: reproducible draws, each within its range; each augmentation tested separately."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from distill.audio.augmentation import check_available, variant
from distill.config import AugmentationConfig
from distill.errors import ConfigError
from sounds import noise, sine

RATE = 16_000
HASH = bytes(range(32))
OFF = {"gain_db": 0.0, "noise_db": 0.0, "speed": 0.0, "pitch_semitones": 0.0, "time_shift_s": 0.0}


def config(**ranges) -> AugmentationConfig:
    return AugmentationConfig(**(OFF | ranges))


def make(chunk, ranges: AugmentationConfig, number=1, chunk_index=0, content=HASH):
    made = variant(chunk.astype(np.float32), ranges, RATE, content, chunk_index, number)
    assert made.shape == chunk.shape
    assert made.dtype == np.float32
    return made


def frequency(samples) -> float:
    """Return the frequency of the strongest sine, Hz, interpolated between bins."""
    spectrum = np.log(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) + 1e-12)
    peak = int(spectrum.argmax())
    left, middle, right = spectrum[peak - 1 : peak + 2]
    return (peak + (left - right) / (2 * (left - 2 * middle + right))) * RATE / len(samples)


def test_equal_seeds_give_equal_bits_and_the_chunk_is_not_modified():
    chunk = noise(1, RATE).astype(np.float32)
    before = chunk.copy()
    ranges = AugmentationConfig(pitch_semitones=2.0)
    np.testing.assert_array_equal(make(chunk, ranges), make(chunk, ranges))
    np.testing.assert_array_equal(chunk, before)


@pytest.mark.parametrize("other", [{"number": 2}, {"chunk_index": 1}, {"content": HASH[::-1]}])
def test_another_variant_chunk_or_content_gives_another_result(other):
    chunk = noise(1, RATE)
    for ranges in (
        AugmentationConfig(),
        *(
            config(**{name: 10.0 if "_db" in name else 0.1})
            for name in ("gain_db", "noise_db", "speed", "time_shift_s")
        ),
    ):
        assert np.abs(make(chunk, ranges) - make(chunk, ranges, **other)).max() > 1e-4


def test_with_everything_off_the_variant_is_the_chunk():
    chunk = noise(1, RATE).astype(np.float32)
    np.testing.assert_array_equal(make(chunk, config()), chunk)


def test_gain_lies_between_its_limit_and_0_db():
    chunk = noise(1, 1_000)
    gains = []
    for number in range(1, 201):
        ratio = make(chunk, config(gain_db=12.0), number) / chunk
        assert ratio.std() < 1e-6
        gains.append(20 * np.log10(ratio.mean()))
    assert -12.001 <= min(gains) < -11
    assert -1 < max(gains) <= 0.001
    # Uniformly drawn: the mean of 200 draws is within 4 standard errors.
    assert np.mean(gains) == pytest.approx(-6, abs=4 * 12 / np.sqrt(12 * 200))


def test_noise_is_30_to_50_db_below_the_chunk():
    chunk = sine(440, 1.0)
    ratios = []
    for number in range(1, 101):
        added = make(chunk, config(noise_db=30.0), number) - chunk
        ratios.append(10 * np.log10(np.square(chunk).mean() / np.square(added).mean()))
        assert abs(added.mean()) < 5 * added.std() / np.sqrt(len(added))
    assert 29.5 < min(ratios) < 33
    assert 47 < max(ratios) < 50.5
    spectrum = np.abs(np.fft.rfft(added)) ** 2
    low, high = spectrum[10:4_000].mean(), spectrum[4_000:7_990].mean()
    assert low == pytest.approx(high, rel=0.2)


def test_speed_changes_pitch_and_duration_by_the_same_factor():
    chunk = sine(1_000, 1.0)
    factors = []
    for number in range(1, 61):
        made = make(chunk, config(speed=0.1), number)
        ended = np.flatnonzero(np.abs(made) > 1e-3)[-1] + 1
        factor = frequency(made[200 : ended - 200]) / 1_000
        assert ended == pytest.approx(min(len(chunk), len(chunk) / factor), abs=20)
        factors.append(factor)
    assert 0.899 < min(factors) < 0.92
    assert 1.08 < max(factors) < 1.101


def test_pitch_shift_does_not_change_the_tempo():
    envelope = np.zeros(RATE)
    envelope[6_000:10_000] = np.hanning(4_000)
    made_at, semitones = [], []
    for number in range(1, 21):
        tone = make(sine(1_000, 1.0), config(pitch_semitones=4.0), number)
        semitones.append(12 * np.log2(frequency(tone[4_000:12_000]) / 1_000))
        blip = make(sine(1_000, 1.0) * envelope, config(pitch_semitones=4.0), number)
        made_at.append(np.average(np.arange(RATE), weights=blip**2))
    assert -4.05 < min(semitones) < -2.5
    assert 2.5 < max(semitones) < 4.05
    # The middle of the sound stays where it was, to 10 ms.
    np.testing.assert_allclose(made_at, 8_000, atol=160)


def test_a_time_shift_moves_the_samples_and_fills_with_zeros():
    chunk = noise(1, RATE).astype(np.float32)
    shifts = []
    for number in range(1, 101):
        made = make(chunk, config(time_shift_s=0.1), number)
        used = np.flatnonzero(made)
        shift = used[0] if used[0] else used[-1] + 1 - RATE
        moved = np.zeros_like(chunk)
        moved[max(0, shift) : RATE + min(0, shift)] = chunk[max(0, -shift) : RATE - max(0, shift)]
        np.testing.assert_array_equal(made, moved)
        shifts.append(shift / RATE)
    assert -0.1 <= min(shifts) < -0.09
    assert 0.09 < max(shifts) <= 0.1


def test_a_time_shift_longer_than_the_chunk_keeps_half_of_it():
    chunk = noise(1, 1_000) + 1
    for number in range(1, 21):
        assert np.count_nonzero(make(chunk, config(time_shift_s=60.0), number)) >= 500


def test_turning_one_augmentation_off_does_not_change_the_others():
    chunk = noise(1, RATE).astype(np.float32)
    gain = (make(chunk, config(gain_db=6.0)) / chunk).mean()
    shifted = make(chunk, config(time_shift_s=0.1))
    both = make(chunk, config(gain_db=6.0, time_shift_s=0.1))
    np.testing.assert_allclose(both, shifted * gain, rtol=1e-6)
    noisy = make(chunk, config(noise_db=20.0)) - chunk
    noisy_and_soft = make(chunk, config(noise_db=20.0, gain_db=6.0)) - chunk * gain
    np.testing.assert_allclose(noisy_and_soft, noisy * gain, atol=1e-6)


def test_variants_never_clip():
    chunk = (noise(1, RATE, 1.0)).astype(np.float32)
    for number in range(1, 21):
        made = make(chunk, config(gain_db=6.0, time_shift_s=0.1), number)
        assert 0.4 < np.abs(made).max() <= 1


def test_pitch_shift_without_python_stretch_says_what_to_install(monkeypatch):
    check_available(config(pitch_semitones=2.0))
    monkeypatch.setitem(sys.modules, "python_stretch", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="python-stretch") as caught:
        check_available(config(pitch_semitones=2.0))
    assert "pip install" in caught.value.tip
    check_available(AugmentationConfig())
