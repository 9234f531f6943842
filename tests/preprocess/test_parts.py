"""Parts: what jobs that share nothing but the storage compute, and what a process that died leaves behind."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from distill._native import FileTable, Manifest
from distill.audio import load_cache_manifest
from distill.cache import compaction, leftovers, parts
from distill.cache.compaction import clean
from distill.cache.lock import CacheLock
from distill.cache.manifest import build_header
from distill.cache.pack import PackWriter
from distill.cache.writer import CacheWriter
from distill.cli.main import main
from distill.errors import ConfigError, DatasetError, StorageError
from distill.index import Dataset
from distill.preprocess.parts import Job, Part, extract_part
from distill.preprocess.pipeline import preprocess
from distill.preprocess.recording import Extracted
from distill.preprocess.shares import Shard
from distill.preprocess.verify import verify
from sounds import (
    SMALL,
    age,
    around_decoding,
    forbid_decoding,
    noise,
    rows_by_content,
    slot_of,
    training,
    write,
    write_dataset,
)


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path / "dataset", 8)
    return tmp_path / "dataset"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The rows of one process, by content hash, and their statistics."""
    root = tmp_path_factory.mktemp("whole")
    write_dataset(root, 8)
    result = preprocess(root, training())
    return rows_by_content(result.cache_dir), result.normalization_stats


def check(dataset: Path, whole) -> None:
    """The cache holds the rows of one process, to the bit, and nothing is left to be adopted."""
    rows, stats = whole
    result = preprocess(dataset, training())
    found = rows_by_content(result.cache_dir)
    assert found.keys() == rows.keys()
    assert all(np.array_equal(found[content], expected) for content, expected in rows.items())
    assert result.normalization_stats == stats
    assert not verify(dataset).damaged
    assert not list((slot_of(dataset) / "parts").glob("*.part.json"))


def shard(dataset: Path, number: int, count: int = 3, **options):
    return preprocess(dataset, training(), shard=Shard(number, count), **options)


def busy(dataset: Path) -> CacheLock:
    """The lock of the cache, which another process holds."""
    (dataset / ".cache").mkdir(exist_ok=True)
    return CacheLock(dataset / ".cache")


def test_shards_give_the_rows_of_one_process_and_compute_nothing_twice(dataset, whole, monkeypatch):
    results = [shard(dataset, number) for number in (1, 2, 3)]
    assert sum(result.decoded for result in results) == 8
    assert all(0 < result.decoded < 8 for result in results)
    assert [shard(dataset, number).decoded for number in (1, 2, 3)] == [0, 0, 0]
    forbid_decoding(monkeypatch)
    check(dataset, whole)


def test_parts_of_jobs_that_found_the_cache_busy_are_adopted(dataset, whole, monkeypatch, caplog):
    caplog.set_level("INFO")
    with busy(dataset):
        assert sum(shard(dataset, number).decoded for number in (1, 2, 3)) == 8
        assert shard(dataset, 1).decoded == 0  # what has a part file is not computed again
        assert not (slot_of(dataset) / "manifest.json").exists()
    assert "another process is using this cache" in caplog.text
    forbid_decoding(monkeypatch)
    result = preprocess(dataset, training())
    assert (result.decoded, result.adopted) == (0, 8)
    check(dataset, whole)


def test_a_lost_shard_is_computed_by_whoever_comes_next(dataset, whole):
    first, third = shard(dataset, 1), shard(dataset, 3)
    result = preprocess(dataset, training())
    assert result.decoded == 8 - first.decoded - third.decoded > 0
    check(dataset, whole)


