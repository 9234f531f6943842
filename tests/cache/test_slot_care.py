"""Care of slots: what is unfinished, damaged, unreadable or earlier is listed, and goes only when asked."""

from __future__ import annotations

import shutil

import pytest

from distill.audio import load_cache_manifest
from distill.cache import CacheReader
from distill.cache.compaction import clean
from distill.cache.removal import choose_removals, remove
from distill.config import ComplexSpectrogramConfig
from distill.errors import CacheError
from distill.index import Dataset, FileTable
from distill.preprocess.pipeline import preprocess
from distill.preprocess.status import dataset_status
from distill.preprocess.verify import repair, verify
from sounds import FEATURE, noise, one_object, reseal, rows_by_path, slot_of, training, write, write_dataset

OTHER = training(complex_spectrogram=ComplexSpectrogramConfig(**(FEATURE | {"n_mels": 16})))


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path / "dataset")
    return tmp_path / "dataset"


def flip(slot, at: int = 1024 + 9) -> None:
    """Damage a row of the only pack of a slot."""
    (path,) = (slot / "packs").iterdir()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def to_old_layout(dataset) -> None:
    slot, cache = slot_of(dataset), dataset / ".cache"
    for name in ("manifest.json", "packs"):
        (slot / name).rename(cache / name)
    shutil.rmtree(cache / "slots")


def test_an_unfinished_slot_is_listed_and_cleaned(dataset):
    """As a killed first run leaves it: packs, and no manifest."""
    slot = preprocess(dataset, training()).cache_dir
    other = preprocess(dataset, OTHER).cache_dir
    (other / "manifest.json").unlink()
    (other / "mine.txt").write_text("precious")
    listed = {entry["name"]: entry for entry in dataset_status(dataset)["slots"]}
    assert listed[other.name]["damage"]
    assert listed[other.name]["bytes"] > 10_000
    assert dataset_status(dataset)["rows"] == 10
    assert clean(dataset / ".cache").bytes == listed[other.name]["bytes"]
    assert not (other / "packs").exists()
    assert (other / "mine.txt").read_text() == "precious"
    assert preprocess(dataset, training()).decoded == 0
    assert len(CacheReader(slot)) == 10


def test_one_damaged_slot_does_not_hide_the_others(dataset, run):
    slot = preprocess(dataset, training()).cache_dir
    other = preprocess(dataset, OTHER).cache_dir
    (other / "manifest.json").write_text("junk")
    flip(slot)
    found = dict(verify(dataset).damaged)
    assert sorted(path.split("/")[1] for path in found) == sorted([slot.name, other.name])
    assert found[f"slots/{other.name}/manifest.json"].code == "damaged"
    assert repair(dataset).decoded == 1
    assert [path.split("/")[1] for path, _ in verify(dataset).damaged] == [other.name]
    code, out, _ = run("clean", dataset)
    assert (code, f"{other.name}: not cleaned" in out) == (0, True)


def test_a_slot_that_cannot_be_entered_is_an_error(unprivileged):
    write_dataset(unprivileged, 2)
    slot = preprocess(unprivileged, training()).cache_dir
    slot.chmod(0)
    try:
        for use in (verify, dataset_status, lambda dataset: preprocess(dataset, training())):
            with pytest.raises(CacheError, match="cannot be read: Permission denied"):
                use(unprivileged)
    finally:
        slot.chmod(0o700)


def test_a_repair_keeps_rows_of_renamed_files(dataset):
    slot = preprocess(dataset, training()).cache_dir
    before = rows_by_path(slot)
    (dataset / "sound-1.wav").rename(dataset / "renamed.wav")
    (dataset / "sound-3.wav").unlink()
    write(dataset / "new.wav", noise(90))
    flip(slot)
    assert repair(dataset).decoded == 1
    assert verify(dataset).damaged == []
    after = rows_by_path(slot)
    assert after.keys() == (before.keys() - {"sound-1.wav", "sound-3.wav"}) | {"renamed.wav"}
    assert (after["renamed.wav"] == before["sound-1.wav"]).all()
    assert preprocess(dataset, training()).decoded == 1


def test_a_repair_does_not_count_as_use_nor_touch_a_copy(dataset, caplog):
    slot = preprocess(dataset, training()).cache_dir
    other = preprocess(dataset, OTHER).cache_dir
    copy = shutil.copytree(slot, slot.with_name("backup"))
    flip(copy)
    order = [entry["name"] for entry in dataset_status(dataset)["slots"]]
    content = next((copy / "packs").iterdir()).read_bytes()
    repair(dataset)
    assert [entry["name"] for entry in dataset_status(dataset)["slots"]] == order
    assert other.name in order
    assert "backup: not repaired" in caplog.text
    assert next((copy / "packs").iterdir()).read_bytes() == content


