"""Files that change while they are decoded, and how soon worker threads stop after Ctrl-C."""

from __future__ import annotations

import os
import signal
import struct
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from distill.audio import load_cache_manifest
from distill.index import Dataset
from distill.preprocess.pipeline import preprocess
from sounds import CHUNK, around_decoding, noise, rows_by_path, training, write, write_dataset


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path / "dataset")
    return tmp_path / "dataset"


def overwrite(path, other):
    """Overwrite a file with the bytes of another; return a function that restores it."""
    first, stamps = path.read_bytes(), path.stat()
    path.write_bytes(other.read_bytes())

    def restore():
        path.write_bytes(first)
        os.utime(path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))

    return restore


def rename_over(path, other):
    aside = path.with_name("aside")
    path.rename(aside)
    path.write_bytes(other.read_bytes())
    return lambda: aside.rename(path)


def retarget_link(path, other):
    """Change the target of a link within the dataset; return a function that restores it."""
    target = path.readlink()
    path.unlink()
    path.symlink_to(os.path.relpath(other, path.parent))

    def restore():
        path.unlink()
        path.symlink_to(target)

    return restore


@pytest.mark.parametrize("swap", [overwrite, rename_over, retarget_link])
@pytest.mark.parametrize("is_truncated", [False, True])
def test_a_file_that_had_other_bytes_only_while_it_was_decoded_is_not_used(dataset, monkeypatch, swap, is_truncated):
    """Its hash is the same before and after decoding, but other bytes were decoded."""
    expected = rows_by_path(preprocess(Dataset(dataset, cache_dir=dataset.with_name("whole")), training()).cache_dir)
    path = dataset / "sound-1.wav"
    other = write(dataset.with_name("other.wav"), noise(80, 2 * CHUNK), subtype="PCM_16")
    if is_truncated:
        other.write_bytes(other.read_bytes()[:-5_000])
    if swap is retarget_link:
        path.rename(dataset / "hidden")
        path.symlink_to("hidden")
    swapped = []

    @contextmanager
    def replaced(name):
        if not name.endswith("sound-1.wav"):
            yield
            return
        restore = swap(path, other)
        swapped.append(name)
        try:
            yield
        finally:
            restore()

    with monkeypatch.context() as patch:
        around_decoding(patch, replaced)
        result = preprocess(dataset, training())
    assert swapped
    assert result.skipped == [("sound-1.wav", "changed while it was read")]
    again = preprocess(dataset, training())
    assert (again.decoded, again.skipped) == (1, [])
    found = rows_by_path(again.cache_dir)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], rows) for name, rows in expected.items())


RATE = 8_000
DAY_S = 24 * 3600


def write_silence(path, samples: int) -> None:
    """Write a WAV file whose samples are a hole in a sparse file."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    with path.open("wb") as file:
        file.write(struct.pack("<4sI4s", b"RIFF", 36 + 2 * samples, b"WAVE") + form)
        file.write(struct.pack("<4sI", b"data", 2 * samples))
        file.truncate(44 + 2 * samples)


@pytest.mark.parametrize("phase", ["decode", "hash"])
def test_ctrl_c_stops_a_long_phase_without_progress_reports_at_once(dataset, monkeypatch, phase):
    """While a day of audio is decoded, and while a file that cannot be decoded is hashed to its end."""
    config = training()
    preprocess(dataset, config)
    write_silence(dataset / "long.wav", DAY_S * RATE)
    if phase == "hash":
        with (dataset / "long.wav").open("r+b") as file:
            file.write(b"RIFF....WAVE....")
            file.truncate(32 << 30)
    pressed, ended = [], []

    def press() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    @contextmanager
    def pressing(path):
        timer = threading.Timer(0.3, press)
        if phase == "decode":
            timer.start()
        try:
            yield
        finally:
            if phase == "hash":
                timer.start()

    around_decoding(monkeypatch, pressing)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - an interrupt that comes too late must not count
        preprocess(dataset, config)
        ended.append(phase)
        time.sleep(1)
    waited = time.monotonic() - pressed[0]
    assert (len(pressed), ended) == (1, [])
    # 0.2 s is promised; the rest is for a busy machine. Without Ctrl-C each phase takes seconds.
    assert waited < 0.6, waited
    assert len(load_cache_manifest(dataset / ".cache")["files"]) == 5
