"""Files that change while they are decoded, and threads that are told to stop: what comes of it, and how soon."""

from __future__ import annotations

import os
import signal
import struct
import threading
import time

import numpy as np
import pytest

from distill import _native
from distill.audio import chunking, load_cache_manifest
from distill.index import Dataset
from distill.preprocess.pipeline import preprocess
from sounds import CHUNK, noise, rows_by_path, training, write, write_dataset


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path / "dataset")
    return tmp_path / "dataset"


def overwrite(path, other):
    """Put other bytes into a file, and give what puts the first ones back."""
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


def lead_elsewhere(path, other):
    """For a link within the dataset."""
    target = path.readlink()
    path.unlink()
    path.symlink_to(os.path.relpath(other, path.parent))

    def restore():
        path.unlink()
        path.symlink_to(target)

    return restore


@pytest.mark.parametrize("swap", [overwrite, rename_over, lead_elsewhere])
@pytest.mark.parametrize("spoilt", [False, True])
def test_other_bytes_that_are_gone_again_are_not_taken_for_the_file(dataset, monkeypatch, swap, spoilt):
    """The hash before and after is that of the file, what was decoded in between is not."""
    expected = rows_by_path(preprocess(Dataset(dataset, cache_dir=dataset.with_name("whole")), training()).cache_dir)
    path = dataset / "sound-1.wav"
    other = write(dataset.with_name("other.wav"), noise(80, 2 * CHUNK), subtype="PCM_16")
    if spoilt:
        other.write_bytes(other.read_bytes()[:-5_000])
    if swap is lead_elsewhere:
        path.rename(dataset / "a hidden one")
        path.symlink_to("a hidden one")
    decode_blocks, swapped = chunking.decode_blocks, []

    def replaced(name, rate):
        if not name.endswith("sound-1.wav"):
            yield from decode_blocks(name, rate)
            return
        restore = swap(path, other)
        swapped.append(name)
        try:
            yield from decode_blocks(name, rate)
        finally:
            restore()

    with monkeypatch.context() as patch:
        patch.setattr(chunking, "decode_blocks", replaced)
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
    """A WAV whose samples are a hole in the file."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    with path.open("wb") as file:
        file.write(struct.pack("<4sI4s", b"RIFF", 36 + 2 * samples, b"WAVE") + form)
        file.write(struct.pack("<4sI", b"data", 2 * samples))
        file.truncate(44 + 2 * samples)


@pytest.mark.parametrize("phase", ["peak", "silence", "hash"])
def test_ctrl_c_is_answered_at_once_where_nothing_is_said_for_long(dataset, monkeypatch, phase):
    """In the search for a peak in a day of sound, in a day of silence, and in the second hash of an endless file."""
    config = training(normalize="file" if phase == "peak" else "none")
    preprocess(dataset, config)
    write_silence(dataset / "long.wav", RATE if phase == "hash" else DAY_S * RATE)
    decode_blocks, hash_file = chunking.decode_blocks, _native.hash_file
    pressed, ended = [], []

    def press() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    def first_block(path, rate):
        blocks = decode_blocks(path, rate)
        yield next(blocks)
        threading.Timer(0.2, press).start()
        yield from blocks

    def hash_again(path, *given):
        threading.Timer(0.2, press).start()
        return hash_file("/dev/zero", *given)

    if phase == "hash":
        monkeypatch.setattr(_native, "hash_file", hash_again)
    else:
        monkeypatch.setattr(chunking, "decode_blocks", first_block)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - nor must it come when there is nothing to interrupt
        preprocess(dataset, config)
        ended.append(phase)
        time.sleep(1)
    waited = time.monotonic() - pressed[0]
    assert (len(pressed), ended) == (1, [])
    # 0.2 is promised; the rest is for a machine that is busy. Left alone, each phase takes seconds.
    assert waited < 0.6, waited
    assert len(load_cache_manifest(dataset / ".cache")["files"]) == 5
