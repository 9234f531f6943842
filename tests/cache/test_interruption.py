"""What a cache holds after an error, Ctrl-C or a full disk, on a read-only disk, and with a second writer."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import sys
import threading

import numpy as np
import pytest

from distill.audio import load_cache_manifest
from distill.cache.lock import CacheLock
from distill.errors import DatasetError, PreprocessingCancelled, StorageError
from distill.index import Dataset
from distill.preprocess.pipeline import preprocess
from distill.preprocess.verify import repair
from sounds import forbid_decoding, noise, rows_by_content, slot_of, training, write, write_dataset

ROW_BYTES = 2 * 32 * 32 * 4


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The rows of an uninterrupted run, by content hash."""
    root = tmp_path_factory.mktemp("whole")
    write_dataset(root)
    return rows_by_content(preprocess(root, training()).cache_dir)


def assert_whole(cache_dir, whole):
    """The cache holds the rows of an uninterrupted run, and no other files."""
    slot = slot_of(cache_dir)
    found = rows_by_content(slot)
    assert found.keys() == whole.keys()
    assert all(np.array_equal(found[content], rows) for content, rows in whole.items())
    named = {pack["name"] for pack in load_cache_manifest(slot)["packs"]}
    left = {str(path.relative_to(cache_dir)) for path in cache_dir.rglob("*") if path.is_file()}
    own = {"lock", "files.json", "CACHEDIR.TAG", ".gitignore"}
    in_slot = {"manifest.json"} | {f"packs/{name}" for name in named}
    assert left == own | {f"slots/{slot.name}/{name}" for name in in_slot}


def stop_after(files: int, error: type[BaseException] = KeyboardInterrupt):
    def progress(stage, current, total):
        if stage == "features" and current == files:
            raise error

    return progress


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_keeps_finished_files(dataset, whole, error):
    with pytest.raises(error):
        preprocess(dataset, training(), workers=1, progress=stop_after(3, error))
    kept = rows_by_content(dataset / ".cache")
    assert len(kept) == 3
    assert all(np.array_equal(whole[content], rows) for content, rows in kept.items())
    assert len(load_cache_manifest(dataset / ".cache")["files"]) == 3
    assert preprocess(dataset, training()).decoded == 2
    assert_whole(dataset / ".cache", whole)


def test_ctrl_c_while_a_pack_is_flushed_keeps_the_pack(dataset, whole, monkeypatch):
    fsync, calls = os.fsync, []

    def interrupted(descriptor):
        if os.fstat(descriptor).st_size > ROW_BYTES and not calls:
            calls.append(descriptor)
            raise KeyboardInterrupt
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        preprocess(dataset, training())
    assert preprocess(dataset, training()).decoded == 0
    assert_whole(dataset / ".cache", whole)


def test_no_thread_outlives_an_interruption(dataset):
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        preprocess(dataset, training(), workers=3, progress=stop_after(1))
    assert threading.active_count() == before


@pytest.mark.parametrize("rows_that_fit", [2.01, 4.5, 7.3])
def test_a_full_disk_keeps_finished_files(dataset, whole, rows_that_fit, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # or the bytecode of a module may be cut
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Beyond this size a write fails half-way, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 + int(rows_that_fit * ROW_BYTES), limit[1]))
    try:
        with pytest.raises(StorageError, match="disk is full") as caught:
            preprocess(dataset, training(), workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "--cache-dir" in caught.value.tip
    finished = int(rows_that_fit) // 2
    kept = rows_by_content(dataset / ".cache")
    assert len(kept) == finished
    assert all(np.array_equal(whole[content], rows) for content, rows in kept.items())
    assert preprocess(dataset, training()).decoded == 5 - finished
    assert_whole(dataset / ".cache", whole)


def test_too_little_free_space_is_a_question_before_work_starts_and_else_a_warning(dataset, monkeypatch, caplog):
    free = 10**6
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - free, free))
    asked = []
    with monkeypatch.context() as patch:
        forbid_decoding(patch)
        with pytest.raises(PreprocessingCancelled) as caught:
            preprocess(dataset, training(), confirm=asked.append)
    assert "--cache-dir" in caught.value.tip
    (question,) = asked
    assert "the disk has room for 0 MB, and all that is finished when it is full is kept. Go on?" in question
    # The size is an estimate, so it forbids nothing.
    caplog.clear()
    assert preprocess(dataset, training()).decoded == 5
    assert any("the disk has room for 0 MB" in message for message in caplog.messages)


def test_a_cache_dir_that_cannot_be_made_is_a_storage_error(dataset, whole, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match="cannot be written") as caught:
        preprocess(Dataset(dataset, cache_dir=tmp_path / "file" / "cache"), training())
    assert "--cache-dir" in caught.value.tip
    result = preprocess(Dataset(dataset, cache_dir=tmp_path / "elsewhere" / "deep"), training())
    assert result.decoded == 5
    assert_whole(tmp_path / "elsewhere" / "deep", whole)
    assert not (dataset / ".cache").exists()


