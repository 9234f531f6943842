"""The lock of a cache on a file system that has no locks."""

from __future__ import annotations

import errno
import fcntl
import os
import threading

import pytest

from distill.cache.lock import CacheLock
from distill.preprocess.pipeline import preprocess
from distill.preprocess.verify import verify
from sounds import training, write_dataset


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_has_one_writer_at_a_time_too(tmp_path, monkeypatch, caplog, number):
    def no_locks(descriptor, operation):
        raise OSError(number, os.strerror(number))

    write_dataset(tmp_path / "dataset")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    results = []
    second = threading.Thread(target=lambda: results.append(preprocess(tmp_path / "dataset", training())))
    with caplog.at_level("INFO", "distill"), CacheLock(tmp_path / "dataset" / ".cache"):
        second.start()
        while "waiting" not in caplog.text:
            second.join(0.01)
            assert second.is_alive()
    second.join(60)
    assert results[0].decoded == 5
    assert verify(tmp_path / "dataset").damaged == []
