"""What the page shows of a run agrees with numpy on the tensors of its analysis, and with its files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from distill.errors import NotFoundError, RunError
from distill.latent.analysis import analyze
from distill.models import load_model, save_model
from distill.models.store import load_description
from distill.play import analysed
from distill.play.analysis import Analyses
from distill.play.view import dataset_file, describe, dropped_file, sound_map, sound_names
from distill.runs.folder import RunFolder
from instruments import tones, write_run
from sounds import RATE, sine, write

pytestmark = pytest.mark.usefixtures("one_thread")

FEATURES = ["rms", "spectral_centroid", "flatness", "onset_strength", "pitch"]


def report_of(run: Path) -> dict:
    return json.loads((run / "latent" / "analysis.json").read_text())


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.wav"))


def replace_weights(run: Path) -> None:
    """Save other weights, as an epoch that is better does."""
    model, description = load_model(run), load_description(run)
    with torch.no_grad():
        next(iter(model.parameters())).mul_(1.5)
    save_model(run, model, **{name: description[name] for name in ("features", "statistics", "level")})


def test_a_run_is_described_by_its_files(trained):
    found = describe(trained)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["name"], found["path"]) == (trained.name, str(trained))
    assert found["dataset"] == json.loads((trained / "run.json").read_text())["dataset"]
    assert (found["sample_rate"], found["channels"], found["chunk_s"]) == (RATE, 2, 0.5)
    assert (found["hop_s"], found["longest_s"]) == (RunFolder(trained).config().features.hop_length / RATE, 60)
    edges = librosa.mel_frequencies(34, fmin=0, fmax=RATE / 2, htk=True)
    # A band's centre is its bin with the most weight, which is up to half a bin away.
    np.testing.assert_allclose(found["bands_hz"], edges[1:-1], atol=RATE / 512)
    assert (found["playable"], found["reason"]) == (True, None)
    assert found["analysis"]["state"] == "ready"


def test_the_axes_are_those_of_the_report(trained):
    report, axes = report_of(trained), describe(trained)["axes"]
    assert 2 < len(axes) <= 32
    for index, axis in enumerate(axes):
        assert (axis["number"], axis["name"]) == (index + 1, report["names"][index])
        assert axis["share"] == report["variance_explained"][index]
        assert (axis["low"], axis["high"]) == tuple(report["ranges"][index][name] for name in ("low", "high"))
        assert axis["is_course"] == report["is_course"][index]
        strength = {name: abs(report["correlations"][name][index]) for name in FEATURES}
        assert list(axis["correlations"]) == sorted(strength, key=strength.get, reverse=True)[:3]
        assert all(value == report["correlations"][name][index] for name, value in axis["correlations"].items())


def dataset_of(run: Path) -> Path:
    return Path(json.loads((run / "run.json").read_text())["dataset"])


def coordinates_of(run: Path) -> np.ndarray:
    """Coordinates [N, 6] of all rows, by numpy."""
    tensors = {name: tensor.astype(float) for name, tensor in load_file(run / "latent/analysis.safetensors").items()}
    centred = tensors["latents"].reshape(len(tensors["latents"]), -1) - tensors["mean"]
    return (centred @ tensors["components"].T / tensors["scale"])[:, :6]


def test_the_map_agrees_with_numpy(copied):
    report = report_of(copied)
    report["rows"]["variant"][1::4] = [1] * len(report["rows"]["variant"][1::4])  # as if they were augmented
    (copied / "latent" / "analysis.json").write_text(json.dumps(report))
    found = sound_map(copied)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    originals = [row for row, variant in enumerate(report["rows"]["variant"]) if variant == 0]
    assert 12 < len(originals) < report["n"]
    assert (found["of"], found["shown"], found["chunk_s"]) == (len(originals), len(originals), 0.5)
    np.testing.assert_allclose(np.transpose(found["coordinates"]), coordinates_of(copied)[originals], atol=6e-5)
    assert np.std(found["coordinates"]) > 0.5
    names = [found["files"][file] for file in found["file"]]
    assert names == [report["files"][report["rows"]["file"][row]] for row in originals]
    assert set(found["files"]) == set(names) <= set(files_of(dataset_of(copied)))
    assert found["offset"] == [report["rows"]["offset_s"][row] for row in originals]
    assert {0.0, 0.5} == set(found["offset"])
    features = load_file(copied / "latent/analysis.safetensors")["features"][originals]
    assert list(found["features"]) == FEATURES
    for column, feature in enumerate(found["features"].values()):
        np.testing.assert_allclose(feature["values"], features[:, column], atol=6e-5)
    assert found["features"]["pitch"]["unit"] == "log2 Hz"


def test_a_large_map_shows_rows_that_are_chosen_evenly(copied, monkeypatch):
    full = sound_map(copied)
    monkeypatch.setattr(analysed, "MAPPED_ROWS", 7)
    monkeypatch.setattr(analysed, "_ROWS_AT_ONCE", 5)
    (copied / "latent" / "analysis.json").touch()
    some = sound_map(copied)
    assert (some["of"], some["shown"]) == (full["of"], 7)
    rows = [number * full["of"] // 7 for number in range(7)]
    assert some["offset"] == [full["offset"][row] for row in rows]
    assert [some["files"][file] for file in some["file"]] == [full["files"][full["file"][row]] for row in rows]
    assert some["coordinates"] == [[values[row] for row in rows] for values in full["coordinates"]]


def test_a_map_with_a_single_axis(copied):
    """As of sounds that differ in one way; there is no second axis then."""
    full, path = sound_map(copied), copied / "latent" / "analysis.safetensors"
    with safe_open(path, "np") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    report = report_of(copied)
    for name in ("components", "scale"):
        tensors[name] = tensors[name][:1]
    for name in ("names", "is_course", "variance_explained", "ranges"):
        report[name] = report[name][:1]
    report["correlations"] = {name: values[:1] for name, values in report["correlations"].items()}
    save_file(tensors, path, metadata | {"names": json.dumps(report["names"])})
    path.with_suffix(".json").write_text(json.dumps(report))
    assert sound_map(copied)["coordinates"] == full["coordinates"][:1]
    assert [axis["number"] for axis in describe(copied)["axes"]] == [1]


def test_an_analysis_of_other_weights_is_outdated_and_a_new_one_is_ready(copied):
    before = describe(copied)
    replace_weights(copied)
    after = describe(copied)
    assert (after["analysis"]["state"], after["axes"]) == ("outdated", [])
    assert "trained on since" in after["analysis"]["reason"]
    assert after["weights"] != before["weights"]
    with pytest.raises(NotFoundError) as caught:
        sound_map(copied)
    assert f"distill analyze {copied}" in caught.value.tip
    analyze(copied)
    assert describe(copied)["analysis"] == {"state": "ready", "reason": None, "progress": None}


def test_a_run_without_analysis_offers_none(copied):
    shutil.rmtree(copied / "latent")
    found = describe(copied)
    assert (found["analysis"]["state"], found["axes"], found["playable"]) == ("missing", [], True)
    with pytest.raises(NotFoundError, match="not been analysed"):
        sound_map(copied)


@pytest.mark.parametrize("name", ["latent", "latent/analysis.json", "latent/analysis.safetensors"])
def test_an_analysis_behind_a_link_is_not_read(copied, tmp_path, name):
    (copied / name).rename(tmp_path / "away")
    (copied / name).symlink_to(tmp_path / "away")
    found = describe(copied)
    assert (found["analysis"]["state"], found["axes"]) == ("missing", [])
    assert str(copied / name) in found["analysis"]["reason"]
    for look in (sound_map, Analyses("cpu").start):
        with pytest.raises(RunError):
            look(copied)
    assert sound_names(copied)["dataset"] == files_of(dataset_of(copied))  # those of the cache


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def no_ranges(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ranges": []}))


def no_such_file(path: Path) -> None:
    report = json.loads(path.read_text())
    report["rows"]["file"][0] = 10**6
    path.write_text(json.dumps(report))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("analysis.json", cut),
        ("analysis.json", no_ranges),
        ("analysis.json", no_such_file),
        ("analysis.json", Path.unlink),
        ("analysis.safetensors", cut),
    ],
)
def test_a_damaged_analysis_counts_as_missing_with_the_reason(copied, file, damage):
    damage(copied / "latent" / file)
    found = describe(copied)
    assert (found["analysis"]["state"], found["axes"]) == ("missing", [])
    assert str(copied / "latent" / file) in found["analysis"]["reason"]
    with pytest.raises(RunError):
        sound_map(copied)


def test_a_run_that_cannot_be_played_says_why(copied):
    (copied / "model.safetensors").unlink()
    found = describe(copied)
    assert (found["playable"], found["weights"]) == (False, None)
    assert str(copied / "model.safetensors") in found["reason"]
    (copied / "config.toml").write_text("epochs = 'many'")
    with pytest.raises(RunError, match="epochs"):
        describe(copied)


def test_a_run_with_one_channel(tmp_path):
    run = write_run(tmp_path / "run", tones(), channels=1)
    found = describe(run)
    assert (found["channels"], found["playable"], found["analysis"]["state"]) == (1, True, "missing")


def test_sounds_are_those_of_the_dataset_and_those_that_were_dropped(copied, trained, tmp_path):
    dataset = dataset_of(trained)
    assert sound_names(copied) == {"dataset": files_of(dataset), "dataset_of": len(files_of(dataset)), "dropped": []}
    dropped = copied / "dropped"
    for name in ("b.wav", os.fsdecode(b"\xff.wav")):
        write(dropped / name, sine(440))
    (dropped / ".distill-0123456789abcdef.tmp").write_bytes(b"")
    (dropped / "link.wav").symlink_to(dataset / files_of(dataset)[0])
    (dropped / "folder").mkdir()
    assert sound_names(copied)["dropped"] == sorted(["b.wav", os.fsdecode(b"\xff.wav")])
    assert dropped_file(copied, "b.wav") == dropped / "b.wav"
    for name in ("link.wav", "folder", "../run.json", "", "c.wav"):
        with pytest.raises(NotFoundError):
            dropped_file(copied, name)
    dropped.rename(tmp_path / "away")
    dropped.symlink_to(tmp_path / "away")
    assert sound_names(copied)["dropped"] == []


def test_without_analysis_the_names_are_those_of_the_cache_or_none(copied, trained):
    shutil.rmtree(copied / "latent")
    assert sound_names(copied)["dataset"] == files_of(dataset_of(trained))
    record = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps(record | {"cache_dir": str(copied / "nothing")}))
    assert sound_names(copied) == {"dataset": [], "dataset_of": 0, "dropped": []}


@pytest.fixture
def moved(copied, tmp_path, trained):
    """A copy of the run on a copy of its dataset."""
    dataset = shutil.copytree(dataset_of(trained), tmp_path / "dataset")
    record = json.loads((copied / "run.json").read_text()) | {"dataset": str(dataset)}
    (copied / "run.json").write_text(json.dumps(record))
    report = report_of(copied) | {"dataset": str(dataset)}
    (copied / "latent" / "analysis.json").write_text(json.dumps(report))
    return copied


def test_a_file_of_the_dataset_is_found_by_its_name_only(moved, tmp_path):
    name = sound_names(moved)["dataset"][0]
    assert dataset_file(moved, name).samefile(tmp_path / "dataset" / name)
    (tmp_path / "dataset" / "later.wav").write_bytes(b"")
    for other in ("later.wav", "../runs/copied/run.json", "/etc/passwd", "", ".", "drums", f"./{name}", f"{name}\0"):
        with pytest.raises(NotFoundError):
            dataset_file(moved, other)


def test_a_file_that_is_gone_or_leads_out_of_the_dataset_is_refused(moved, tmp_path):
    dataset, names = tmp_path / "dataset", sound_names(moved)["dataset"]
    (dataset / names[0]).unlink()
    with pytest.raises(NotFoundError, match="not there any more"):
        dataset_file(moved, names[0])
    outside = write(tmp_path / "outside.wav", sine(440))
    (dataset / names[0]).symlink_to(outside)
    with pytest.raises(NotFoundError, match="leads out"):
        dataset_file(moved, names[0])
    folder = RunFolder(moved)
    record = json.loads((moved / "run.json").read_text()) | {"follow_links": True}
    (moved / "run.json").write_text(json.dumps(record))
    assert folder.dataset().follow_links
    assert dataset_file(moved, names[0]).samefile(outside)
    dataset.rename(tmp_path / "away")
    with pytest.raises(NotFoundError) as caught:
        dataset_file(moved, names[1])
    assert str(dataset) in str(caught.value)
    assert "available" in caught.value.tip


def test_what_was_read_is_kept_until_a_file_changes(copied, monkeypatch):
    first = sound_map(copied)
    monkeypatch.setattr(analysed, "_tensors_of", lambda *_: pytest.fail("read again"))
    assert sound_map(copied) == first
