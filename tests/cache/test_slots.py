"""Slots: each configuration has its own rows, files are hashed once for all, and nothing is given up unasked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from distill.audio import load_cache_manifest
from distill.cache import CacheReader
from distill.cache.export import export
from distill.config import ComplexSpectrogramConfig
from distill.errors import CacheError, ConfigError, PreprocessingCancelled
from distill.index import Dataset
from distill.preprocess.pipeline import preprocess
from distill.preprocess.status import dataset_status
from distill.preprocess.verify import verify
from sounds import (
    CHUNK,
    FEATURE,
    SMALL,
    age,
    noise,
    one_object,
    reseal,
    rows_by_content,
    rows_by_path,
    slot_of,
    training,
    write,
    write_dataset,
)

OTHER = ComplexSpectrogramConfig(**(FEATURE | {"n_mels": 16}))


def files_under(folder):
    """The bytes of every file."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.mark.parametrize("at", ["question", "first row", "end"])
def test_another_configuration_touches_no_other_slot(dataset, at, monkeypatch):
    monkeypatch.setattr("distill.preprocess.plan.CONFIRM_ABOVE_BYTES", 0)
    first = preprocess(dataset, training()).cache_dir
    before = files_under(first)

    def interrupt(stage, current, total):
        if stage == "features":
            raise KeyboardInterrupt

    other = training(complex_spectrogram=OTHER)
    if at == "end":
        result = preprocess(dataset, other)
        assert result.decoded == 5
        assert any("n_mels was 32, is 16" in line for line in result.changed_fields)
        assert CacheReader(result.cache_dir).row_shape == (2, 16, 32)
    else:
        with pytest.raises((KeyboardInterrupt, PreprocessingCancelled)):
            preprocess(dataset, other, progress=interrupt, confirm=lambda question: at != "question")
        assert dataset_status(dataset)["slots"][-1]["rows"] == 10
    assert files_under(first) == before
    again = preprocess(dataset, training())
    assert (again.decoded, again.cache_dir, again.changed_fields) == (0, first, [])
    assert files_under(first) == before


def test_files_are_hashed_once_for_all_configurations(dataset):
    for number in range(5):  # files of one size are hashed before any is decoded
        write(dataset / f"same-{number}.wav", noise(50 + number, 2 * CHUNK), subtype="PCM_16")
    age(dataset)
    stages = []

    def interrupt(stage, current, total):
        stages.append(stage)
        if stage == "features":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preprocess(dataset, training(), progress=interrupt)
    assert "hash" in stages
    for config in (training(), training(complex_spectrogram=OTHER), training(chunk_samples=4_000)):
        stages = []
        assert preprocess(dataset, config, progress=lambda *event: stages.append(event[0])).decoded == 10  # noqa: B023
        assert "hash" not in stages
        assert "features" in stages
    # A file that changed while another slot was computed is found by its stamps.
    write(dataset / "sound-1.wav", noise(40))
    assert preprocess(dataset, training()).decoded == 1
    assert preprocess(dataset, training(complex_spectrogram=OTHER)).decoded == 1


@pytest.mark.parametrize("fewer", [0, 2])
def test_rows_of_a_slot_with_more_variants_are_copied(dataset, tmp_path, fewer):
    write(dataset / "silent.wav", np.zeros(CHUNK))
    write(dataset / "gap.wav", np.concatenate([noise(5), np.zeros(CHUNK), noise(6)]))
    preprocess(dataset, training(augmentation_expansion=3))
    result = preprocess(dataset, training(augmentation_expansion=fewer))
    assert result.decoded == 1  # the silent one, which has no rows to copy
    fresh = preprocess(Dataset(dataset, cache_dir=tmp_path / "fresh"), training(augmentation_expansion=fewer))
    copied, computed = rows_by_content(result.cache_dir), rows_by_content(fresh.cache_dir)
    assert result.rows == fresh.rows == 12 * (1 + fewer)
    assert copied.keys() == computed.keys()
    assert all(np.array_equal(copied[content], rows) for content, rows in computed.items())
    assert result.normalization_stats == fresh.normalization_stats
    header, expected = (load_cache_manifest(each.cache_dir) for each in (result, fresh))
    assert header["silent_chunks"] == expected["silent_chunks"] == 2
    # More variants have to be augmented, so they have to be decoded.
    assert preprocess(dataset, training(augmentation_expansion=4)).decoded == 7


