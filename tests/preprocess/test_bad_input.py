"""Datasets with files that cannot be used, and calls with wrong arguments."""

from __future__ import annotations

import copy
import json
import os
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.audio import (
    ComplexSpectrogram,
    ComplexSpectrogramConfig,
    load_cache_manifest,
    preprocess_complex_spectrograms,
)
from distill.errors import ConfigError, DatasetError, NothingUsableError
from distill.index import Dataset
from distill.preprocess.pipeline import preprocess
from distill.preprocess.status import dataset_status
from distill.training import AudioTrainingDataset
from sounds import (
    CHUNK,
    FEATURE,
    RATE,
    around_decoding,
    chunks_by_hand,
    forbid_decoding,
    noise,
    reseal,
    rows_by_path,
    sine,
    training,
    write,
    write_dataset,
)


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path / "dataset")
    return tmp_path / "dataset"


def test_unusable_files_are_reported_and_the_others_are_processed(dataset, monkeypatch):
    whole = write(dataset / "whole.wav", noise(70, 50_000)).read_bytes()
    bad = {
        "text.wav": b"no sound at all " * 9,
        "empty.wav": b"",
        "magic.flac": b"fLaC" * 9,
    }
    (dataset / "cut.wav").write_bytes(whole[:-1_000])
    for name, content in bad.items():
        (dataset / name).write_bytes(content)
    write(dataset / "nan.wav", np.where(np.arange(CHUNK) == 5, np.nan, noise(71)))
    write(dataset / "zero.wav", np.zeros(0))
    write(dataset / "silent.wav", np.zeros(CHUNK))
    write(dataset / "huge.wav", 3.4e38 * np.sign(noise(72)), 44_100)
    (dataset / "link.wav").symlink_to("nowhere.wav")
    (dataset / "folder.wav").mkdir()
    reasons = {
        "text.wav": "not an audio file",
        "empty.wav": "empty file",
        "magic.flac": "damaged",
        "nan.wav": "NaN",
        "zero.wav": "no samples",
        "silent.wav": "silent",
        "huge.wav": "too large",
        "link.wav": "nowhere",
    }
    result = preprocess(dataset, training())
    assert result.rows == 10 + 7 + 7
    assert [(path, reason.code) for path, reason in result.partial] == [("cut.wav", "cut-short")]
    for found in (
        result.skipped,
        [(f["path"], f["skipped"]) for f in load_cache_manifest(result.cache_dir)["files"] if f["skipped"]],
    ):
        assert {path for path, _ in found} - {"link.wav"} == reasons.keys() - {"link.wav"}
        assert all(reasons[path] in reason for path, reason in found)
    assert "link.wav" in dict(result.skipped)
    codes = {
        "text.wav": "not-audio",
        "empty.wav": "empty",
        "magic.flac": "damaged",
        "nan.wav": "not-finite",
        "zero.wav": "no-samples",
        "silent.wav": "silent",
        "huge.wav": "not-finite",
    }
    for found in (result.skipped, dataset_status_reasons(dataset), copy.deepcopy(result.skipped)):
        assert {path: reason.code for path, reason in found if path in codes} == codes
    # A file whose bytes are unusable is not decoded again.
    forbid_decoding(monkeypatch)
    assert preprocess(dataset, training()).rows == 24


def dataset_status_reasons(dataset):
    found = dataset_status(dataset)["skipped_files"]
    assert all(entry["code"] == entry["reason"].code for entry in found)
    return [(entry["path"], entry["reason"]) for entry in found]


def test_reasons_of_a_manifest_without_codes_are_read(dataset):
    (dataset / "empty.wav").touch()
    write(dataset / "silent.wav", np.zeros(CHUNK))
    result = preprocess(dataset, training())
    manifest = result.cache_dir / "manifest.json"
    assert manifest.read_text().count('"code":"') == 2
    reseal(manifest, lambda line: re.sub(',"code":"[a-z-]+"', "", line))
    assert '"code":' not in manifest.read_text()
    again = preprocess(dataset, training())
    assert (again.decoded, again.skipped) == (0, result.skipped)
    assert {path: reason.code for path, reason in again.skipped} == {"empty.wav": "empty", "silent.wav": "unusable"}


def test_samples_too_large_for_features_do_not_end_the_run(dataset):
    write(dataset / "huge.wav", 1e25 * np.sign(noise(72)))
    result = preprocess(dataset, training(normalize="none"))
    assert [path for path, _ in result.skipped] == ["huge.wav"]
    assert result.rows == 10
    assert all(np.isfinite(list(result.normalization_stats.values())))


def test_file_names_need_not_be_unicode(tmp_path):
    root = tmp_path / "dataset"
    names = [b"\xff\xfe.wav", b"new\nline.wav", b"two words.wav", b'quo"te.wav']
    for number, name in enumerate(names):
        write(os.path.join(os.fsencode(root), name), sine(200 + 100 * number))
    result = preprocess(root, training())
    manifest = json.loads(json.dumps(load_cache_manifest(result.cache_dir)))
    assert {os.fsencode(file["path"]) for file in manifest["files"]} == set(names)
    assert preprocess(root, training()).counts["unchanged"] == 4


