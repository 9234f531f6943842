"""The binary copies of large tables: the same answers with and without them, and no failure without."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest

from distill.audio import load_cache_manifest
from distill.cache import CacheReader
from distill.preprocess.pipeline import preprocess
from distill.preprocess.status import dataset_status
from sounds import noise, reseal, rows_by_content, slot_of, training, write, write_dataset


@pytest.fixture(autouse=True)
def as_if_large(monkeypatch):
    monkeypatch.setattr("distill.cache.binary.COPY_FROM_BYTES", 0)


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / "dataset"
    write_dataset(root)
    write(root / "silent.wav", np.zeros(9_000))
    (root / "text.wav").write_text("no sound")
    preprocess(root, training())
    return root


def copies(dataset):
    return [slot_of(dataset) / "manifest.bin", dataset / ".cache" / "files.bin"]


def answers(dataset):
    slot = slot_of(dataset)
    reader = CacheReader(slot)
    status = dataset_status(dataset)
    for entry in (status, *status["slots"]):
        del entry["bytes"]  # the copy is a part of the slot
        entry.pop("last_used", None)
    return load_cache_manifest(slot), status, reader.content_hashes, reader.header


def test_answers_are_the_same_without_copies(dataset):
    with_copies = answers(dataset)
    before = rows_by_content(slot_of(dataset))
    for copy in copies(dataset):
        copy.unlink()
    assert answers(dataset) == with_copies
    assert preprocess(dataset, training()).decoded == 0
    assert all(copy.exists() for copy in copies(dataset))
    assert answers(dataset) == with_copies
    after = rows_by_content(slot_of(dataset))
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[content], rows) for content, rows in before.items())


def test_changes_are_found_with_the_copies_of_an_earlier_run(dataset, tmp_path):
    old = [copy.read_bytes() for copy in copies(dataset)]
    write(dataset / "new.wav", noise(50), subtype="PCM_16")
    (dataset / "sound-1.wav").unlink()
    assert dataset_status(dataset)["added"] == 1
    assert preprocess(dataset, training()).decoded == 1
    assert [copy.read_bytes() for copy in copies(dataset)] != old
    expected = answers(dataset)
    # A process that was killed between manifest and copy leaves the copy before.
    for copy, content in zip(copies(dataset), old, strict=True):
        copy.write_bytes(content)
    assert answers(dataset) == expected
    assert preprocess(dataset, training()).decoded == 0
    shutil.copytree(dataset, tmp_path / "moved", copy_function=shutil.copyfile)
    assert preprocess(tmp_path / "moved", training()).decoded == 0


def test_a_copy_that_cannot_be_written_is_no_failure(dataset, caplog):
    expected = answers(dataset)
    for copy in copies(dataset):
        copy.unlink()
        copy.mkdir()
    with caplog.at_level(logging.DEBUG, "distill.cache.binary"):
        assert preprocess(dataset, training()).decoded == 0
    assert "manifest.json: no binary copy: " in caplog.text
    assert answers(dataset) == expected


def test_a_damaged_manifest_is_found_in_spite_of_its_copy(dataset):
    before = rows_by_content(slot_of(dataset))
    manifest = slot_of(dataset) / "manifest.json"
    content = manifest.read_bytes()
    manifest.write_bytes(content.replace(b'"silent":0', b'"silent":1', 1))
    assert manifest.read_bytes() != content
    assert load_cache_manifest(slot_of(dataset)) is None
    assert dataset_status(dataset)["damage"] == "manifest.json: its checksum is wrong"
    assert preprocess(dataset, training()).decoded >= 5
    assert rows_by_content(slot_of(dataset)).keys() == before.keys()


def test_a_copy_is_not_used_for_a_manifest_with_another_checksum(dataset):
    manifest = slot_of(dataset) / "manifest.json"
    reseal(manifest, lambda line: line.replace('"path":"sound-1.wav"', '"path":"sound-1x.wav"'))
    paths = [file["path"] for file in load_cache_manifest(slot_of(dataset))["files"]]
    assert "sound-1x.wav" in paths
    assert "sound-1.wav" not in paths


def test_a_slot_is_removed_with_its_copy(dataset, run):
    slot = slot_of(dataset)
    code, _, err = run("clean", dataset, "--slot", slot.name, "--yes")
    assert (code, err) == (0, "")
    assert not slot.exists()


def test_small_tables_have_no_copies(dataset, monkeypatch):
    monkeypatch.setattr("distill.cache.binary.COPY_FROM_BYTES", 1_000_000)
    preprocess(dataset, training())
    assert not any(copy.exists() for copy in copies(dataset))
