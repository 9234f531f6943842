"""Atomic writes: planted files, several writers, long names, permissions, and what a killed process leaves."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distill import storage
from distill.audio.sound_file import write_sound
from distill.audio.sound_format import SoundFormat
from distill.index import Manifest
from distill.storage import remove_leftovers, write_atomically
from sounds import RATE, noise

SAMPLES = noise(1).astype(np.float32)
# The longest name that common file systems allow.
LONGEST = "n" * 251 + ".wav"


def write_bytes(path: Path) -> None:
    write_atomically(path, b"new")


def write_samples(path: Path) -> None:
    write_sound(path, [SAMPLES], RATE, SoundFormat(sample_format="pcm16"))


def write_manifest(path: Path) -> None:
    Manifest().save(path)


WRITERS = [write_bytes, write_samples, write_manifest]


@pytest.mark.parametrize("write", WRITERS)
def test_a_name_as_long_as_the_file_system_allows_can_be_written(tmp_path, write):
    write(tmp_path / LONGEST)
    assert [path.name for path in tmp_path.iterdir()] == [LONGEST]
    assert (tmp_path / LONGEST).stat().st_size


@pytest.mark.parametrize("write", WRITERS)
def test_links_with_the_names_of_earlier_temporary_files_are_not_followed(tmp_path, write):
    treasure = tmp_path / "treasure"
    treasure.write_bytes(b"mine")
    folder = tmp_path / "out"
    folder.mkdir()
    names = [".a.wav.partial", ".a.wav.tmp", *(f".a.wav.{os.getpid()}-{number}.tmp" for number in range(50))]
    for name in names:
        (folder / name).symlink_to(treasure)
    write(folder / "a.wav")
    assert treasure.read_bytes() == b"mine"
    assert not (folder / "a.wav").is_symlink()
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, "a.wav"])


@pytest.mark.parametrize("plant", ["file", "link", "dangling link"])
def test_a_planted_file_with_the_very_name_is_neither_used_nor_removed(tmp_path, monkeypatch, plant):
    """An attacker who guesses the random name gains nothing: the writer takes another one."""
    names = iter([bytes(8), b"\x11" * 8])
    monkeypatch.setattr(storage.os, "urandom", lambda n: next(names))
    planted, treasure = tmp_path / f".distill-{'0' * 16}.tmp", tmp_path / "treasure"
    if plant == "file":
        planted.write_bytes(b"mine")
    else:
        planted.symlink_to(treasure)
        if plant == "link":
            treasure.write_bytes(b"mine")
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.path.lexists(planted)
    assert treasure.exists() == (plant == "link")
    assert planted.exists() == (plant != "dangling link")
    assert not planted.exists() or planted.read_bytes() == b"mine"


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path, write, mask):
    before = os.umask(mask)
    try:
        write(tmp_path / "a.wav")
        (tmp_path / "plain").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "a.wav").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("write", WRITERS)
def test_several_writers_of_one_file_all_succeed(tmp_path, write):
    path, failed = tmp_path / "a.wav", []
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        try:
            for _ in range(5):
                write(path)
        except Exception as error:  # noqa: BLE001 - any error is a failure
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert list(tmp_path.iterdir()) == [path]
    if write is write_samples:
        np.testing.assert_allclose(soundfile.read(path)[0], SAMPLES, atol=2**-14)


class Interruption(BaseException):
    pass


@pytest.mark.parametrize("error", [Interruption(), KeyboardInterrupt(), OSError(errno.EIO, "broken")])
def test_an_exception_while_writing_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, error):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fsync(descriptor: int) -> None:
        raise error

    monkeypatch.setattr(storage.os, "fsync", fsync)
    with pytest.raises(type(error)):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


STOPPED = """
import os, signal, sys
from pathlib import Path
from distill.storage import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_was_writing_is_removed_but_not_what_a_running_one_writes(tmp_path):
    command = [sys.executable, "-c", STOPPED, tmp_path / "a"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "writing\n"
        (temporary,) = tmp_path.iterdir()
        remove_leftovers(tmp_path)
        assert list(tmp_path.iterdir()) == [temporary]
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert list(tmp_path.iterdir()) == [temporary]
        remove_leftovers(tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_where_files_cannot_be_locked_a_leftover_is_removed_after_a_day(tmp_path, monkeypatch):
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    write_atomically(tmp_path / "a", b"new")
    old, young = tmp_path / f".distill-{'0' * 16}.tmp", tmp_path / f".distill-{'1' * 16}.tmp"
    for path, age_s in ((old, 25 * 3600), (young, 3600)):
        path.touch()
        os.utime(path, (time.time() - age_s,) * 2)
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a", young])


def test_only_files_with_names_of_distill_are_removed(tmp_path):
    ours = [f".distill-{'ab' * 8}.tmp", ".step-000000012.pt.partial", ".model.safetensors.partial"]
    ours += [".sample-1.wav.partial", ".run.json.partial"]
    others = [".distill-output", ".distill-1.tmp", "distill-0000000000000000.tmp", ".song.wav.partial", "a.partial"]
    others += [f".distill-{'AB' * 8}.tmp", f".distill-{'ab' * 8}.tmp.wav", ".step-12.pt.partial"]
    for name in (*ours, *others):
        (tmp_path / name).touch()
    (tmp_path / f".distill-{'cd' * 8}.tmp").mkdir()
    target = tmp_path / "target"
    target.touch()
    (tmp_path / f".distill-{'ef' * 8}.tmp").symlink_to(target)
    remove_leftovers(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*others, f".distill-{'cd' * 8}.tmp", f".distill-{'ef' * 8}.tmp", "target"}
    remove_leftovers(tmp_path / "none")