def test_a_file_table_that_is_newer_than_the_slot_is_used(dataset, monkeypatch):
    """Another configuration was preprocessed since, after the files were touched."""
    preprocess(dataset, training())
    with busy(dataset):
        write(dataset / "new.wav", noise(9))
        assert shard(dataset, 1, 1).decoded == 1  # a part that waits to be adopted
    for path in dataset.glob("*.wav"):
        os.utime(path, ns=(1, path.stat().st_mtime_ns - 10**12))
    age(dataset)
    other = preprocess(dataset, training(chunk_samples=4000))
    assert other.decoded == 9
    forbid_decoding(monkeypatch)
    with busy(dataset):
        assert shard(dataset, 1, 1).decoded == 0
    assert shard(dataset, 1, 1).decoded == 0
    hashed = []
    preprocess(dataset, training(), progress=lambda stage, *amount: hashed.append(amount) if stage == "hash" else None)
    assert not hashed


def test_a_shard_leaves_what_can_be_copied_to_the_next_run(dataset, whole, monkeypatch, caplog):
    preprocess(dataset, training(augmentation_expansion=1))
    write(dataset / "new.wav", noise(9))
    caplog.set_level("INFO")
    assert sum(shard(dataset, number).decoded for number in (1, 2, 3)) == 1
    assert "left to the next run without --shard, which copies the rows from slot" in caplog.text
    forbid_decoding(monkeypatch)
    result = preprocess(dataset, training())
    found = rows_by_content(result.cache_dir)
    assert len(found) == 9
    rows, _ = whole
    assert all(np.array_equal(found[content], expected) for content, expected in rows.items())


def test_an_empty_shard_starts_no_thread_and_imports_no_torch(dataset):
    code = (
        "import sys\nfrom distill.cli.main import main\n"
        f"assert main(['preprocess', {os.fspath(dataset)!r}, *{list(map(str, SMALL))!r}, '--shard', '1/1']) == 0\n"
        "print('torch' in sys.modules)"
    )
    assert preprocess(dataset, training()).decoded == 8
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("options", [{}, {"shard": Shard(1, 1)}], ids=["whole", "shard"])
def test_a_dataset_that_is_replaced_after_its_scan_is_an_error(dataset, tmp_path, options):
    """As a mount point is by its empty folder; else all files would count as changed while they were read."""

    def unmount(stage, current, total):
        if stage == "lengths" and current == total:
            dataset.rename(tmp_path / "away")
            dataset.mkdir()

    cache = tmp_path / "cache"
    with pytest.raises(DatasetError, match="another folder is there now"):
        preprocess(Dataset(dataset, cache_dir=cache), training(), progress=unmount, **options)


def test_equal_contents_in_two_shards_are_adopted_once(dataset, whole):
    names = [f"copy-{number}.wav" for number in range(4)]
    shares = {Shard(1, 2).has(os.fsencode(name)) for name in [*names, "sound-1.wav"]}
    assert shares == {True, False}
    for name in names:
        shutil.copy(dataset / "sound-1.wav", dataset / name)
    with busy(dataset):
        assert shard(dataset, 1, 2).decoded + shard(dataset, 2, 2).decoded == 12
    check(dataset, whole)
    assert len({file["content_hash"] for file in load_cache_manifest(slot_of(dataset))["files"]}) == 8


def test_a_part_that_is_delivered_twice_changes_nothing(dataset, whole, tmp_path, monkeypatch):
    with busy(dataset):
        shard(dataset, 1, 1)
    folder = slot_of(dataset) / "parts"
    shutil.copytree(folder, tmp_path / "again")
    check(dataset, whole)
    shutil.copytree(tmp_path / "again", folder, dirs_exist_ok=True)
    forbid_decoding(monkeypatch)
    check(dataset, whole)


@pytest.mark.parametrize("fault", ["cut", "flipped", "empty", "not JSON", "pack cut", "pack gone", "pack flipped"])
def test_a_damaged_part_is_computed_again(dataset, whole, fault, caplog):
    with busy(dataset):
        shard(dataset, 1, 2)
    folder = slot_of(dataset) / "parts"
    file = min(folder.glob("*.part.json"))
    pack = folder / load_pack_names(file)[0]
    content = (pack if fault.startswith("pack") else file).read_bytes()
    at = len(content) // 2
    flipped = content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]
    match fault:
        case "cut":
            file.write_bytes(content[:-100])
        case "flipped":
            file.write_bytes(flipped)
        case "empty":
            file.write_bytes(b"")
        case "not JSON":
            file.write_bytes(b"what is this?")
        case "pack cut":
            pack.write_bytes(content[:-100])
        case "pack gone":
            pack.unlink()
        case "pack flipped":
            pack.write_bytes(flipped)
    result = preprocess(dataset, training())
    assert result.decoded > 0
    assert "computed again" in caplog.text
    check(dataset, whole)