def test_a_damaged_row_is_not_copied(dataset, caplog):
    slot = preprocess(dataset, training(augmentation_expansion=1)).cache_dir
    (path,) = (slot / "packs").iterdir()
    content = bytearray(path.read_bytes())
    content[1024 + 9] ^= 1
    path.write_bytes(content)
    result = preprocess(dataset, training())
    assert (result.decoded, result.rows) == (1, 10)
    assert "does not match its checksum" in caplog.text
    assert verify(Dataset(dataset)).damaged  # the damaged slot is left as it is


def test_variants_of_another_augmentation_are_not_copied(dataset):
    from distill.config import AugmentationConfig

    preprocess(dataset, training(augmentation_expansion=3))
    other = training(augmentation_expansion=2, augmentation=AugmentationConfig(gain_db=1.0))
    assert preprocess(dataset, other).decoded == 5


def test_a_manifest_of_a_later_version_is_refused_and_left_alone(dataset, tmp_path, run):
    slot = preprocess(dataset, training()).cache_dir
    reseal(slot / "manifest.json", lambda line: line.replace('"version":3', '"version":4'))
    before = files_under(slot)
    for use in (
        lambda: preprocess(dataset, training()),
        lambda: dataset_status(dataset),
        lambda: verify(dataset),
        lambda: export(slot, tmp_path / "out"),
        lambda: load_cache_manifest(slot),
        lambda: CacheReader(slot),
    ):
        with pytest.raises(CacheError, match=r"manifest\.json: a later version of distill") as caught:
            use()
        assert "update distill" in caught.value.tip
    # Another configuration does not need it.
    assert preprocess(dataset, training(complex_spectrogram=OTHER)).decoded == 5
    (listed,) = (slot for slot in dataset_status(dataset)["slots"] if slot["damage"])
    assert (listed["name"], listed["fingerprint"]) == (slot.name, None)
    assert "a later version" in listed["damage"]
    code, out, _ = run("status", dataset)
    assert (code, "damaged" in out) == (0, False)
    assert f"MB, cannot be used: {slot / 'manifest.json'}: a later version" in out
    assert files_under(slot) == before


def test_a_table_of_files_of_a_later_version_is_refused_and_left_alone(dataset):
    preprocess(dataset, training())
    path = dataset / ".cache" / "files.json"
    reseal(path, lambda line: line.replace('"version":3', '"version":4'))
    before = path.read_bytes()
    with pytest.raises(CacheError, match=r"files\.json: a later version of distill"):
        preprocess(dataset, training())
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 500])
def test_a_damaged_table_of_files_costs_hashes_only(dataset, caplog, damage):
    preprocess(dataset, training())
    (dataset / ".cache" / "files.json").write_bytes(damage)
    assert preprocess(dataset, training()).decoded == 0
    assert "files.json" in caplog.text
    assert "files are hashed again" in caplog.text


def without_slots(dataset) -> None:
    """Give a cache the layout that it had before there were slots."""
    slot, cache = slot_of(dataset), dataset / ".cache"
    reseal(slot / "manifest.json", lambda line: line.replace('"version":3', '"version":1'))
    for name in ("manifest.json", "packs"):
        (slot / name).rename(cache / name)
    shutil.rmtree(cache / "slots")
    for name in ("files.json", "CACHEDIR.TAG", ".gitignore"):
        (cache / name).unlink()


