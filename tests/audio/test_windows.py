"""Overlapping windows of a file, compared with slices of its samples."""

from __future__ import annotations

import re

import numpy as np
import pytest

from distill.audio.chunking import Chunks
from distill.audio.windows import WindowedFile
from distill.errors import AudioFileError
from sounds import RATE, let_blocks_be_small, noise, sine, write

SIZE, STEP = 1000, 700


def read(file: WindowedFile, count: int, size: int = 3) -> tuple[np.ndarray, np.ndarray]:
    batches = list(file.batches(count, size))
    assert all(len(batch.levels) == len(batch.waveforms) <= size for batch in batches)
    return np.concatenate([b.waveforms for b in batches])[:, 0], np.concatenate([b.levels for b in batches])


@pytest.fixture
def samples() -> np.ndarray:
    """Noise that gets louder, longer than a block of the decoder."""
    return (noise(3, 150_000, 0.5) * np.linspace(0.1, 1, 150_000)).astype(np.float32)


@pytest.mark.parametrize("step", [STEP, SIZE, 1300])
def test_windows_are_slices_scaled_by_the_files_peak(tmp_path, samples, step):
    file = WindowedFile(write(tmp_path / "a.wav", samples), RATE, SIZE, step, "file")
    assert (file.samples, file.peak) == (150_000, np.abs(samples).max())
    count = 150_000 // step + 3
    windows, levels = read(file, count)
    assert windows.shape == (count, SIZE)
    padded = np.pad(samples / file.peak, (0, 5 * SIZE))
    for number in range(count):
        np.testing.assert_allclose(windows[number], padded[number * step :][:SIZE], atol=1e-6)
    # Windows beyond the end are silent.
    assert levels.tolist() == [float(number * step < 150_000) for number in range(count)]


def test_levels_undo_the_normalisation_per_window(tmp_path, samples):
    file = WindowedFile(write(tmp_path / "a.wav", samples), RATE, SIZE, STEP, "chunk")
    windows, levels = read(file, 50)
    np.testing.assert_allclose(np.abs(windows).max(axis=1), 1, rtol=1e-6)
    for number in range(50):
        back = windows[number] * levels[number] * file.peak
        np.testing.assert_allclose(back, samples[number * STEP :][:SIZE], atol=1e-6)


def test_windows_without_normalisation_are_the_samples(tmp_path, samples):
    file = WindowedFile(write(tmp_path / "a.wav", samples), RATE, SIZE, STEP, "none")
    windows, levels = read(file, 2)
    np.testing.assert_array_equal(windows[1], samples[STEP:][:SIZE])
    assert levels.tolist() == [1, 1]


def test_windows_60_db_below_the_peak_count_as_silent(tmp_path):
    samples = np.concatenate([sine(200, 0.1), 1e-4 * sine(200, 0.2)])
    _, levels = read(WindowedFile(write(tmp_path / "a.wav", samples), RATE, SIZE, SIZE, "chunk"), 4)
    assert (levels > 0).tolist() == [True, True, False, False]


def test_a_short_file_is_one_padded_window(tmp_path):
    windows, _ = read(WindowedFile(write(tmp_path / "a.wav", [0.5, -0.25]), RATE, SIZE, STEP, "file"), 1)
    assert windows[0, :3].tolist() == [1, -0.5, 0]
    assert not windows[0, 2:].any()