def test_a_part_of_another_configuration_is_left_alone(dataset, whole, caplog):
    with busy(dataset):
        preprocess(dataset, training(normalize="none"), shard=Shard(1, 1))
    (other,) = (dataset / ".cache" / "slots").iterdir()
    file = min((other / "parts").glob("*.part.json"))
    with busy(dataset):
        shard(dataset, 1, 2)
    (slot,) = (path for path in (dataset / ".cache" / "slots").iterdir() if path != other)
    shutil.copy(file, slot / "parts")
    preprocess(dataset, training())
    assert "of another configuration" in caplog.text
    assert (slot / "parts" / file.name).exists()
    (slot / "parts" / file.name).unlink()
    shutil.rmtree(other)
    check(dataset, whole)


def test_a_file_that_changes_after_its_part_was_made_is_computed_again(dataset, monkeypatch):
    with busy(dataset):
        shard(dataset, 1, 1)
    write(dataset / "sound-1.wav", noise(99, 16_000), subtype="PCM_24")
    assert preprocess(dataset, training()).decoded == 1
    assert not verify(dataset).damaged


def test_several_jobs_at_once(dataset, whole):
    """Real processes, which begin at the same moment and use the same cache."""
    program = "import sys; from distill.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "preprocess", dataset, *SMALL, "--json"]
    jobs = [
        subprocess.Popen([*map(str, command), "--shard", f"{number}/3"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for number in (1, 2, 3)
    ]
    decoded = []
    for job in jobs:
        out, err = job.communicate()
        assert job.returncode == 0, err
        decoded.append(json.loads(out)["decoded"])
    assert sum(decoded) == 8
    check(dataset, whole)


def test_what_a_killed_process_left_is_adopted(dataset, whole, monkeypatch):
    """Each pack but the first is kept as a part, because a commit has just been made; no later commit comes."""
    program = (
        "import os, signal, sys; import distill.cache.pack as pack, distill.cache.writer as writer\n"
        "from distill.preprocess.pipeline import preprocess; from sounds import training\n"
        "pack.MAX_PACK_BYTES, writer._COMMIT_EVERY = 1024 + 3 * (2 * 32 * 32 * 4 + 8), 1e9\n"
        "def progress(stage, current, total):\n"
        "    if (stage, current) == ('features', 7): os.kill(os.getpid(), signal.SIGKILL)\n"
        "preprocess(sys.argv[1], training(), workers=1, progress=progress)\n"
    )
    tests = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, tests])}
    killed = subprocess.run([sys.executable, "-c", program, dataset], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    kept = list((slot_of(dataset) / "parts").glob("*.part.json"))
    assert kept
    result = preprocess(dataset, training())
    assert result.adopted >= len(kept)
    assert result.decoded < 8 - len(kept)
    check(dataset, whole)


def test_commits_take_a_bounded_share_of_the_time(dataset, whole, monkeypatch):
    """With a pack for each row, and a clock by which a commit takes 20 ms, and each row 100."""
    monkeypatch.setattr("distill.cache.pack.MAX_PACK_BYTES", 1)
    clock, commit, add_rows = 0.0, CacheWriter.commit, CacheWriter.add_rows
    committed = []

    def slow_commit(writer: CacheWriter) -> None:
        nonlocal clock
        committed.append(clock)
        commit(writer)

    def slow_header(*args, **options):
        nonlocal clock
        clock += 0.02
        return build_header(*args, **options)

    def slow_rows(writer: CacheWriter, content_hash: bytes, rows: np.ndarray) -> None:
        nonlocal clock
        clock += 0.1 * len(rows)
        add_rows(writer, content_hash, rows)

    monkeypatch.setattr(CacheWriter, "commit", slow_commit)
    monkeypatch.setattr(CacheWriter, "add_rows", slow_rows)
    monkeypatch.setattr("distill.cache.writer.build_header", slow_header)
    monkeypatch.setattr("distill.cache.writer.time", SimpleNamespace(monotonic=lambda: clock))
    result = preprocess(dataset, training(), workers=1)
    assert len(load_cache_manifest(result.cache_dir)["packs"]) == result.rows == 16
    assert 3 <= len(committed) <= 5  # each one and the end, 0.4 s apart
    assert 0.02 * (len(committed) - 1) <= 0.05 * (committed[-1] - committed[0])
    check(dataset, whole)


def test_packs_that_others_may_have_opened_stay_for_a_day(dataset, whole, monkeypatch):
    for number in (1, 2):
        shard(dataset, number, 2)
    slot = slot_of(dataset)
    before = {path.name for path in (slot / "packs").iterdir()}
    monkeypatch.setattr(compaction, "_SMALL_PACKS", 1)
    (dataset / "sound-1.wav").unlink()
    preprocess(dataset, training())
    assert {path.name for path in (slot / "packs").iterdir()} == before  # not compacted for being small
    clean(dataset / ".cache")
    retired = {path.name for path in (slot / "packs").iterdir()} - {
        pack["name"] for pack in load_cache_manifest(slot)["packs"]
    }
    assert retired >= {f"{name}.retired" for name in before}  # and those that were merged in between
    (slot / "parts" / f"{'0' * 16}.safetensors").write_bytes(b"begun by a job that was killed")
    clean(dataset / ".cache")
    assert retired <= {path.name for path in (slot / "packs").iterdir()}
    monkeypatch.setattr(leftovers, "_ABANDONED_AFTER_S", -1)
    clean(dataset / ".cache")
    assert {path.name for path in (slot / "packs").iterdir()} == {
        pack["name"] for pack in load_cache_manifest(slot)["packs"]
    }
    assert [path.name for path in (slot / "parts").iterdir()] == ["shared"]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "-1/3", "a/b", "1/3/5", ""])
