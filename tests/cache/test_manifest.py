"""A manifest that exists and cannot be read is an error. Its features are not computed again."""

from __future__ import annotations

import os
import resource

import pytest

from distill.audio import load_cache_manifest
from distill.cache.compaction import clean
from distill.cache.export import export
from distill.errors import CacheError
from distill.preprocess.pipeline import preprocess
from distill.preprocess.status import dataset_status
from distill.preprocess.verify import repair, verify
from sounds import slot_of, training, write_dataset


def test_a_manifest_without_read_permission_is_an_error(unprivileged):
    """Its features may have taken days, so they are not computed again because of a permission."""
    root = unprivileged / "dataset"
    write_dataset(root)
    cache_dir = preprocess(root, training()).cache_dir
    path = cache_dir / "manifest.json"
    content = path.read_bytes()
    packs = sorted((cache_dir / "packs").iterdir())
    path.chmod(0)
    for use in (
        lambda: preprocess(root, training()),
        lambda: dataset_status(root),
        lambda: verify(root),
        lambda: repair(root),
        lambda: clean(cache_dir),
        lambda: export(cache_dir, unprivileged / "out"),
        lambda: load_cache_manifest(cache_dir),
    ):
        with pytest.raises(CacheError, match=r"manifest\.json: cannot be read: Permission denied") as caught:
            use()
        assert "make it readable, or remove it" in caught.value.tip
    path.chmod(0o600)
    assert path.read_bytes() == content
    assert sorted((cache_dir / "packs").iterdir()) == packs
    assert preprocess(root, training()).decoded == 0


@pytest.mark.parametrize("fault", ["too many open files", "a loop of links"])
def test_a_manifest_that_the_system_cannot_open_is_an_error(tmp_path, fault):
    dataset = tmp_path / "dataset"
    write_dataset(dataset)
    preprocess(dataset, training())
    path = slot_of(dataset) / "manifest.json"
    if fault == "too many open files":
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.open(os.devnull, os.O_RDONLY)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limit[1]))
        try:
            with pytest.raises(CacheError, match="cannot be read: Too many open files"):
                load_cache_manifest(dataset / ".cache")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        return
    path.rename(path.with_name("aside"))
    path.symlink_to(path.name)
    with pytest.raises(CacheError, match=r"manifest\.json: cannot be read: Too many levels") as caught:
        preprocess(dataset, training())
    assert "make it readable" in caught.value.tip
    path.with_name("aside").rename(path)
    assert preprocess(dataset, training()).decoded == 0
