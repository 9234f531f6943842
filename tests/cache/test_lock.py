"""The lock of a cache on a file system that has no locks."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from distill.preprocess.pipeline import preprocess
from distill.preprocess.verify import verify
from sounds import training, write_dataset


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, caplog, number):
    def no_locks(descriptor, operation):
        raise OSError(number, os.strerror(number))

    write_dataset(tmp_path / "dataset")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert preprocess(tmp_path / "dataset", training()).decoded == 5
    assert caplog.text.count("this file system has no locks") == 1
    assert verify(tmp_path / "dataset").damaged == []
