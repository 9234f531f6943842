"""A dataset that goes away while it is scanned, hashed or decoded: an error, and nothing is lost or skipped for good.

A FUSE file system fails with each error or is killed; without permission to mount, the folder is moved away.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from distill.audio import load_cache_manifest
from distill.errors import CacheError, DatasetError, StorageError
from distill.index import Dataset
from distill.preprocess.pipeline import preprocess
from distill.preprocess.verify import verify
from mounts import MAY_USE_FUSE, shown
from sounds import around_decoding, rows_by_content, training, write, write_dataset

FILES = 12
ERRORS = ["ENOTCONN", "ESTALE", "EIO", "EHOSTDOWN", "ENODEV", "ETIMEDOUT", "EHOSTUNREACH"] if MAY_USE_FUSE else []


@pytest.fixture
def folder(tmp_path):
    paths = write_dataset(tmp_path / "folder", FILES)
    # Half of the files have one size, so that they are hashed before they are decoded; the others while they are.
    sizes = [path.stat().st_size for path in paths]
    for path in paths[::2]:
        path.write_bytes(path.read_bytes().ljust(max(sizes) + 100, b"\0"))
    return tmp_path / "folder"


@pytest.fixture
def whole(folder, tmp_path):
    return rows_by_content(preprocess(Dataset(folder, cache_dir=tmp_path / "whole"), training()).cache_dir)


def at_stage(stage: str, count: int, act: Callable[[], object]) -> Callable[[str, int, int], None]:
    """A progress callback that acts once `count` of a stage is done."""
    acted = []

    def progress(name: str, current: int, total: int) -> None:
        if name == stage and current >= count and not acted:
            acted.append(act())

    return progress


def let_fail(folder: Path, error: int) -> None:
    """Let the file system that shows `folder` fail from now on."""
    (folder / ".written").write_text(str(error))
    (folder / ".written").rename(folder / ".fail")


def assert_nothing_lost(cache_dir: Path, whole: dict, at_least: int) -> int:
    """What is in the cache is right, and no file is noted as skipped; return how many contents have rows."""
    manifest = load_cache_manifest(cache_dir)
    assert manifest is not None or at_least == 0
    if manifest is None:
        return 0
    assert [file for file in manifest["files"] if file["skipped"]] == []
    found = rows_by_content(cache_dir)
    assert all(np.array_equal(whole[content], rows) for content, rows in found.items())
    assert len(found) >= at_least
    return len(found)


def run_away(root: Path, cache_dir: Path, stage: str, count: int, act: Callable[[], object]) -> DatasetError:
    acted, started = threading.Event(), itertools.count()

    def act_now() -> object:
        done = act()
        acted.set()
        return done

    @contextlib.contextmanager
    def gate(path: str) -> Iterator[None]:
        # On a busy machine, the workers would be done before the progress is reported.
        if next(started) >= FILES // 2 + 1 and stage == "features":
            assert acted.wait(60)
        yield

    dataset, progress = Dataset(root, cache_dir=cache_dir, trust="content"), at_stage(stage, count, act_now)
    with pytest.MonkeyPatch.context() as patch:
        around_decoding(patch, gate)
        with pytest.raises(DatasetError) as caught:
            preprocess(dataset, training(), workers=2, progress=progress)
    assert str(caught.value).startswith(str(root))
    assert caught.value.tip
    return caught.value


@pytest.mark.parametrize("name", [*ERRORS, *(["killed"] if MAY_USE_FUSE else [])])
@pytest.mark.parametrize(("stage", "count"), [("scan", 0), ("hash", 0), ("features", 3)])
def test_a_file_system_that_fails_ends_preprocessing(folder, whole, tmp_path, name, stage, count, tried: Counter[str]):
    root, cache_dir = tmp_path / "mounted", tmp_path / "cache"
    error = errno.ENOTCONN if name == "killed" else getattr(errno, name)
    with shown(folder, root) as server:

        def act():
            if name == "killed":
                server.kill()
                return server.wait()
            return let_fail(folder, error)

        caught = run_away(root, cache_dir, stage, count, act)
    # A request that is open when the server is killed ends with another error than those after it.
    assert os.strerror(error) in str(caught) or (name == "killed" and os.strerror(errno.ECONNABORTED) in str(caught))
    assert "what was finished is kept" in str(caught)
    assert "run again when its disk is back" in caught.tip
    kept = assert_nothing_lost(cache_dir, whole, count)
    (folder / ".fail").unlink(missing_ok=True)
    with shown(folder, root):
        result = preprocess(Dataset(root, cache_dir=cache_dir), training())
        assert (result.decoded, result.skipped) == (FILES - kept, [])
        assert assert_nothing_lost(cache_dir, whole, FILES) == FILES
        # Away from the start: all of the cache stays.
        let_fail(folder, error)
        for use in (
            lambda: preprocess(Dataset(root, cache_dir=cache_dir), training()),
            lambda: verify(Dataset(root, cache_dir=cache_dir)),
        ):
            with pytest.raises(DatasetError, match=os.strerror(error)):
                use()
    assert assert_nothing_lost(cache_dir, whole, FILES) == FILES
    tried["file systems that failed"] += 1


@pytest.mark.parametrize("replaced", [True, False])
@pytest.mark.parametrize(("stage", "count"), [("scan", 0), ("hash", 0), ("features", 3)])
def test_a_folder_that_is_moved_away_ends_preprocessing(folder, whole, tmp_path, stage, count, replaced):
    cache_dir = tmp_path / "cache"

    def act():
        folder.rename(tmp_path / "moved")
        if replaced:  # as an empty mount point
            folder.mkdir()

    run_away(folder, cache_dir, stage, count, act)
    kept = assert_nothing_lost(cache_dir, whole, count)
    if replaced:
        folder.rmdir()
    (tmp_path / "moved").rename(folder)
    result = preprocess(Dataset(folder, cache_dir=cache_dir), training())
    assert (result.decoded, result.skipped) == (FILES - kept, [])
    assert assert_nothing_lost(cache_dir, whole, FILES) == FILES


@pytest.mark.parametrize(("stage", "count"), [("scan", 0), ("features", 3)])
def test_too_many_open_files_end_preprocessing(folder, whole, tmp_path, stage, count):
    cache_dir, limit = tmp_path / "cache", resource.getrlimit(resource.RLIMIT_NOFILE)

    def use_up():
        # Below every descriptor in use: one that a worker closes now cannot be opened again.
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, limit[1]))

    try:
        with pytest.raises((DatasetError, CacheError, StorageError), match="Too many open files") as caught:
            preprocess(Dataset(folder, cache_dir=cache_dir), training(), progress=at_stage(stage, count, use_up))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert "ulimit -n" in caught.value.tip
    # A pack that is finished while no descriptor is left cannot be committed.
    assert_nothing_lost(cache_dir, whole, 0)
    assert preprocess(Dataset(folder, cache_dir=cache_dir), training()).skipped == []
    assert assert_nothing_lost(cache_dir, whole, FILES) == FILES


def test_a_file_that_cannot_be_read_once_is_skipped_this_time_only(folder, whole, tmp_path, monkeypatch):
    from distill.audio import decode

    open_sound, failed, size = decode.open_sound, [], (folder / "sound-1.wav").stat().st_size

    def fails_at_first(source):
        if source.size == size and len(failed) < 2:  # for its length and for its samples
            failed.append(size)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return open_sound(source)

    monkeypatch.setattr(decode, "open_sound", fails_at_first)
    result = preprocess(Dataset(folder, cache_dir=tmp_path / "cache"), training())
    assert [(path, reason.code) for path, reason in result.skipped] == [("sound-1.wav", "unreadable")]
    assert preprocess(Dataset(folder, cache_dir=tmp_path / "cache"), training()).decoded == 1
    assert assert_nothing_lost(tmp_path / "cache", whole, FILES) == FILES


def test_a_file_without_read_permission_is_skipped_this_time(unprivileged):
    write_dataset(unprivileged)
    path = write(unprivileged / "locked.wav", np.linspace(-0.5, 0.5, 8_000))
    path.chmod(0)
    assert [name for name, _ in preprocess(unprivileged, training()).skipped] == ["locked.wav"]
    path.chmod(0o600)
    result = preprocess(unprivileged, training())
    assert (result.decoded, result.skipped) == (1, [])