@pytest.mark.parametrize("normalize", ["file", "chunk", "none"])
def test_an_offset_is_removed(tmp_path, samples, normalize):
    shifted = WindowedFile(write(tmp_path / "a.wav", samples + 0.1), RATE, SIZE, STEP, normalize)
    centred = WindowedFile(write(tmp_path / "b.wav", samples - samples.mean()), RATE, SIZE, STEP, normalize)
    assert shifted.offset == pytest.approx(0.1 + samples.mean(), abs=1e-6)
    assert shifted.peak == pytest.approx(centred.peak, abs=1e-6)
    for found, expected in zip(read(shifted, 220), read(centred, 220), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_files_that_cannot_be_used_give_a_reason_and_a_tip(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    opposite = write(tmp_path / "b.wav", np.stack([noise(1), -noise(1)], axis=1), subtype="PCM_24")
    for path, reason, tip in (
        (write(tmp_path / "a.wav", np.zeros(100)), "silent throughout", "can be heard"),
        (write(tmp_path / "c.wav", np.full(RATE, 0.5)), "silent throughout", "can be heard"),
        (opposite, "its channels cancel out", "can be heard"),
        (tmp_path / "none.wav", "no such file", "name"),
        (tmp_path, "a folder", f"{tmp_path}/*.wav"),
        (tmp_path / "text.wav", "not an audio file", "WAV, FLAC"),
    ):
        with pytest.raises(AudioFileError, match=re.escape(f"{path}: {reason}")) as error:
            WindowedFile(path, RATE, SIZE, STEP, "file")
        assert tip in error.value.tip


@pytest.mark.parametrize("normalize", ["file", "chunk", "none"])
@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_a_window_that_starts_where_a_chunk_does_is_the_chunk(tmp_path, monkeypatch, normalize, rate):
    """With the levels and the offset (DC) of the whole file, whose loudest part comes before."""
    let_blocks_be_small(monkeypatch, 700)
    time = np.arange(2 * rate) / rate
    sound = 0.1 + 0.6 * np.exp(-2 * time) * np.sin(2 * np.pi * 300 * time)
    path = write(tmp_path / "a.wav", sound, rate)
    file, chunks = WindowedFile(path, RATE, SIZE, STEP, normalize), list(Chunks(path, RATE, SIZE, normalize))
    assert len(chunks) == -(-2 * RATE // SIZE)
    for number, chunk in enumerate(chunks):
        later = file.starting_at(number * SIZE / RATE)
        (window,), _ = read(later, 1)
        np.testing.assert_array_equal(window, chunk)
        assert later.samples == 2 * RATE - number * SIZE
    assert abs(np.mean(chunks)) < 0.01 < np.std(chunks)
    # The windows after it follow at the same step.
    for found, expected in zip(read(file.starting_at(2 * STEP / RATE), 30), read(file, 32), strict=True):
        np.testing.assert_array_equal(found, expected[2:])


def test_what_is_left_of_a_file_may_be_a_sample_but_not_nothing(tmp_path):
    path = write(tmp_path / "a.wav", noise(1, 3 * SIZE))
    file = WindowedFile(path, RATE, SIZE, STEP, "none")
    last = file.starting_at((3 * SIZE - 1) / RATE)
    assert last.samples == 1
    (window,), _ = read(last, 1)
    assert window[0] == np.float32(noise(1, 3 * SIZE)[-1]) != 0
    assert not window[1:].any()
    length = 3 * SIZE / RATE
    for offset in (length, 1e6):
        with pytest.raises(AudioFileError, match=re.escape(f"{path}: is {length:.3f} s long")) as error:
            file.starting_at(offset)
        assert f"offset of {offset:g} s" in str(error.value)
        assert "offset" in error.value.tip


@pytest.mark.parametrize("normalize", ["file", "chunk", "none"])
@pytest.mark.parametrize("level", [9e-5, 1.1e-4, 9e-4, 2e-3])
def test_a_file_counts_as_silent_exactly_if_it_has_no_chunks(tmp_path, normalize, level):
    path = write(tmp_path / "a.wav", sine(200, 1.0, level=level))
    if list(Chunks(path, RATE, SIZE, normalize)):
        assert WindowedFile(path, RATE, SIZE, STEP, normalize).peak == pytest.approx(level, rel=0.01)
    else:
        with pytest.raises(AudioFileError, match="silent throughout"):
            WindowedFile(path, RATE, SIZE, STEP, normalize)
