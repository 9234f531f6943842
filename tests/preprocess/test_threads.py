"""Worker threads of preprocessing: whatever ends them, where they cannot be started, and torch's number of threads."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from distill.audio import load_cache_manifest
from distill.errors import SystemLimitError
from distill.preprocess.pipeline import preprocess
from sounds import around_decoding, rows_by_path, training, write_dataset


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path / "dataset")
    return tmp_path / "dataset"


class Exit(BaseException):
    """An exception like pytest's own: not an Exception."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit(3), GeneratorExit, Exit, MemoryError, StopIteration])
@pytest.mark.parametrize("workers", [1, 4])
def test_whatever_ends_a_worker_is_raised_and_what_is_finished_is_kept(dataset, monkeypatch, error, workers):
    def failing(path):
        if path.endswith("sound-4.wav"):  # the shortest, and so the last
            raise error
        return nullcontext()

    with monkeypatch.context() as patch:
        around_decoding(patch, failing)
        kind = error if isinstance(error, type) else type(error)
        # A generator cannot end with StopIteration.
        with pytest.raises(RuntimeError if kind is StopIteration else kind):
            preprocess(dataset, training(), workers=workers)
    again = preprocess(dataset, training())
    assert 1 <= again.decoded <= (1 if workers == 1 else 5)
    assert len(load_cache_manifest(dataset / ".cache")["files"]) == 5


def refusing_after(monkeypatch, count: int) -> list[str]:
    """Let only `count` worker threads start; return the list of their names."""
    start, names = threading.Thread.start, []

    def limited(thread):
        if thread.name.startswith("distill-"):
            if len(names) == count:
                raise RuntimeError("can't start new thread")
            names.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    return names


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_threads_than_requested_do_all_of_the_work(dataset, monkeypatch, caplog, count):
    names = refusing_after(monkeypatch, count)
    with caplog.at_level(logging.WARNING, "distill"):
        result = preprocess(dataset, training(), workers=4)
    assert (len(names), result.decoded, result.skipped) == (count, 5, [])
    assert "can't start new thread" in caplog.text
    assert "ulimit -u" in caplog.text


def test_where_no_thread_can_be_started_an_error_says_what_to_do(dataset, monkeypatch):
    with monkeypatch.context() as patch:
        refusing_after(patch, 0)
        with pytest.raises(SystemLimitError, match="can't start new thread") as error:
            preprocess(dataset, training(), workers=4)
    assert "ulimit -u" in error.value.tip
    assert preprocess(dataset, training()).decoded == 5


LIMITED = """
import resource, sys, threading
import numpy as np
from distill import _native
from distill.features.backends import rust
from distill.features.mel import MelSpec
from distill.index import Dataset, Manifest
from sounds import FEATURE, training
spec = MelSpec.of(training().features)
clips = np.random.default_rng(0).standard_normal((64, 32_000), np.float32)
kernel = rust._kernel(spec).keywords["kernel"]
shape = (len(clips), spec.channels, spec.n_mels, spec.n_frames(clips.shape[1]))
alone, limited = np.empty(shape, np.float32), np.empty(shape, np.float32)
kernel.compute(clips, alone, 1)
kernel.compute(clips[:1], np.empty((1, *shape[1:]), np.float32), 1)
before = Dataset(sys.argv[1]).scan(Manifest(), workers=1)
pages = int(open("/proc/self/statm").read().split()[0])
room = pages * resource.getpagesize() + (1 << 20)  # less than the stack of a thread
unlimited = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (room, unlimited[1]))
try:
    threading.Thread(target=print).start()
except RuntimeError as error:
    refused = str(error)
kernel.compute(clips, limited, 8)
scan = Dataset(sys.argv[1]).scan(Manifest(), workers=8)
resource.setrlimit(resource.RLIMIT_AS, unlimited)
assert np.array_equal(alone, limited)
assert (scan.added, scan.todo) == (before.added, before.todo)
print(refused, len(scan.todo))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space through /proc")
def test_the_extension_computes_and_scans_where_no_thread_can_be_started(dataset):
    command = [sys.executable, "-c", LIMITED, str(dataset)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={"PYTHONPATH": ":".join(sys.path), "PATH": ""}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "can't start new thread 5\n", "")


def in_new_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.timeout(120)
def test_overlapping_calls_leave_the_number_of_threads_as_it_was(tmp_path):
    """The second begins while the first computes, and ends after it."""
    first_computes, second_computes, first_ended = (threading.Event() for _ in range(3))
    during, failed = [], []

    def progress_of_first(stage, current, total):
        if stage == "features":
            during.append((torch.get_num_threads(), in_new_thread(torch.get_num_threads)))
            first_computes.set()
            second_computes.wait(60)

    def progress_of_second(stage, current, total):
        if stage == "features":
            during.append((torch.get_num_threads(), in_new_thread(torch.get_num_threads)))
            second_computes.set()
            first_ended.wait(60)

    def run(name, progress, done, wait_for=None):
        try:
            folder = tmp_path / name
            write_dataset(folder)
            if wait_for:
                wait_for.wait(60)
            preprocess(folder, training(), workers=2, progress=progress)
            during.append((torch.get_num_threads(), in_new_thread(torch.get_num_threads)))
        except BaseException as error:  # noqa: BLE001 - asserted below
            failed.append(error)
        finally:
            done.set()

    threads = [
        threading.Thread(target=run, args=("first", progress_of_first, first_ended)),
        threading.Thread(target=run, args=("second", progress_of_second, threading.Event(), first_computes)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert set(during) == {(3, 3)}
    assert (torch.get_num_threads(), in_new_thread(torch.get_num_threads)) == (3, 3)


@pytest.mark.usefixtures("three_threads")
def test_a_thread_with_a_number_of_its_own_keeps_it(dataset):
    def own():
        torch.set_num_threads(2)
        assert torch.get_num_threads() == 2  # a thread's number holds from its first use on
        in_new_thread(lambda: torch.set_num_threads(3))
        preprocess(dataset, training(), workers=2)
        return torch.get_num_threads(), in_new_thread(torch.get_num_threads)

    assert in_new_thread(own) == (2, 3)


@pytest.mark.usefixtures("three_threads")
def test_each_worker_computes_on_one_thread(dataset, monkeypatch):
    found = []
    around_decoding(monkeypatch, lambda path: nullcontext(found.append(torch.get_num_threads())))
    result = preprocess(dataset, training(), workers=2)
    assert found == [1] * len(found)
    assert len(found) >= 5
    assert all(np.isfinite(rows).all() for rows in rows_by_path(result.cache_dir).values())
