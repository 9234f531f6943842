"""A dataset with a cache, made once for the tests of a module."""

from __future__ import annotations

import pytest

from distill.preprocess.pipeline import preprocess
from sounds import training, write_dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset with a cache; tests copy it."""
    root = tmp_path_factory.mktemp("made") / "dataset"
    write_dataset(root)
    preprocess(root, training())
    return root
