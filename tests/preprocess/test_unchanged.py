"""A run that finds nothing to do is answered at once, with the same words; whatever is not as it was is noticed."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace

import pytest

from distill.audio import AugmentationConfig, ComplexSpectrogramConfig
from distill.errors import ConfigError, DatasetError
from distill.index import Dataset
from distill.preprocess.pipeline import preprocess
from distill.preprocess.unchanged import unchanged_result
from sounds import FEATURE, age, noise, slot_of, training, write, write_dataset


@pytest.fixture(scope="module")
def preprocessed(tmp_path_factory):
    """A dataset in the cache, with a file that is skipped and one of a kind that is not read."""
    root = tmp_path_factory.mktemp("preprocessed") / "dataset"
    write_dataset(root, 3)
    (root / "empty.wav").touch()
    (root / "other.sd2").touch()
    age(root)
    preprocess(root, training())
    return root


@pytest.fixture
def dataset(preprocessed, tmp_path):
    """A copy of it that is up to date: another folder has other inodes, and packs other times."""
    root = tmp_path / "dataset"
    shutil.copytree(preprocessed, root, symlinks=True)
    age(root)
    preprocess(root, training())
    assert unchanged_result(Dataset(root), training()) is not None
    return root


def messages(caplog, function):
    caplog.clear()
    with caplog.at_level(logging.INFO, "distill"):
        result = function()
    return result, [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("expansion", [0, None], ids=["requested", "chosen"])
def test_the_result_and_the_log_are_those_of_preprocess(dataset, caplog, expansion):
    config = training(augmentation_expansion=expansion)
    preprocess(dataset, config)
    expected, lines = messages(caplog, lambda: preprocess(dataset, config))
    found, ours = messages(caplog, lambda: unchanged_result(Dataset(dataset), config))
    assert ours == lines
    assert replace(found, seconds=0) == replace(expected, seconds=0)
    assert (found.rows > 0, found.decoded, found.unread) == (True, 0, {"sd2": 1})
    assert [path for path, _ in found.skipped] == ["empty.wav"]


def test_it_counts_as_a_use_of_the_slot_and_changes_no_file(dataset):
    slot = slot_of(dataset)
    os.utime(slot, (0, 0))
    files = {path: path.stat() for path in dataset.rglob("*") if path.is_file()}
    assert unchanged_result(Dataset(dataset), training()) is not None
    assert slot.stat().st_mtime > 1e9
    assert {path: path.stat() for path in dataset.rglob("*") if path.is_file()} == files


def add(root):
    write(root / "new.wav", noise(9))


def change(root):
    write(root / "sound-1.wav", noise(9))


def rename(root):
    (root / "sound-1.wav").rename(root / "renamed.wav")


def copy(root):
    shutil.copy2(root / "sound-1.wav", root / "copy.wav")


def touch(root):
    os.utime(root / "sound-1.wav", (1e9, 1e9))


def pack_of(root):
    (pack,) = (slot_of(root) / "packs").iterdir()
    return pack


CHANGES = {
    "a new file": add,
    "a changed file": change,
    "a renamed file": rename,
    "a copy": copy,
    "a touched file": touch,
    "a removed file": lambda root: (root / "sound-1.wav").unlink(),
    "a touched pack": lambda root: os.utime(pack_of(root), (1e9, 1e9)),
    "a missing pack": lambda root: pack_of(root).unlink(),
    "a pack that is cut": lambda root: os.truncate(pack_of(root), 2000),
    "a pack that no manifest names": lambda root: shutil.copy2(pack_of(root), pack_of(root).with_stem(16 * "0")),
    "a manifest that was being written": lambda root: (slot_of(root) / f".distill-{0:016x}.tmp").touch(),
    "no manifest": lambda root: (slot_of(root) / "manifest.json").unlink(),
    "a damaged manifest": lambda root: os.truncate(slot_of(root) / "manifest.json", 100),
    "no table of files": lambda root: (root / ".cache" / "files.json").unlink(),
    "a damaged table of files": lambda root: os.truncate(root / ".cache" / "files.json", 10),
    "parts of other processes": lambda root: (slot_of(root) / "parts").mkdir(),
    "no mark for backups": lambda root: (root / ".cache" / "CACHEDIR.TAG").unlink(),
    "a predecessor's cache": lambda root: (root / ".cache" / "000001.pt").touch(),
    "no cache": lambda root: shutil.rmtree(root / ".cache"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_has_changed_is_left_to_preprocess(dataset, caplog, change):
    change(dataset)
    result, lines = messages(caplog, lambda: unchanged_result(Dataset(dataset), training()))
    assert (result, lines) == (None, [])
    preprocess(dataset, training())


@pytest.mark.parametrize(
    "changes",
    [
        {"chunk_samples": 4_000},
        {"augmentation_expansion": 1},
        {"complex_spectrogram": ComplexSpectrogramConfig(**{**FEATURE, "n_mels": 30})},
        {"complex_spectrogram": ComplexSpectrogramConfig(**{**FEATURE, "n_fft": 64, "hop_length": 32})},
        {"augmentation": AugmentationConfig(pitch_semitones=1.0)},
        {"device": "cuda:7"},
    ],
    ids=str,
)
def test_another_configuration_is_left_to_preprocess(dataset, changes):
    assert unchanged_result(Dataset(dataset), training(**changes)) is None


def test_contents_are_compared_by_preprocess(dataset):
    assert unchanged_result(Dataset(dataset, trust="content"), training()) is None


def test_another_version_of_the_decoders_is_noticed(dataset, monkeypatch):
    monkeypatch.setattr("distill.preprocess.unchanged.installed_decoder_version", lambda: "another")
    assert unchanged_result(Dataset(dataset), training()) is None


def test_errors_are_those_of_preprocess(tmp_path, dataset, monkeypatch):
    with pytest.raises(DatasetError, match="no such folder"):
        unchanged_result(Dataset(tmp_path / "none"), training())
    with pytest.raises(ConfigError, match="workers"):
        unchanged_result(Dataset(dataset), training(), workers=0)
    monkeypatch.setenv("DISTILL_BACKEND", "none such")
    with pytest.raises(ConfigError, match="DISTILL_BACKEND"):
        unchanged_result(Dataset(dataset), training())