def test_a_shard_that_there_is_not_is_refused(dataset, text, capsys):
    with pytest.raises(ConfigError, match="I/N"):
        Shard.parse(text)
    assert main(["preprocess", str(dataset), "--shard", text]) == 2
    assert "tip: the first of four jobs is --shard 1/4" in capsys.readouterr().err


def test_shards_are_about_equal_and_share_no_file():
    names = [f"folder/{number:06}.wav".encode() for number in range(10_000)]
    shares = [[shard.has(name) for name in names] for shard in (Shard(number, 7) for number in range(1, 8))]
    assert np.array_equal(np.sum(shares, axis=0), np.ones(len(names)))
    assert all(1_300 < sum(share) < 1_560 for share in shares)


def in_order(damage=lambda number, path: None):
    """An engine that computes parts one after the other, and damages part files."""

    def run(job: Job, planned: Sequence[Part]) -> Iterator[Extracted]:
        for number, part in enumerate(planned):
            extracted = extract_part(pickle.loads(pickle.dumps(job)), part, lambda: None)  # noqa: S301
            damage(number, extracted.path)
            yield extracted

    return run


def small_parts(monkeypatch) -> None:
    """Packs, and so parts, of three rows."""
    monkeypatch.setattr("distill.cache.pack.MAX_PACK_BYTES", 1024 + 3 * (2 * 32 * 32 * 4 + 8))


def test_an_engine_gives_the_rows_of_threads(dataset, whole, monkeypatch):
    small_parts(monkeypatch)
    result = preprocess(dataset, training(), engine=in_order())
    assert (result.decoded, result.adopted) == (8, 0)
    check(dataset, whole)