def test_a_dataset_without_audio_or_without_usable_audio_is_an_error(tmp_path):
    root = tmp_path / "dataset"
    root.mkdir()
    (root / "notes.txt").write_text("none of it is audio")
    with pytest.raises(DatasetError, match="no audio") as caught:
        preprocess(root, training())
    assert "flac" in caught.value.tip
    assert not (root / ".cache").exists()
    write(root / "silent.wav", np.zeros(CHUNK))
    for _ in range(2):
        with pytest.raises(NothingUsableError, match=r"silent\.wav: silent"):
            preprocess(root, training())


def test_wrong_arguments_are_errors(dataset):
    with pytest.raises(ConfigError, match="sample_rate=8000"):
        preprocess_complex_spectrograms(None, dataset, ComplexSpectrogramConfig(**FEATURE), sample_rate=8_000)
    with pytest.raises(ConfigError) as caught:
        preprocess_complex_spectrograms(
            None, dataset, ComplexSpectrogramConfig(**FEATURE), None, -1, 100, RATE, device="abacus"
        )
    assert len(caught.value.faults) == 3
    for workers in (0, -1):
        with pytest.raises(ConfigError, match="workers"):
            preprocess(dataset, training(), workers=workers)
    for path, what in ((dataset / "none", "no such folder"), (dataset / "sound-1.wav", "not a folder")):
        with pytest.raises(DatasetError, match=what):
            preprocess(path, training())
    assert not (dataset / ".cache").exists()


def test_a_file_replaced_while_it_is_decoded_is_computed_by_the_next_run(dataset, monkeypatch):
    @contextmanager
    def replaced(path):
        yield
        if path.endswith("sound-1.wav"):
            write(path, noise(80, CHUNK))

    with monkeypatch.context() as patch:
        around_decoding(patch, replaced)
        result = preprocess(dataset, training())
    assert result.skipped == [("sound-1.wav", "changed while it was read")]
    assert "sound-1.wav" not in rows_by_path(result.cache_dir)
    again = preprocess(dataset, training())
    assert (again.decoded, again.skipped) == (1, [])
    chunks = torch.from_numpy(chunks_by_hand(dataset / "sound-1.wav"))
    expected = ComplexSpectrogram(training().complex_spectrogram)(chunks[:, None]).numpy()
    np.testing.assert_allclose(rows_by_path(result.cache_dir)["sound-1.wav"], expected, atol=1e-6)


def test_a_file_outside_the_dataset_is_refused(dataset, tmp_path):
    write(tmp_path / "outside.wav", noise(1))
    with pytest.raises(ValueError, match="must lie inside"):
        preprocess(Dataset(dataset, files=[tmp_path / "outside.wav"]), training())
    assert not (dataset / ".cache").exists()


@pytest.fixture
def uneven(tmp_path):
    """A folder with a sound, the same with an offset, and three files that hold no sound."""
    steps = np.random.default_rng(0).integers(-1, 2, (2, 2 * CHUNK)) / 32_768
    sound = noise(1, 2 * CHUNK, 0.5)
    sound = np.round(2**15 * (sound - sound.mean())) / 2**15
    folder = tmp_path / "uneven"
    write(folder / "shifted.wav", sound + 0.25, subtype="PCM_16")
    write(folder / "sound.wav", sound, subtype="PCM_16")
    write(folder / "dither.wav", steps[0], subtype="PCM_16")
    write(folder / "opposite.wav", np.stack([sound + steps[0], steps[1] - sound], axis=1), subtype="PCM_16")
    write(folder / "constant.wav", np.full(CHUNK, 0.5))
    return folder


def test_dither_and_constants_are_skipped_and_offsets_removed_and_both_are_said(uneven, caplog):
    caplog.set_level("INFO")
    result = preprocess(uneven, training())
    result.log()
    assert [path for path, _ in result.skipped] == ["constant.wav", "dither.wav", "opposite.wav"]
    assert [("DC" in reason, "its peak is -" in reason) for _, reason in result.skipped] == [
        (True, False),
        (False, True),
        (False, False),
    ]
    assert "cancel out" in dict(result.skipped)["opposite.wav"]
    assert result.with_offset == ["shifted.wav"]
    assert "a constant offset (DC) was removed from 1 file: shifted.wav" in caplog.text
    rows = rows_by_path(result.cache_dir)
    assert sorted(rows) == ["shifted.wav", "sound.wav"]
    assert np.median(np.abs(rows["shifted.wav"] - rows["sound.wav"])) < 1e-3
    # The next run decodes none of them, and still says which were skipped.
    again = preprocess(uneven, training())
    assert (again.decoded, again.skipped) == (0, result.skipped)


def test_the_path_without_a_cache_treats_levels_alike(uneven):
    names = ["constant", "dither", "opposite", "shifted", "sound"]
    waveforms = AudioTrainingDataset([uneven / f"{name}.wav" for name in names], CHUNK, RATE)
    skipped = preprocess(uneven, training()).skipped
    assert [(Path(path).name, reason) for path, reason in waveforms.skipped] == skipped
    assert [Path(path).name for path in waveforms.with_offset] == ["shifted.wav"]
    chunks = np.concatenate([waveforms[i].numpy() for i in range(len(waveforms))])
    np.testing.assert_array_equal((np.corrcoef(chunks) > 0.9999).sum(axis=0), [2, 2, 2, 2])
    np.testing.assert_allclose(
        sorted(np.abs(chunks).sum(axis=1))[::2], sorted(np.abs(chunks).sum(axis=1))[1::2], rtol=1e-3
    )