@pytest.mark.parametrize("killed", [False, True])
def test_a_cache_without_slots_moves_into_its_slot(dataset, killed):
    slot = preprocess(dataset, training()).cache_dir
    before = rows_by_path(slot)
    packs = {path.name: (path.stat().st_ino, path.read_bytes()) for path in (slot / "packs").iterdir()}
    without_slots(dataset)
    cache = dataset / ".cache"
    # Readers and status need no move.
    assert rows_by_path(cache).keys() == before.keys()
    status = dataset_status(dataset)
    assert [(found["name"], found["rows"]) for found in status["slots"]] == [(slot.name, 10)]
    assert (status["unchanged"], status["leftover"]) == (5, None)
    if killed:
        slot.mkdir(parents=True)
        (cache / "packs").rename(slot / "packs")
    events = []
    result = preprocess(dataset, training(), progress=lambda *event: events.append(event[0]))
    assert (result.decoded, result.rows, result.cache_dir) == (0, 10, slot)
    assert "features" not in events
    assert {path.name: (path.stat().st_ino, path.read_bytes()) for path in (slot / "packs").iterdir()} == packs
    assert not (cache / "packs").exists()
    assert not (cache / "manifest.json").exists()
    after = rows_by_path(slot)
    assert all(np.array_equal(after[path], rows) for path, rows in before.items())


def test_a_cache_without_slots_moves_also_when_another_configuration_is_computed(dataset):
    slot = preprocess(dataset, training()).cache_dir
    age(dataset)
    preprocess(dataset, training())
    without_slots(dataset)
    stages = []
    preprocess(dataset, training(complex_spectrogram=OTHER), progress=lambda *event: stages.append(event[0]))
    assert "hash" not in stages
    assert preprocess(dataset, training()).decoded == 0
    assert len(CacheReader(slot)) == 10


def test_the_cache_of_the_predecessor_is_named_and_left_alone_until_asked(dataset, run, caplog):
    cache = dataset / ".cache"
    cache.mkdir()
    (cache / "manifest.json").write_text(json.dumps({"files": [{"path": "/x.wav", "mtime": 1.5}], "version": 1}))
    for number in range(3):
        (cache / f"{number:06d}.pt").write_bytes(b"PK" + bytes(1000 * number))
    (cache / "mine.txt").write_text("precious")
    before = files_under(cache)
    assert preprocess(dataset, training()).decoded == 5
    assert "predecessor" in caplog.text
    assert before.items() <= files_under(cache).items()
    status = one_object(*run("status", dataset, "--json"))
    assert status["leftover"] == {"name": "predecessor", "files": 4, "bytes": sum(map(len, before.values())) - 8}
    assert "predecessor" in run("status", dataset)[1]
    code, out, _ = run("clean", dataset)
    assert code == 0
    assert before.items() <= files_under(cache).items()
    code, out, _ = run("clean", dataset, "--slot", "predecessor", "--yes")
    assert (code, "predecessor" in out) == (0, True)
    assert files_under(cache).keys() & before.keys() == {cache / "mine.txt"}
    assert one_object(*run("status", dataset, "--json"))["leftover"] is None
    assert preprocess(dataset, training()).decoded == 0