def test_a_slot_that_was_used_since_it_was_chosen_is_not_removed(dataset, caplog):
    slot = preprocess(dataset, training()).cache_dir
    chosen = choose_removals(dataset / ".cache", [slot.name], None)
    preprocess(dataset, training())
    assert remove(dataset / ".cache", chosen) == []
    assert "used meanwhile" in caplog.text
    assert len(CacheReader(slot)) == 10


def test_a_link_in_place_of_a_slot_is_removed_and_its_target_is_not(dataset, tmp_path):
    slot = preprocess(dataset, training()).cache_dir
    shutil.move(slot, tmp_path / "elsewhere")
    slot.symlink_to(tmp_path / "elsewhere")
    chosen = choose_removals(dataset / ".cache", [slot.name], None)
    assert remove(dataset / ".cache", chosen) == chosen
    assert not slot.is_symlink()
    assert len(CacheReader(tmp_path / "elsewhere")) == 10


def test_the_name_of_a_slot_that_begins_another_one_means_the_first(dataset):
    slot = preprocess(dataset, training()).cache_dir
    shutil.copytree(slot, slot.with_name(f"{slot.name}.bak"))
    assert [item.path for item in choose_removals(dataset / ".cache", [slot.name], None)] == [slot]


@pytest.mark.parametrize("fault", ["later version", "slot exists"])
def test_a_cache_without_slots_that_is_not_damaged_is_not_taken_for_damage(dataset, run, fault):
    preprocess(dataset, training())
    to_old_layout(dataset)
    manifest = dataset / ".cache" / "manifest.json"
    if fault == "later version":
        reseal(manifest, lambda line: line.replace('"version":3', '"version":7'))
        before = manifest.read_bytes()
        with pytest.raises(CacheError, match="a later version"):
            dataset_status(dataset)
        code, _, err = run("clean", dataset, "--slot", "earlier", "--yes")
        assert (code, "no slot has a name" in err) == (2, True)
        assert manifest.read_bytes() == before
        return
    shutil.copytree(dataset / ".cache", dataset.parent / "copy")
    slot = preprocess(dataset, training()).cache_dir
    for name in ("manifest.json", "packs"):
        shutil.move(dataset.parent / "copy" / name, dataset / ".cache" / name)
    status = one_object(*run("status", dataset, "--json"))
    assert status["leftover"]["name"] == "earlier"
    assert [entry["name"] for entry in status["slots"]] == [slot.name]
    assert run("clean", dataset, "--slot", "earlier", "--yes")[0] == 0
    assert not manifest.exists()
    assert preprocess(dataset, training()).decoded == 0


def test_the_table_of_files_keeps_what_lists_do_not_name(dataset):
    preprocess(dataset, training())
    for _ in range(2):
        preprocess(Dataset(dataset, files=["sound-1.wav"]), OTHER)
        assert len(FileTable.load(dataset / ".cache" / "files.json")) == 5


def test_rows_that_a_list_does_not_select_are_copied_too(dataset):
    preprocess(dataset, training(augmentation_expansion=2))
    preprocess(Dataset(dataset, files=["sound-1.wav"]), training(augmentation_expansion=2))
    result = preprocess(dataset, training(augmentation_expansion=1))
    assert (result.decoded, result.rows) == (0, 20)


def test_the_cache_of_a_dataset_that_is_gone_can_be_removed(dataset, tmp_path, run):
    slot = preprocess(Dataset(dataset, cache_dir=tmp_path / "cache"), training()).cache_dir
    shutil.rmtree(dataset)
    code, _, err = run("clean", dataset, "--cache-dir", tmp_path / "cache", "--slot", slot.name, "--yes")
    assert (code, slot.exists()) == (0, False), err


def test_each_damaged_slot_is_repaired(dataset):
    """Both numbers of variants were chosen, so that the configuration alone does not say which slot is meant."""
    from distill.preprocess import plan

    slots = []
    for limit in (0, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plan, "_SMALL_DATASET_FILES", limit)
            patch.setattr(plan, "chosen_before", lambda *given: None)
            slots.append(preprocess(dataset, training(augmentation_expansion=None)).cache_dir)
    assert slots[0] != slots[1]
    for slot in slots:
        flip(slot)
    assert {path for path, _ in verify(dataset).damaged} == {
        f"slots/{slot.name}/packs/{path.name}" for slot in slots for path in (slot / "packs").iterdir()
    }
    repair(dataset)
    assert verify(dataset).damaged == []
    assert all(load_cache_manifest(slot)["expansion_is_chosen"] for slot in slots)


def test_rows_of_an_earlier_version_are_not_repaired_with_those_of_this_one(dataset, monkeypatch, caplog):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.preprocess.plan.DECODER_VERSION", "0 earlier")
        earlier = preprocess(dataset, training()).cache_dir
    flip(earlier)
    with pytest.raises(CacheError, match="earlier version"):
        repair(dataset)
    assert preprocess(dataset, training()).cache_dir != earlier
    repair(dataset)
    assert f"clean --slot {earlier.name}" in caplog.text
    assert [path.split("/")[1] for path, _ in verify(dataset).damaged] == [earlier.name]
