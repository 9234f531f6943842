"""Packs that cannot be read at the moment: an error that names the file; nothing is dropped, deleted or computed."""

from __future__ import annotations

import errno
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from distill import _native
from distill.cache import CacheReader
from distill.cache.compaction import clean
from distill.cache.export import export
from distill.errors import CacheError
from distill.preprocess.pipeline import preprocess
from distill.preprocess.verify import repair, verify
from sounds import rows_by_content, slot_of, training, write_dataset

NOT_NOW = ["EACCES", "EMFILE", "ENFILE", "EIO", "ESTALE", "ENOTCONN", "ENOMEM", "ETIMEDOUT", "EHOSTDOWN", "ENODEV"]


@pytest.fixture
def dataset(made, tmp_path):
    """A copy whose packs have other times than the manifest says, so that every row is checked."""
    return shutil.copytree(made, tmp_path / "dataset", copy_function=shutil.copy)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


@pytest.fixture
def fail(monkeypatch):
    """Let packs fail with an error of the system, when they are opened or when they are read."""

    def start(call: str, error: int) -> None:
        def failing(*_):
            raise OSError(error, os.strerror(error))

        whole = _native.PackFile
        unreadable = lambda path: SimpleNamespace(stamps=whole(path).stamps, read=failing)  # noqa: E731
        monkeypatch.setattr(_native, "PackFile", failing if call == "open" else unreadable)

    return start


@pytest.mark.parametrize("call", ["open", "read"])
@pytest.mark.parametrize("name", NOT_NOW)
def test_an_error_of_the_system_is_not_damage(dataset, tmp_path, fail, monkeypatch, name, call):
    cache_dir = slot_of(dataset)
    expected, before = rows_by_content(cache_dir), contents(cache_dir)
    (path,) = (cache_dir / "packs").iterdir()
    with monkeypatch.context():
        fail(call, getattr(errno, name))
        for use in (
            lambda: preprocess(dataset, training()),
            lambda: repair(dataset),
            lambda: rows_by_content(cache_dir),
            lambda: export(cache_dir, tmp_path / "out"),
        ):
            with pytest.raises(CacheError) as caught:
                use()
            assert str(caught.value) == f"{path}: cannot be read now: {os.strerror(getattr(errno, name))}"
            assert caught.value.tip
            assert "damaged" not in f"{caught.value} {caught.value.tip}"
        ((where, reason),) = verify(dataset).damaged
        assert (where, reason) == (
            f"slots/{cache_dir.name}/packs/{path.name}",
            f"could not be checked: {os.strerror(getattr(errno, name))}",
        )
        monkeypatch.undo()
    assert contents(cache_dir) == before
    assert not (tmp_path / "out").exists()
    assert preprocess(dataset, training()).decoded == 0
    assert all(np.array_equal(rows, expected[content]) for content, rows in rows_by_content(cache_dir).items())


def test_the_remedy_fits_the_error(dataset, fail, monkeypatch):
    remedies = {errno.EMFILE: "ulimit -n", errno.ENOTCONN: "when its disk is back", errno.EACCES: "make it readable"}
    for error, remedy in remedies.items():
        with monkeypatch.context():
            fail("open", error)
            with pytest.raises(CacheError) as caught:
                CacheReader(dataset / ".cache")
            assert remedy in caught.value.tip
            monkeypatch.undo()


def test_a_pack_without_read_permission_is_left_alone(unprivileged):
    write_dataset(unprivileged)
    preprocess(unprivileged, training())
    (path,) = (slot_of(unprivileged) / "packs").iterdir()
    content = path.read_bytes()
    path.chmod(0)
    with pytest.raises(CacheError, match=f"{path.name}: cannot be read now: Permission denied"):
        preprocess(unprivileged, training())
    path.chmod(0o600)
    assert path.read_bytes() == content
    assert preprocess(unprivileged, training()).decoded == 0


@pytest.mark.parametrize("whole", [True, False])
def test_a_folder_of_packs_that_is_away_is_an_error(dataset, tmp_path, whole):
    """As when it is a mounted disk: nothing is computed again, and when it is back nothing has changed."""
    packs = slot_of(dataset) / "packs"
    before = contents(dataset / ".cache")
    packs.rename(tmp_path / "away")
    if not whole:
        packs.write_text("no folder")
    for use in (lambda: preprocess(dataset, training()), lambda: verify(dataset), lambda: clean(dataset / ".cache")):
        with pytest.raises(CacheError, match=f"{packs}: cannot be read now") as caught:
            use()
        assert "put it back" in caught.value.tip
    packs.unlink(missing_ok=True)
    (tmp_path / "away").rename(packs)
    assert contents(dataset / ".cache") == before
    assert preprocess(dataset, training()).decoded == 0