def test_status_lists_slots_and_clean_removes_them(dataset, run):
    quick = preprocess(dataset, training()).cache_dir
    large = preprocess(dataset, training(complex_spectrogram=OTHER)).cache_dir
    old = datetime.now(timezone.utc) - timedelta(days=40)
    os.utime(quick, (old.timestamp(), old.timestamp()))
    status = one_object(*run("status", dataset, "--json"))
    one, two = status["slots"]
    assert (one["name"], two["name"]) == (large.name, quick.name)
    for slot, path, n_mels in ((one, large, 16), (two, quick, 32)):
        manifest = load_cache_manifest(path)
        assert slot["fingerprint"] == manifest["config_fingerprint"]
        assert slot["fingerprint"].startswith(slot["name"])
        assert f"n_mels {n_mels}," in slot["configuration"]
        assert slot["rows"] == manifest["total_spectrograms"] == 10
        assert slot["bytes"] == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert abs(datetime.fromisoformat(two["last_used"]) - old) < timedelta(seconds=2)
    assert datetime.fromisoformat(one["last_used"]) > old + timedelta(days=39)
    text = run("status", dataset)[1]
    assert all(slot["name"] in text and slot["configuration"] in text for slot in (one, two))

    # Without a terminal, nothing is removed unless --yes says so.
    code, _, err = run("clean", dataset, "--older-than", "30d")
    assert (code, "--yes" in err, quick.exists()) == (2, True, True)
    code, _, err = run("clean", dataset, "--slot", "zzz", "--yes")
    assert (code, "zzz" in err, quick.name in err) == (2, True, True)
    code, _, err = run("clean", dataset, "--older-than", "soon", "--yes")
    assert (code, "--older-than soon" in err) == (2, True)
    code, out, _ = run("clean", dataset, "--older-than", "60d", "--yes")
    assert (code, quick.exists()) == (0, True)
    code, out, _ = run("clean", dataset, "--older-than", "30d", "--yes")
    assert (code, quick.name in out, quick.exists(), large.exists()) == (0, True, False, True)
    assert preprocess(dataset, training(complex_spectrogram=OTHER)).decoded == 0
    code, out, _ = run("clean", dataset, "--slot", large.name[:5], "--yes")
    assert (code, large.exists()) == (0, False)
    assert one_object(*run("status", dataset, "--json"))["slots"] == []


def test_readers_of_a_cache_with_two_slots_ask_which(dataset, tmp_path, run):
    one = preprocess(dataset, training()).cache_dir
    assert len(CacheReader(dataset / ".cache")) == 10
    two = preprocess(dataset, training(complex_spectrogram=OTHER)).cache_dir
    for use in (CacheReader, load_cache_manifest, lambda cache: export(cache, tmp_path / "out")):
        with pytest.raises(CacheError, match="2 configurations") as caught:
            use(dataset / ".cache")
        assert all(f"{slot.name}: n_mels" in str(caught.value) for slot in (one, two))
    assert run("export", dataset, tmp_path / "out")[0] == 1
    assert run("export", dataset, tmp_path / "out", "--slot", two.name[:8], "--format", "npy")[0] == 0
    assert np.load(tmp_path / "out" / "features.npy").shape == (10, 2, 16, 32)


def test_the_folder_of_a_slot_is_accepted_as_the_cache(dataset, tmp_path):
    slot = preprocess(Dataset(dataset, cache_dir=tmp_path / "cache"), training()).cache_dir
    again = preprocess(Dataset(dataset, cache_dir=slot), training())
    assert (again.decoded, again.cache_dir) == (0, slot)
    other = preprocess(Dataset(dataset, cache_dir=slot), training(complex_spectrogram=OTHER))
    assert other.cache_dir.parent == slot.parent
    # A slot is complete without the rest of the cache.
    shutil.copytree(slot, tmp_path / "copy")
    assert rows_by_content(tmp_path / "copy").keys() == rows_by_content(slot).keys()


def test_backups_and_git_leave_the_cache_out(dataset, tmp_path):
    preprocess(dataset, training())
    subprocess.run(["tar", "--exclude-caches-all", "-cf", tmp_path / "backup.tar", "-C", dataset, "."], check=True)
    listed = subprocess.run(["tar", "-tf", tmp_path / "backup.tar"], check=True, capture_output=True, text=True).stdout
    assert "sound-1.wav" in listed
    assert ".cache" not in listed
    subprocess.run(["git", "init", "-q", dataset], check=True)
    status = ["git", "-C", dataset, "status", "--porcelain", "--untracked-files=all"]
    shown = subprocess.run(status, check=True, capture_output=True, text=True).stdout
    assert "sound-1.wav" in shown
    assert ".cache" not in shown