@pytest.mark.parametrize("fault", ["flipped", "gone", "pack gone"])
def test_the_rows_of_a_part_that_is_lost_on_the_way_are_computed_here(dataset, whole, monkeypatch, caplog, fault):
    small_parts(monkeypatch)
    monkeypatch.setattr(parts, "_SEEN_AFTER_S", 0.1)

    def damage(number: int, path: Path) -> None:
        if number != 1:
            return
        content = path.read_bytes()
        match fault:
            case "flipped":
                path.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
            case "gone":
                path.unlink()
            case "pack gone":
                for name in load_pack_names(path):
                    (path.parent / name).unlink()

    result = preprocess(dataset, training(), engine=in_order(damage))
    assert result.rows == 16
    assert "computed here" in caplog.text
    check(dataset, whole)


def load_pack_names(path: Path) -> list[str]:
    return [entry["name"] for entry in Manifest.load(path).packs()]


def test_an_error_in_the_middle_of_a_part_keeps_what_was_finished(dataset, whole, monkeypatch):
    """The third file of a part cannot be decoded for want of memory, which is no fault of the file."""
    decoded: list[str] = []

    @contextmanager
    def running_out(path):
        decoded.append(path)
        if len(decoded) == 3:
            raise MemoryError
        yield

    around_decoding(monkeypatch, running_out)
    with busy(dataset), pytest.raises(MemoryError):
        preprocess(dataset, training(), shard=Shard(1, 1), workers=1)
    monkeypatch.undo()
    result = preprocess(dataset, training())
    assert (result.adopted, result.decoded) == (2, 6)
    check(dataset, whole)


def test_a_full_disk_keeps_the_packs_that_are_closed_and_leaves_no_other(dataset, whole, monkeypatch):
    small_parts(monkeypatch)
    close, closed = PackWriter.close, []

    def failing(writer: PackWriter):
        closed.append(writer.path)
        if len(closed) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return close(writer)

    monkeypatch.setattr(PackWriter, "close", failing)
    # All in one part of several packs.
    monkeypatch.setattr("distill.preprocess.parts.rows_that_fit", lambda shape, dtype: 1000)
    with busy(dataset), pytest.raises(StorageError, match="the disk is full"):
        preprocess(dataset, training(), shard=Shard(1, 1), workers=1)
    folder = slot_of(dataset) / "parts"
    listed = {name for path in folder.glob("*.part.json") for name in load_pack_names(path)}
    assert listed
    assert {path.name for path in folder.glob("*.safetensors")} == listed
    monkeypatch.undo()
    result = preprocess(dataset, training())
    assert result.adopted > 0
    assert result.decoded < 8
    check(dataset, whole)


def test_a_slot_with_parts_is_removed_as_a_whole_and_not_cleaned_away(dataset, whole, monkeypatch, caplog):
    with busy(dataset):
        shard(dataset, 1, 1)
    slot = slot_of(dataset)
    clean(dataset / ".cache")
    assert "not collected yet" in caplog.text
    forbid_decoding(monkeypatch)
    check(dataset, whole)
    with busy(dataset):
        pass
    assert main(["clean", str(dataset), "--slot", slot.name[:6], "--yes"]) == 0
    assert not slot.exists()


def test_files_that_were_touched_or_renamed_are_decoded_and_not_written_again(dataset, whole):
    shard(dataset, 1, 1)
    (dataset / "sound-1.wav").rename(dataset / "renamed.wav")
    os.utime(dataset / "sound-3.wav")
    assert shard(dataset, 1, 1).decoded == 2
    packs = load_cache_manifest(slot_of(dataset))["packs"]
    assert sum(pack["rows"] for pack in packs) == 16
    check(dataset, whole)


def test_hashes_of_parts_serve_other_configurations(dataset, monkeypatch):
    with busy(dataset):
        shard(dataset, 1, 1)
    age(dataset)
    preprocess(dataset, training())
    assert len(FileTable.load(dataset / ".cache" / "files.json")) == 8
