"""Chunks, compared with slices of the samples that soundfile reads."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
from contextlib import closing

import numpy as np
import pytest
import soundfile

from distill.audio import chunking, spool
from distill.audio.chunking import Chunks
from distill.audio.readers.protocol import ByteSource
from distill.errors import AudioFileError, StorageError
from sounds import let_blocks_be_small, noise, sine, write

RATE, CHUNK = 16_000, 4_000


def expected(path, normalize, chunk_samples=CHUNK, rate=RATE):
    """Return all chunks of a file at `rate`, including silent ones, cut and scaled with numpy."""
    samples, found = soundfile.read(path, dtype="float32", always_2d=True)
    assert found == rate
    mono = samples.mean(axis=1)
    if normalize == "file":
        mono = mono / np.abs(mono).max()
    chunks = np.pad(mono, (0, -len(mono) % chunk_samples)).reshape(-1, chunk_samples)
    return chunks / np.abs(chunks).max(axis=1, keepdims=True) if normalize == "chunk" else chunks


def scaled_noise(*peaks):
    """Return one chunk of noise for each peak, and half a chunk at the end."""
    parts = [noise(seed, CHUNK, peak) for seed, peak in enumerate(peaks)]
    return np.concatenate([*parts, noise(99, CHUNK // 2, peaks[0])])


@pytest.mark.parametrize("normalize", ["file", "chunk", "none"])
@pytest.mark.parametrize("channels", [1, 2])
def test_chunks_are_slices_scaled_to_full_scale(tmp_path, normalize, channels):
    samples = np.stack([scaled_noise(0.1, 0.5, 0.02)] * channels, axis=1)
    samples[:, -1] *= 0.7
    path = write(tmp_path / "a.wav", samples)
    chunks = list(Chunks(path, RATE, CHUNK, normalize))
    assert all(chunk.shape == (CHUNK,) and chunk.dtype == np.float32 for chunk in chunks)
    np.testing.assert_allclose(np.stack(chunks), expected(path, normalize), atol=2e-7)


def test_peaks_after_normalisation(tmp_path):
    path = write(tmp_path / "a.wav", scaled_noise(0.1, 0.5, 0.02))
    peaks = {
        kind: [np.abs(chunk).max() for chunk in Chunks(path, RATE, CHUNK, kind)] for kind in ("file", "chunk", "none")
    }
    assert peaks["file"][:3] == pytest.approx([0.2, 1, 0.04], rel=1e-6)
    assert peaks["chunk"] == pytest.approx([1] * 4, rel=1e-6)
    assert peaks["none"][:3] == pytest.approx([0.1, 0.5, 0.02], rel=1e-6)


def test_a_negative_peak_counts(tmp_path):
    samples = noise(1, CHUNK, 0.1)
    samples[7] = -0.8
    chunk = next(iter(Chunks(write(tmp_path / "a.wav", samples), RATE, CHUNK)))
    assert chunk.min() == pytest.approx(-1)
    assert chunk.max() < 0.2


def test_floats_beyond_full_scale_are_scaled_down_to_it(tmp_path):
    path = write(tmp_path / "a.wav", noise(1, CHUNK, 12.0))
    assert np.abs(next(iter(Chunks(path, RATE, CHUNK)))).max() == pytest.approx(1)


def test_the_last_chunk_is_padded_with_zeros(tmp_path):
    path = write(tmp_path / "a.wav", noise(1, CHUNK + 1_500))
    first, last = Chunks(path, RATE, CHUNK)
    assert np.abs(first[-100:]).max() > 0
    assert np.abs(last[:1_500]).max() > 0
    assert not last[1_500:].any()


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_number_of_chunks(tmp_path, length):
    path = write(tmp_path / "a.wav", noise(1, length) + 0.3)
    assert len(list(Chunks(path, RATE, CHUNK))) == -(-length // CHUNK)


@pytest.mark.parametrize(("peak", "kept"), [(1.01e-3, True), (0.99e-3, False)])
@pytest.mark.parametrize("normalize", ["file", "none"])
def test_silence_is_below_minus_60_dbfs(tmp_path, peak, kept, normalize):
    """On both sides of the limit, after normalisation: with "file" the peak of the loudest chunk is 0 dBFS."""
    loudest = 0.25 if normalize == "file" else 1.0
    parts = [noise(1, CHUNK, loudest), noise(2, CHUNK, peak * loudest), noise(3, CHUNK, loudest / 2)]
    chunks = Chunks(write(tmp_path / "a.wav", np.concatenate(parts)), RATE, CHUNK, normalize)
    found = list(chunks)
    assert len(found) == 2 + kept
    assert chunks.silent == 1 - kept
    # The order is kept, and only the silent chunk is missing.
    assert [np.abs(chunk).max() for chunk in (found[0], found[-1])] == pytest.approx([1, 0.5], rel=1e-5)


def test_with_normalisation_per_chunk_only_a_chunk_without_signal_is_silent(tmp_path):
    parts = [noise(1, CHUNK, 1.01e-4), np.zeros(CHUNK), noise(2, CHUNK, 0.99e-4)]
    chunks = Chunks(write(tmp_path / "a.wav", np.concatenate(parts)), RATE, CHUNK, "chunk")
    (found,) = chunks
    assert np.abs(found).max() == pytest.approx(1)
    assert chunks.silent == 2


@pytest.mark.parametrize("normalize", ["file", "chunk", "none"])
def test_a_silent_file_gives_no_chunks_and_counts_them_as_silent(tmp_path, normalize):
    samples = np.zeros(2 * CHUNK + 5)
    chunks = Chunks(write(tmp_path / "a.wav", samples), RATE, CHUNK, normalize)
    assert list(chunks) == []
    assert chunks.silent == 3


def dither(seed, samples=4 * CHUNK):
    """Return triangular dither of 16 bits, as it is left where a recording is silent."""
    random = np.random.default_rng(seed)
    return np.round(random.random(samples) - random.random(samples)) / 32_768


@pytest.mark.parametrize("normalize", ["file", "chunk", "none"])
def test_dither_is_no_signal(tmp_path, normalize):
    """Also if it is left by two channels that cancel out, or beside an offset."""
    left = np.round(32_767 * noise(1, 4 * CHUNK, 0.9)) / 32_768
    for name, samples in {
        "alone": dither(1),
        "cancelled": np.stack([left + dither(1), -left + dither(2)], axis=1),
        "offset": 0.25 + dither(1),
    }.items():
        path = write(tmp_path / f"{name}.wav", samples, subtype="PCM_16")
        chunks = Chunks(path, RATE, CHUNK, normalize)
        assert list(chunks) == []
        assert chunks.silent == 4
        assert re.search(r"silent throughout: .*its peak is -(84|90) dBFS", chunks.levels.silence)


@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT"])
@pytest.mark.parametrize("peak_db", [-60, -78])
def test_a_faint_recording_is_normalised(tmp_path, subtype, peak_db):
    samples = noise(1, 4 * CHUNK, 10 ** (peak_db / 20))
    chunks = np.concatenate(list(Chunks(write(tmp_path / "a.wav", samples, subtype=subtype), RATE, CHUNK)))
    assert np.abs(chunks).max() == pytest.approx(1)
    assert np.corrcoef(chunks, samples)[0, 1] > 0.9999


@pytest.mark.parametrize("offset", [0.5, -1e-2, 1.0])
@pytest.mark.parametrize("normalize", ["file", "chunk", "none"])
def test_a_constant_is_silent(tmp_path, normalize, offset):
    for samples in (CHUNK, 3 * CHUNK + 5):
        chunks = Chunks(write(tmp_path / "a.wav", np.full(samples, offset)), RATE, CHUNK, normalize)
        assert list(chunks) == []
        assert f"constant offset (DC) of {round(20 * np.log10(abs(offset)))} dBFS" in chunks.levels.silence


@pytest.mark.parametrize("memory", [10_000, 1 << 30])
@pytest.mark.parametrize("normalize", ["file", "chunk", "none"])
@pytest.mark.parametrize("offset", [0.02, -0.3])
def test_an_offset_is_removed_before_normalisation(tmp_path, monkeypatch, normalize, offset, memory):
    """The chunks are those of the file less its mean; what is silent but for the offset is silent."""
    monkeypatch.setattr(spool, "MEMORY_BYTES", memory)
    let_blocks_be_small(monkeypatch, 5_000)
    samples = np.concatenate([scaled_noise(0.2, 0.1), np.zeros(CHUNK // 2 + CHUNK), sine(300, 0.6, level=0.1)])
    assert len(samples) % CHUNK
    shifted = write(tmp_path / "shifted.wav", samples + offset)
    centred = write(tmp_path / "centred.wav", samples - samples.mean())
    chunks = Chunks(shifted, RATE, CHUNK, normalize)
    found = np.stack(list(chunks))
    np.testing.assert_allclose(found, np.stack(list(Chunks(centred, RATE, CHUNK, normalize))), atol=1e-6)
    assert chunks.silent == 1
    assert chunks.levels.offset == pytest.approx(offset + samples.mean(), abs=1e-6)
    assert not found[-1, -10:].any()


def kick(seconds):
    """Return a drum whose mean is not 0, although it has no offset: its tail is at 0."""
    time = np.arange(round(seconds * RATE)) / RATE
    return np.exp(-8 * time) * np.sin(2 * np.pi * (50 * time + 5 * (1 - np.exp(-30 * time))))


@pytest.mark.parametrize(
    "samples", [kick(0.3), kick(2.0), noise(3, 9 * CHUNK), sine(31.7, 2.1), np.exp(-np.arange(CHUNK) / 400)]
)
def test_a_sound_whose_mean_is_no_offset_keeps_its_bits(tmp_path, samples):
    path = write(tmp_path / "a.wav", samples)
    (first, *_), peak = Chunks(path, RATE, CHUNK), np.float32(np.abs(samples.astype(np.float32)).max())
    count = min(len(samples), CHUNK)
    np.testing.assert_array_equal(first[:count], samples.astype(np.float32)[:count] * np.float32(1 / float(peak)))


def test_iterating_again_starts_counting_from_zero(tmp_path):
    chunks = Chunks(write(tmp_path / "a.wav", np.concatenate([noise(1, CHUNK), np.zeros(CHUNK)])), RATE, CHUNK)
    first, second = list(chunks), list(chunks)
    np.testing.assert_array_equal(first, second)
    assert chunks.silent == 1


@pytest.mark.parametrize("source_rate", [16_000, 44_100])
@pytest.mark.parametrize("room", ["memory and disk", "disk", "none"])
def test_the_chunks_have_the_same_bits_wherever_the_samples_are_kept(tmp_path, monkeypatch, source_rate, room):
    """A file is decoded once, and twice only if neither memory nor the disk has enough room."""
    path = write(tmp_path / "a.flac", noise(1, 90_000), source_rate, "PCM_24")
    let_blocks_be_small(monkeypatch, 10_000)
    held = np.stack(list(Chunks(path, RATE, CHUNK)))
    assert len(held) > 8
    decoded, decode_blocks = [], chunking.decode_blocks

    def counted(*given, **named):
        decoded.append(given)
        return decode_blocks(*given, **named)

    monkeypatch.setattr(chunking, "decode_blocks", counted)
    monkeypatch.setattr(spool, "MEMORY_BYTES", 100_000 if room == "memory and disk" else 0)
    folder = tmp_path / "spools"
    folder.mkdir()
    if room == "none":
        monkeypatch.setattr(spool.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1 << 40, 1 << 40, 1000))
    for _ in range(2):
        decoded.clear()
        with closing(ByteSource(path)) as source:
            chunks = Chunks(path, RATE, CHUNK, source=source, spool_dir=folder)
            chunks.decode()
            source.digest()
            before = source.bytes_read
            found = np.stack(list(chunks))
            assert source.bytes_read == before == path.stat().st_size
        assert len(decoded) == (2 if room == "none" else 1)
        np.testing.assert_array_equal(found, held)
    assert list(folder.iterdir()) == []


def test_a_callback_ends_decoding_and_cutting(tmp_path, monkeypatch):
    """Within a block, also where no chunk is completed or all are silent."""
    let_blocks_be_small(monkeypatch, 1_000)
    path, calls = write(tmp_path / "a.wav", np.zeros(20_000)), []

    def end_at(count):
        calls.append(count)
        if len(calls) == count:
            raise KeyboardInterrupt

    for count in (7, 27):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            list(Chunks(path, RATE, CHUNK, on_block=lambda count=count: end_at(count)))
        assert len(calls) == count


def test_memory_for_samples_is_given_back(tmp_path, monkeypatch):
    """However a file ends: cut to the end or not, closed, or not decodable to the end."""
    whole = write(tmp_path / "a.wav", noise(1, 6 * CHUNK))
    spoilt = noise(1, 6 * CHUNK)
    spoilt[-1] = np.nan
    bad = write(tmp_path / "bad.wav", spoilt)
    let_blocks_be_small(monkeypatch, CHUNK)
    monkeypatch.setattr(spool, "MEMORY_BYTES", 4 * 6 * CHUNK)
    for _ in range(3):
        next(iter(Chunks(whole, RATE, CHUNK)))
        chunks = Chunks(whole, RATE, CHUNK)
        chunks.decode()
        chunks.close()
        with pytest.raises(AudioFileError, match="NaN"):
            list(Chunks(bad, RATE, CHUNK))
    chunks = Chunks(whole, RATE, CHUNK)
    chunks.decode()
    assert chunks.is_spooled
    assert len(list(chunks)) == 6


def test_a_file_that_changes_between_two_decodes_is_not_used(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", noise(1, 6 * CHUNK))
    monkeypatch.setattr(spool, "MEMORY_BYTES", 0)
    with closing(ByteSource(path)) as source:
        chunks = Chunks(path, RATE, CHUNK, source=source)
        chunks.decode()
        write(path, noise(2, 6 * CHUNK))
        with pytest.raises(AudioFileError, match="changed while it was read"):
            list(chunks)


@pytest.mark.parametrize("free_bytes", [8_000, 15_900])
def test_a_disk_that_fills_up_costs_a_second_decoding_and_no_file(tmp_path, monkeypatch, free_bytes):
    """Also if only the last few samples do not fit."""

    class Full(io.FileIO):
        def write(self, data):
            free = free_bytes - self.tell()
            if free <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data[:free])

    let_blocks_be_small(monkeypatch, 1_000)
    monkeypatch.setattr(spool, "MEMORY_BYTES", 0)
    monkeypatch.setattr(spool.tempfile, "TemporaryFile", lambda **_: Full(tmp_path / "kept", "w+"))
    samples = noise(1, CHUNK)
    chunks = Chunks(write(tmp_path / "a.wav", samples), RATE, CHUNK, "none", spool_dir=tmp_path)
    chunks.decode()
    assert not chunks.is_spooled
    np.testing.assert_allclose(next(iter(chunks)), samples, atol=1e-6)


def test_samples_that_cannot_be_read_back_are_not_the_files_fault(tmp_path, monkeypatch):
    class Failing(io.FileIO):
        def readinto(self, buffer):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(spool, "MEMORY_BYTES", 0)
    monkeypatch.setattr(spool.tempfile, "TemporaryFile", lambda **_: Failing(tmp_path / "kept", "w+"))
    chunks = Chunks(write(tmp_path / "a.wav", noise(1)), RATE, CHUNK, spool_dir=tmp_path)
    with pytest.raises(StorageError, match=re.escape(f"{tmp_path}: what was decoded cannot be read back")):
        list(chunks)
