"""Files of which only a part can be decoded: used and reported, or skipped if that is requested."""

from __future__ import annotations

import json
import logging
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distill.audio import load_audio, load_cache_manifest
from distill.cache.compaction import clean
from distill.errors import NothingUsableError
from distill.index import Dataset
from distill.preprocess.pipeline import preprocess
from distill.preprocess.status import dataset_status
from distill.preprocess.verify import repair
from distill.training import AudioTrainingDataset
from sounds import (
    CHUNK,
    RATE,
    SMALL,
    around_decoding,
    noise,
    one_object,
    reseal,
    rows_by_path,
    slot_of,
    training,
    write,
    write_dataset,
)

REASON = "cut short: its header promises 80000 frames, 48000 can be decoded"


def promise(path: Path, frames: int) -> None:
    """Change the number of frames in the header of a FLAC file, as long as it is below 2**32."""
    data = bytearray(path.read_bytes())
    data[22:26] = frames.to_bytes(4, "big")
    path.write_bytes(data)
    assert soundfile.info(path).frames == frames


def cut(path: Path, seconds: float = 5.0) -> np.ndarray:
    """Write a WAV file that promises `seconds` of noise and ends after 3 / 5 of them; return all of the noise."""
    samples = noise(99, round(seconds * RATE))
    write(path, samples, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[: 44 + 2 * (samples.size * 3 // 5)])
    return samples


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / "dataset"
    write_dataset(root, 3)
    cut(root / "deep" / "cut.wav")
    return root


@pytest.fixture
def only_decoded(monkeypatch):
    """The names of the files that are decoded."""
    decoded = []
    around_decoding(monkeypatch, lambda path: nullcontext(decoded.append(Path(path).name)))
    return decoded


def pairs(entries):
    return [(entry["path"], entry["reason"], entry["code"]) for entry in entries]


def test_the_part_that_can_be_decoded_is_used_and_reported_in_each_run(dataset, tmp_path, caplog, only_decoded):
    # A file that ends there and promises no more.
    write(tmp_path / "short" / "short.wav", noise(99, 5 * RATE)[:48_000], subtype="PCM_16")
    expected = rows_by_path(preprocess(tmp_path / "short", training()).cache_dir)["short.wav"]
    caplog.set_level(logging.INFO, "distill")
    first = preprocess(dataset, training())
    part = rows_by_path(first.cache_dir)["deep/cut.wav"]
    assert (first.decoded, len(part)) == (4, 6)
    assert np.array_equal(part, expected)

    del only_decoded[:]
    again = preprocess(dataset, training())
    assert (again.decoded, only_decoded) == (0, [])
    for result in (first, again):
        ((path, reason),) = result.partial
        assert (path, reason.code, result.skipped) == ("deep/cut.wav", "cut-short", [])
        assert reason == REASON
        caplog.clear()
        result.log()
        assert "1 file is used in part:" in caplog.messages
        assert f"  deep/cut.wav: {reason}" in caplog.messages
    files = {file["path"]: file for file in load_cache_manifest(first.cache_dir)["files"]}
    assert {path for path, file in files.items() if file["partial"]} == {"deep/cut.wav"}
    assert files["deep/cut.wav"]["partial"] == reason
    found = dataset_status(dataset)
    assert (pairs(found["partial"]), found["skipped_files"]) == ([("deep/cut.wav", reason, "cut-short")], [])


def test_copies_and_renamed_files_are_partial_too_and_replaced_ones_are_not(dataset):
    preprocess(dataset, training())
    shutil.copy(dataset / "deep/cut.wav", dataset / "copy.wav")
    (dataset / "deep/cut.wav").rename(dataset / "renamed.wav")
    result = preprocess(dataset, training())
    assert (result.decoded, [path for path, _ in result.partial]) == (0, ["copy.wav", "renamed.wav"])
    for name in ("copy.wav", "renamed.wav"):
        write(dataset / name, noise(5), subtype="PCM_16")
    assert preprocess(dataset, training()).partial == []


def test_partial_files_are_skipped_on_request_with_the_same_reason(dataset, only_decoded):
    used = preprocess(dataset, training())
    del only_decoded[:]
    skipping = preprocess(dataset, training(partial="skip"))
    # The rows are copied, and nothing is decoded to know what is partial.
    assert (only_decoded, skipping.decoded) == ([], 0)
    assert skipping.cache_dir != used.cache_dir
    assert (skipping.skipped, skipping.partial) == (used.partial, [])
    assert [reason.code for _, reason in skipping.skipped] == ["cut-short"]
    rows, others = rows_by_path(skipping.cache_dir), rows_by_path(used.cache_dir)
    assert rows.keys() == others.keys() - {"deep/cut.wav"}
    assert all(np.array_equal(rows[path], others[path]) for path in rows)
    assert preprocess(dataset, training(partial="skip")).skipped == used.partial


def test_a_slot_that_skips_them_gives_its_rows_to_one_that_uses_them(dataset, only_decoded):
    skipping = preprocess(dataset, training(partial="skip"))
    assert [path for path, _ in skipping.skipped] == ["deep/cut.wav"]
    assert skipping.rows == 6
    del only_decoded[:]
    used = preprocess(dataset, training())
    assert (set(only_decoded), used.decoded) == ({"cut.wav"}, 1)
    assert (used.partial, used.skipped) == (skipping.skipped, [])
    assert used.rows == 6 + 6
    fresh = preprocess(Dataset(dataset, cache_dir=dataset.parent / "fresh"), training())
    rows, expected = rows_by_path(used.cache_dir), rows_by_path(fresh.cache_dir)
    assert rows.keys() == expected.keys()
    assert all(np.array_equal(rows[path], expected[path]) for path in rows)
    assert used.normalization_stats == fresh.normalization_stats


def test_copied_rows_stay_partial(dataset):
    with_variants = preprocess(dataset, training(augmentation_expansion=2))
    without = preprocess(dataset, training())
    assert (without.decoded, without.partial) == (0, with_variants.partial)
    skipping = preprocess(dataset, training(partial="skip"))
    assert (skipping.decoded, skipping.skipped) == (0, with_variants.partial)


def test_no_rows_of_a_long_file_are_left_over_when_it_is_skipped(tmp_path):
    root = tmp_path / "dataset"
    write_dataset(root, 1)
    cut(root / "long.wav", 70.0)
    result = preprocess(root, training(partial="skip"))
    assert [path for path, _ in result.skipped] == ["long.wav"]
    assert load_cache_manifest(result.cache_dir)["dead_rows"] == 0


def test_a_dataset_of_partial_files_alone_can_be_used_or_says_why_not(tmp_path):
    cut(tmp_path / "cut.wav")
    with pytest.raises(NothingUsableError, match=rf"(?s)no file could be used.*cut.wav: {REASON}"):
        preprocess(tmp_path, training(partial="skip"))
    assert preprocess(tmp_path, training()).rows == 6


def test_repair_and_cleaning_keep_what_is_partial(dataset):
    config = training(partial="skip")
    before = preprocess(dataset, training()).partial
    preprocess(dataset, config)
    for slot in (dataset / ".cache/slots").iterdir():
        pack = next((slot / "packs").iterdir())
        damaged = bytearray(pack.read_bytes())
        damaged[-100] ^= 1
        pack.write_bytes(damaged)
    repair(dataset)
    (dataset / "sound-1.wav").unlink()
    repaired = preprocess(dataset, training())
    clean(dataset / ".cache")
    assert (repaired.partial, preprocess(dataset, training()).partial) == (before, before)
    assert (preprocess(dataset, config).skipped, preprocess(dataset, config).decoded) == (before, 0)


def test_a_partial_file_that_is_silent_says_both(tmp_path):
    root = tmp_path / "dataset"
    write_dataset(root, 1)
    quiet = write(root / "quiet.wav", noise(7, 10 * RATE, 1e-5), subtype="PCM_24")
    quiet.write_bytes(quiet.read_bytes()[: 44 + 3 * 2 * RATE])
    result = preprocess(root, training())
    ((path, reason),) = result.skipped
    assert (path, reason.code, result.partial) == ("quiet.wav", "silent", [])
    cut_short = "cut short: its header promises 160000 frames, 32000 can be decoded"
    assert re.fullmatch(f"silent throughout.*; and {cut_short}", reason)


def test_a_manifest_without_the_field_is_read(dataset):
    whole = preprocess(dataset, training())
    manifest = whole.cache_dir / "manifest.json"
    assert manifest.read_text().count('"partial"') == 1
    reseal(manifest, lambda line: re.sub(r',"partial":"[^"]*","code":"[^"]*"', "", line))
    again = preprocess(dataset, training())
    assert (again.decoded, again.rows, again.partial) == (0, whole.rows, [])


def test_the_default_leaves_the_fingerprint_and_the_identity_as_they_were():
    assert "partial" not in training().identity(0)
    assert training(partial="skip").identity(0) == {**training().identity(0), "partial": "skip"}


def test_commands_show_partial_files_in_words_and_in_json(dataset, run):
    code, out, _ = run("preprocess", dataset, *SMALL)
    assert code == 0
    assert re.search(rf"warning: 1 file is used in part:\nwarning:   deep/cut.wav: {REASON}\n", out)
    found = one_object(*run("preprocess", dataset, *SMALL, "--json"))
    ((path, reason, code),) = pairs(found["partial"])
    assert (path, code, found["skipped"], found["decoded"]) == ("deep/cut.wav", "cut-short", [], 0)
    assert reason == REASON
    assert f"used in part: deep/cut.wav: {reason}" in run("status", dataset)[1]
    assert pairs(one_object(*run("status", dataset, "--json"))["partial"]) == [(path, reason, code)]
    skipping = one_object(*run("preprocess", dataset, *SMALL, "--json", "--partial", "skip"))
    assert (pairs(skipping["skipped"]), skipping["partial"]) == ([(path, reason, code)], [])
    output = dataset.parent / "out"
    slot = Path(found["cache_dir"]).name
    assert run("export", dataset, output, "--slot", slot, "--format", "npy")[0] == 0
    files = json.loads((output / "manifest.json").read_text())["files"]
    assert {file["path"]: file["partial"] for file in files if file["partial"]} == {path: reason}


def test_a_config_file_can_ask_for_it(dataset, tmp_path, run):
    (tmp_path / "skip.toml").write_text('partial = "skip"\n')
    found = one_object(*run("preprocess", dataset, *SMALL, "--json", "--config", tmp_path / "skip.toml"))
    assert [entry["path"] for entry in found["skipped"]] == ["deep/cut.wav"]
    code, _, err = run("preprocess", dataset, *SMALL, "--partial", "drop")
    assert code == 2
    assert "partial" in err


@pytest.mark.parametrize("partial", ["use", "skip"])
def test_the_one_channel_path_uses_or_skips_them_too(dataset, partial):
    paths = sorted(dataset.rglob("*.*"))
    waveforms = AudioTrainingDataset([p for p in paths if p.suffix in (".wav", ".flac")], CHUNK, RATE, partial=partial)
    found, others = waveforms.partial, waveforms.skipped
    if partial == "skip":
        found, others = others, found
    ((path, reason),) = found
    assert (path, others) == (str(dataset / "deep/cut.wav"), [])
    assert reason == REASON
    assert (len(waveforms) == 6) == (partial == "skip")


def test_loading_a_partial_file_warns_once_and_gives_the_part(tmp_path, caplog):
    samples = cut(tmp_path / "cut.wav")
    loaded = load_audio(tmp_path / "cut.wav", RATE)[0].numpy()
    assert loaded.size == 48_000
    assert np.abs(loaded - samples[:48_000]).max() < 1e-4
    (message,) = caplog.messages
    assert re.fullmatch(rf".*cut\.wav: used in part: {REASON}", message)
    caplog.clear()
    write(tmp_path / "whole.wav", samples, subtype="PCM_16")
    load_audio(tmp_path / "whole.wav", RATE)
    assert caplog.messages == []


def test_a_mix_that_cancels_is_told_from_silence(tmp_path):
    root = tmp_path / "dataset"
    write_dataset(root, 1)
    sound = noise(3, 2 * CHUNK)
    write(root / "opposed.wav", np.stack([sound, -sound], axis=1), subtype="PCM_16")
    write(root / "silent.wav", np.zeros((2 * CHUNK, 2)), subtype="PCM_16")
    # One sample where they do not cancel is a sound.
    write(root / "nearly.wav", np.stack([sound, -0.9 * sound], axis=1), subtype="PCM_16")
    result = preprocess(root, training())
    codes = {path: reason.code for path, reason in result.skipped}
    assert codes == {"opposed.wav": "channels-cancel", "silent.wav": "silent"}
    assert "cancel out when they are mixed to mono" in dict(result.skipped)["opposed.wav"]
    assert "nearly.wav" in rows_by_path(result.cache_dir)


def test_the_summary_says_once_how_many_files_are_mixed_to_mono(tmp_path, run):
    root = tmp_path / "dataset"
    write_dataset(root, 2)
    for number in range(3):
        write(root / f"stereo-{number}.wav", np.stack([noise(number), noise(number + 9)], axis=1), subtype="PCM_16")
    _, out, _ = run("preprocess", root, *SMALL)
    assert out.count("mixed to mono") == 1
    assert "3 of 5 files are stereo and are mixed to mono" in out
    # Of the files that this run decodes.
    assert "mixed to mono" not in run("preprocess", root, *SMALL)[1]
    write(root / "quad.wav", np.stack([noise(n) for n in range(4)], axis=1), subtype="PCM_16")
    found = one_object(*run("preprocess", root, *SMALL, "--json"))
    assert found["channels"] == {"4": 1}
    write(root / "stereo.wav", np.stack([noise(50), noise(51)], axis=1), subtype="PCM_16")
    assert "1 of 1 file is stereo and is mixed to mono" in run("preprocess", root, *SMALL)[1]


def test_a_header_that_promises_too_much_neither_stops_nor_asks(tmp_path):
    """Two FLAC files that claim 47 hours in 50 kB each: no question, and all of the sound."""
    root = tmp_path / "dataset"
    for number in range(2):
        path = write(root / f"{number}.flac", noise(number, 2 * CHUNK), subtype="PCM_16")
        promise(path, 47 * 3600 * RATE)
    result = preprocess(root, training(), confirm=pytest.fail)
    assert (result.rows, [path for path, _ in result.partial]) == (4, ["0.flac", "1.flac"])
    assert slot_of(root) == result.cache_dir


@pytest.mark.parametrize("claim", [0, 0xFFFF_FFFF, 0x7000_0000])
def test_the_estimate_of_raw_samples_is_what_the_bytes_can_hold(tmp_path, caplog, claim):
    """A recorder that crashed, a stream, and a header that promises 16 hours: the file holds 2 seconds."""
    root = tmp_path / "dataset"
    path = write(root / "a.wav", noise(1, 2 * RATE), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    assert data[36:40] == b"data"
    data[40:44] = claim.to_bytes(4, "little")
    path.write_bytes(data)
    caplog.set_level(logging.INFO, "distill")
    assert preprocess(root, training()).rows == 4
    # With the header, whose bytes could be a chunk of their own.
    assert any(message.startswith("1 file to compute: 5 rows, 0 MB") for message in caplog.messages)
