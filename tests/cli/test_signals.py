"""What commands do at SIGTERM, which ends a job of a queue, and at SIGHUP, of a closed terminal."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from distill.cli.main import main
from distill.cli.progress import ProgressView
from sounds import SMALL, one_object, rows_by_content, slot_of, write_dataset

FILES = 8
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Sends itself signals when three files are done, several at once, as some queues do.
AFTER_THREE = """
import os, sys
from distill.cli.main import main
from distill.cli.progress import ProgressView

def progress(view, stage, current, total):
    if stage == "features" and current == 3:
        for _ in range(3):
            os.kill(os.getpid(), int(sys.argv[1]))

ProgressView.progress = progress
sys.exit(main(sys.argv[2:]))
"""
# The same when the fourth file of a part is decoded, which goes on when the main thread waits for the worker to end.
IN_THE_FOURTH = """
import os, sys, threading
from distill.audio.decode import Decoding
from distill.cli.main import main

decoded, joined = Decoding.__iter__, threading.Thread.join
begun, ending = [], threading.Event()

def decode(decoding):
    begun.append(decoding)
    if len(begun) == 4:
        for _ in range(3):
            os.kill(os.getpid(), int(sys.argv[1]))
        assert ending.wait(60)
    return decoded(decoding)

def join(thread, timeout=None):
    if len(begun) == 4:
        ending.set()
    return joined(thread, timeout)

Decoding.__iter__, threading.Thread.join = decode, join
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The rows of a run that was not interrupted."""
    root = tmp_path_factory.mktemp("whole")
    write_dataset(root, FILES)
    assert main(["preprocess", str(root), *SMALL]) == 0
    return rows_by_content(slot_of(root))


@pytest.mark.parametrize(
    ("number", "code", "options", "status"),
    [
        (signal.SIGTERM, AFTER_THREE, (), 143),
        (signal.SIGHUP, AFTER_THREE, (), 129),
        (signal.SIGTERM, IN_THE_FOURTH, ("--shard", "1/1"), 143),
    ],
    ids=["SIGTERM", "SIGHUP", "SIGTERM to a shard"],
)
def test_a_signal_keeps_what_is_finished(tmp_path, whole, run, number, code, options, status):
    write_dataset(tmp_path, FILES)
    argv = ["preprocess", tmp_path, *SMALL, "--workers", "1"]
    command = [sys.executable, "-c", code, str(int(number)), *map(str, argv), *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (status, "interrupted; finished work is kept\n")
    done = one_object(*run(*argv, "--json"))
    assert 0 < done["decoded"] <= FILES - 3
    found = rows_by_content(slot_of(tmp_path))
    assert found.keys() == whole.keys()
    assert all(np.array_equal(found[content], rows) for content, rows in whole.items())


def test_a_signal_to_a_repair_keeps_what_is_repaired(tmp_path, whole, run):
    write_dataset(tmp_path, FILES)
    assert run("preprocess", tmp_path, *SMALL)[0] == 0
    for pack in (slot_of(tmp_path) / "packs").iterdir():
        pack.write_bytes(pack.read_bytes()[:-1])
    argv = ["verify", str(tmp_path), "--repair", "--workers", "1"]
    command = [sys.executable, "-c", AFTER_THREE, str(int(signal.SIGTERM)), *argv]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (143, "interrupted; finished work is kept\n")
    done = one_object(*run("preprocess", tmp_path, *SMALL, "--json"))
    assert 0 < done["decoded"] <= FILES - 3
    found = rows_by_content(slot_of(tmp_path))
    assert all(np.array_equal(found[content], rows) for content, rows in whole.items())


def test_ignored_signals_stay_ignored_and_the_handlers_are_those_of_before(tmp_path, run, monkeypatch):
    """As under nohup."""
    write_dataset(tmp_path, 2)
    seen = []

    def hang_up(view, stage, current, total):
        seen.append(signal.getsignal(signal.SIGTERM))
        signal.raise_signal(signal.SIGHUP)

    monkeypatch.setattr(ProgressView, "progress", hang_up)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = [signal.getsignal(number) for number in NUMBERS]
    try:
        assert run("preprocess", tmp_path, *SMALL)[0] == 0
        assert [signal.getsignal(number) for number in NUMBERS] == before
    finally:
        signal.signal(signal.SIGHUP, hangup)
    assert seen
    assert before[1] not in seen


def test_in_a_thread_the_handlers_of_the_caller_stay(tmp_path, monkeypatch):
    write_dataset(tmp_path, 2)
    before = [signal.getsignal(number) for number in NUMBERS]
    seen, statuses = [], []

    def look(view, stage, current, total):
        seen.append([signal.getsignal(number) for number in NUMBERS])

    monkeypatch.setattr(ProgressView, "progress", look)
    thread = threading.Thread(target=lambda: statuses.append(main(["preprocess", str(tmp_path), *SMALL])))
    thread.start()
    thread.join()
    assert statuses == [0]
    assert seen
    assert all(handlers == before for handlers in seen)