def test_a_read_only_cache_can_be_used_while_nothing_changes(dataset, monkeypatch):
    made = preprocess(dataset, training())
    open_file = os.open

    def read_only(path, flags, *rest, **named):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return open_file(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", read_only)
    again = preprocess(dataset, training())
    assert (again.decoded, again.rows) == (0, 10)
    assert again.normalization_stats == made.normalization_stats
    write(dataset / "new.wav", noise(9))
    with pytest.raises(StorageError, match="Read-only"):
        preprocess(dataset, training())
    with pytest.raises(StorageError, match="Read-only"):
        preprocess(dataset, training(chunk_samples=4_000))


def copied_over(root):
    shutil.copy(root / "sound-1.wav", root / "sound-3.wav")


def removed(root):
    (root / "sound-3.wav").unlink()


def emptied(root):
    (root / "sound-3.wav").write_bytes(b"")


def renamed(root):
    (root / "sound-3.wav").rename(root / "moved.wav")


def touched(root):
    os.utime(root / "sound-3.wav", (1, 1))


def copied(root):
    shutil.copy(root / "sound-3.wav", root / "copy.wav")


def of_two_copies_one_removed(root):
    (root / "deep" / "double.wav").unlink()


@pytest.fixture
def read_only(unprivileged):
    """A dataset whose cache is read-only."""
    write_dataset(unprivileged)
    shutil.copy(unprivileged / "sound-1.wav", unprivileged / "deep" / "double.wav")
    preprocess(unprivileged, training())
    cache_dir = unprivileged / ".cache"
    for path in (*cache_dir.rglob("*"), cache_dir):
        path.chmod(0o500 if path.is_dir() else 0o400)
    return unprivileged


@pytest.mark.parametrize("change", [copied_over, removed, emptied])
def test_a_read_only_cache_with_rows_of_removed_files_is_an_error(read_only, change):
    change(read_only)
    with pytest.raises(StorageError, match="Permission denied") as caught:
        preprocess(read_only, training())
    assert "--cache-dir" in caught.value.tip


@pytest.mark.parametrize("is_cut", [False, True], ids=["gone", "cut"])
def test_a_read_only_cache_with_a_missing_pack_is_an_error(read_only, is_cut, caplog):
    packs = slot_of(read_only) / "packs"
    (pack,) = packs.iterdir()
    packs.chmod(0o700)
    pack.chmod(0o600)
    if is_cut:
        os.truncate(pack, 100)
    else:
        pack.unlink()
    packs.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        preprocess(read_only, training())
    assert f"{pack}: damaged pack" in caplog.text


@pytest.mark.parametrize("change", [renamed, touched, copied, of_two_copies_one_removed])
def test_a_read_only_cache_can_be_used_if_a_change_leaves_the_rows_the_same(read_only, change, caplog):
    change(read_only)
    with caplog.at_level("INFO", "distill"):
        result = preprocess(read_only, training())
    assert "lock: cannot be written: Permission denied; nothing has changed" in caplog.text
    assert (result.decoded, result.rows) == (0, 10)
    assert sum(map(len, rows_by_content(read_only / ".cache").values())) == 10


def test_repairing_a_read_only_cache_is_an_error(read_only):
    with pytest.raises(StorageError, match="Permission denied"):
        repair(read_only)


def test_with_a_lost_pack_the_reported_error_is_that_of_the_run(dataset, whole, monkeypatch):
    preprocess(dataset, training())
    (pack,) = (slot_of(dataset) / "packs").iterdir()
    pack.unlink()
    monkeypatch.setattr("distill.preprocess.plan.CONFIRM_ABOVE_BYTES", 1)
    with pytest.raises(PreprocessingCancelled):
        preprocess(dataset, training(), confirm=lambda message: False)
    aside = dataset.with_name("aside")
    dataset.rename(aside)
    (dataset / "empty").mkdir(parents=True)
    shutil.copytree(aside / ".cache", dataset / ".cache")
    with pytest.raises(DatasetError, match="no audio"):
        preprocess(dataset, training())
    assert preprocess(aside, training()).decoded == 5
    assert_whole(aside / ".cache", whole)


def test_a_second_writer_waits_and_then_decodes_nothing(dataset, caplog):
    started, go_on, results = threading.Event(), threading.Event(), []

    def hold(stage, current, total):
        if stage == "features":
            started.set()
            assert go_on.wait(60)

    first = threading.Thread(target=lambda: results.append(preprocess(dataset, training(), progress=hold)))
    second = threading.Thread(target=lambda: results.append(preprocess(dataset, training())))
    with caplog.at_level("INFO", "distill"):
        first.start()
        assert started.wait(60)
        second.start()
        second.join(0.5)
        assert second.is_alive()
        assert "waiting" in caplog.text
        go_on.set()
        first.join()
        second.join()
    assert [result.decoded for result in results] == [5, 0]


def test_a_lock_is_taken_on_the_file_that_is_in_place(tmp_path, caplog):
    """The cache is removed and made again while another process waits for its lock."""
    cache_dir, entered = tmp_path / "cache", threading.Event()

    def enter():
        with CacheLock(cache_dir):
            entered.set()

    with caplog.at_level("INFO", "distill"), CacheLock(cache_dir):
        waiter = threading.Thread(target=enter)
        waiter.start()
        while "waiting" not in caplog.text:
            waiter.join(0.01)
        shutil.rmtree(cache_dir)
        other = CacheLock(cache_dir)
        other.__enter__()
    try:
        assert not entered.wait(0.5)
    finally:
        other.__exit__(None, None, None)
    assert entered.wait(30)
    waiter.join()
    assert caplog.text.count("waiting") == 1
    assert [path.name for path in cache_dir.iterdir()] == ["lock"]