def test_a_list_of_files_gives_up_no_other_rows(dataset):
    whole = preprocess(dataset, training())
    before = rows_by_path(whole.cache_dir)
    some = ["sound-1.wav", "deep/er/sound-2.wav"]
    subset = preprocess(Dataset(dataset, files=some), training())
    assert (subset.decoded, subset.rows, subset.cache_dir) == (0, 4, whole.cache_dir)
    assert subset.counts["removed"] == 0
    served = rows_by_path(subset.cache_dir)
    assert served.keys() == set(some)
    assert all(np.array_equal(rows, before[path]) for path, rows in served.items())
    values = np.concatenate(list(served.values()))[:, 0].astype(np.float64)
    assert subset.normalization_stats["mag_mean"] == pytest.approx(values.mean(), rel=1e-6)
    assert {file["path"] for file in load_cache_manifest(subset.cache_dir)["files"]} == set(some)
    assert dataset_status(dataset)["dead_rows"] == 0
    # Neither a new file in the list, nor cleaning, costs the others their rows.
    write(dataset / "new.wav", noise(50))
    assert preprocess(Dataset(dataset, files=[*some, "new.wav"]), training()).decoded == 1
    from distill.cache.compaction import clean

    assert clean(whole.cache_dir) == (0, 0)
    again = preprocess(dataset, training())
    assert (again.decoded, again.rows) == (0, 11)
    after = rows_by_path(again.cache_dir)
    assert all(np.array_equal(after[path], rows) for path, rows in before.items())


def test_rows_of_files_that_are_not_listed_end_with_the_files(dataset):
    preprocess(dataset, training())
    preprocess(Dataset(dataset, files=["sound-1.wav"]), training())
    (dataset / "sound-3.wav").unlink()
    write(dataset / "deep" / "er" / "sound-0.wav", noise(70))
    result = preprocess(dataset, training())
    assert (result.decoded, result.rows, result.counts["removed"]) == (1, 7, 1)


def test_an_empty_name_of_a_slot_is_refused(dataset, run):
    preprocess(dataset, training())
    assert run("clean", dataset, "--slot", "", "--yes")[0] == ConfigError.exit_code
    assert len(CacheReader(dataset / ".cache")) == 10


def test_the_commands_compute_into_slots(dataset, run):
    one = one_object(*run("preprocess", dataset, *SMALL, "--json"))
    two = one_object(*run("preprocess", dataset, *SMALL, "--chunk-samples", "4000", "--json"))
    assert one["cache_dir"] != two["cache_dir"]
    assert one_object(*run("preprocess", dataset, *SMALL, "--json"))["decoded"] == 0


def test_other_files_in_the_folder_of_the_cache_are_neither_hidden_nor_left_out(dataset, tmp_path):
    """A folder that is not only a cache is not marked: backups and git would leave out the user's own files."""
    mine = dataset / "mine"
    write(mine / "take.wav", noise(80))
    result = preprocess(Dataset(dataset, cache_dir=mine), training())
    assert (result.decoded, result.rows) == (6, 11)
    assert not (mine / "CACHEDIR.TAG").exists()
    assert not (mine / ".gitignore").exists()
    subprocess.run(["git", "init", "-q", dataset], check=True)
    status = ["git", "-C", dataset, "status", "--porcelain", "--untracked-files=all"]
    shown = subprocess.run(status, check=True, capture_output=True, text=True).stdout
    assert "mine/take.wav" in shown
    assert "safetensors" not in shown
    # The dataset itself, too.
    here = preprocess(Dataset(dataset, cache_dir=dataset), training())
    assert (here.decoded, here.rows) == (6, 11)
    assert preprocess(Dataset(dataset, cache_dir=dataset), training()).decoded == 0


def test_a_folder_that_is_only_named_like_a_slot_is_a_cache(dataset, tmp_path):
    cache = tmp_path / "slots" / "cache"
    assert preprocess(Dataset(dataset, cache_dir=cache), training()).cache_dir.parent.parent == cache
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "slots"]
