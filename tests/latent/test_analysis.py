"""The files of an analysis agree with numpy and scipy, and a factor that was built into the sounds is found."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.spatial
import torch
from blake3 import blake3
from safetensors.numpy import load_file

from distill.audio import AudioSpectrogram, SpectrogramConfig
from distill.errors import DatasetError, NothingUsableError, RunError, StorageError
from distill.latent.analysis import analyze
from distill.models import load_model
from distill.models.store import load_description
from distill.runs.axes import read_axes
from distill.training import AudioTrainingDataset, CachedSpectrogramDataset, train
from sounds import CHUNK, FEATURE, RATE, noise, one_object, sine, slot_of, training, write

pytestmark = pytest.mark.usefixtures("one_thread")

FEATURES = ("rms", "spectral_centroid", "flatness", "onset_strength", "pitch")
FILES = {"analysis.json", "analysis.safetensors", "scree.png", "map.png", "sweep.png"}
TONES = 24


def octaves(number: int) -> float:
    """Pitch of a tone in octaves above 200 Hz, in a shuffled order."""
    return number * 7 % TONES / 8


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run on tones of two chunks that differ in pitch only, with a variant of each; one file begins with silence."""
    folder = tmp_path_factory.mktemp("pitch")
    for number in range(TONES):
        pitch = 200 * 2 ** octaves(number)
        tone = sum(sine(partial * pitch, 1.0, level=0.3 / partial) for partial in (1, 2, 3))
        tone += noise(number, 2 * CHUNK, level=1e-3)
        silence = np.zeros(CHUNK if number == 0 else 0)
        write(
            folder / "tones" / ["low", "high"][octaves(number) > 1.5] / f"{number:02}.wav",
            np.r_[silence, tone],
            subtype="PCM_24",
        )
    config = training(epochs=2, latent_dim=8, augmentation_expansion=1)
    return train(folder / "tones", folder / "run", config, cache_dir=folder / "cache").run_dir


@pytest.fixture(scope="module")
def analysis(run):
    return analyze(run)


def rows_of(run: Path) -> torch.Tensor:
    dataset = CachedSpectrogramDataset(run.parent / "cache", normalization_stats=load_description(run)["statistics"])
    return dataset.rows(range(len(dataset)))


def test_the_files_hold_what_is_returned(run, analysis):
    report = json.loads((run / "latent" / "analysis.json").read_text(), parse_constant=pytest.fail)
    assert report == json.loads(json.dumps(analysis.report))
    written = load_file(run / "latent" / "analysis.safetensors")
    assert written.keys() == analysis.tensors.keys()
    for name, tensor in analysis.tensors.items():
        np.testing.assert_array_equal(written[name], tensor.numpy())
    assert {path.name for path in (run / "latent").iterdir()} == FILES
    pictures = [(run / "latent" / name).read_bytes() for name in FILES if name.endswith("png")]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)


def test_latents_and_kl_are_those_of_the_model_in_the_order_of_the_dataset(run, analysis):
    with torch.no_grad():
        mu, logvar = (tensor.double().numpy() for tensor in load_model(run).encode(rows_of(run)))
    assert mu.std() > 0.1
    np.testing.assert_allclose(analysis.tensors["latents"], mu, atol=1e-5)
    kl = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).mean(axis=(0, 1))
    np.testing.assert_allclose(analysis.report["kl"], kl, rtol=1e-4)
    assert analysis.report["active_units"] == (mu.var(axis=(0, 1)) > 0.01).sum()
    assert (analysis.report["n"], analysis.report["n_chunks"]) == (len(mu), len(mu) // 2) == (4 * TONES, 2 * TONES)


def test_axes_are_principal_axes_of_means_and_courses_weighted_by_their_effect(analysis):
    latents = analysis.tensors["latents"].double().numpy()
    effect, count, length = analysis.report["effect"], len(analysis.report["names"]), latents.shape[1]
    means = latents.mean(axis=1)
    courses = latents - means[:, None]
    parts = ((means - means.mean(axis=0)) * effect * length**0.5, ((courses - courses.mean(axis=0)) * effect))
    variances = [np.square(np.linalg.svd(part.reshape(len(latents), -1), compute_uv=False)) for part in parts]
    share = np.concatenate(variances) / np.concatenate(variances).sum()
    is_course = np.repeat([False, True], [len(values) for values in variances])
    order = np.argsort(-share)[:count]
    np.testing.assert_allclose(analysis.report["variance_explained"], share[order], atol=1e-6)
    assert share[order].sum() > 0.99
    clear = share[order] > 1e-3
    assert (np.array(analysis.report["is_course"]) == is_course[order])[clear].all()
    assert {True, False} == set(is_course[order][clear])
    components = analysis.tensors["components"].double().numpy()
    np.testing.assert_allclose(components @ components.T, np.eye(count), atol=1e-6)
    np.testing.assert_allclose(analysis.tensors["mean"], latents.mean(axis=0).ravel(), atol=1e-6)
    coordinates = (latents - latents.mean(axis=0)).reshape(len(latents), -1) @ components.T
    np.testing.assert_allclose(analysis.tensors["scale"], coordinates.std(axis=0), rtol=1e-4)
    # A move along an axis of means is the same at all times, one along an axis of courses changes no mean.
    curves = components.reshape(count, length, -1)
    for curve, of_course in zip(curves, analysis.report["is_course"], strict=True):
        assert np.abs(curve.mean(axis=0) if of_course else curve - curve[0]).max() < 1e-5
    spread = np.array([[axis[name] for name in ("low", "high", "std")] for axis in analysis.report["ranges"]])
    low_and_high = np.percentile(coordinates / coordinates.std(axis=0), [1, 99], axis=0)
    np.testing.assert_allclose(spread, np.c_[low_and_high.T, coordinates.std(axis=0)], atol=1e-3)


def test_the_effect_of_a_unit_is_the_change_of_the_output_for_a_step(run, analysis):
    model, effect = load_model(run), np.array(analysis.report["effect"])
    z = analysis.tensors["latents"]
    with torch.no_grad():
        steps = [
            model.decode(z + 0.5 * unit)[:, 0] - model.decode(z - 0.5 * unit)[:, 0] for unit in torch.eye(z.shape[2])
        ]
    expected = np.array([step.square().mean().sqrt().item() for step in steps])
    assert effect.max() > 2 * effect.min()
    # The analysis measures it at a few latent vectors, this test at all.
    np.testing.assert_allclose(effect, expected, rtol=0.15)


def test_correlations_agree_with_numpy(analysis):
    tensors = {name: tensor.double().numpy() for name, tensor in analysis.tensors.items()}
    coordinates = (tensors["latents"].reshape(4 * TONES, -1) - tensors["mean"]) @ tensors["components"].T
    together = np.corrcoef(np.c_[tensors["features"], coordinates].T)[: len(FEATURES), len(FEATURES) :]
    assert list(analysis.report["correlations"]) == list(FEATURES)
    np.testing.assert_allclose(list(analysis.report["correlations"].values()), together, atol=1e-4)
    assert analysis.report["constant"] == []


def test_the_first_axis_is_pitch_if_only_pitch_varies(run, analysis):
    correlations = analysis.report["correlations"]
    assert max(correlations["pitch"][0], correlations["spectral_centroid"][0]) > 0.9
    assert analysis.report["names"][0] in ("pitch", "spectral_centroid")
    rows = analysis.report["rows"]
    numbers = [int(Path(analysis.report["files"][file]).stem) for file in rows["file"]]
    originals = [row for row, variant in enumerate(rows["variant"]) if variant == 0]
    pitch = analysis.tensors["features"][:, FEATURES.index("pitch")].numpy()
    expected = [np.log2(200) + octaves(numbers[row]) for row in originals]
    np.testing.assert_allclose(pitch[originals], expected, atol=0.01)
    # Sounds further along the axis are higher.
    axes, model = read_axes(run), load_model(run)
    mean = axes.mean.unflatten(0, (-1, model.latent_dim))
    z = torch.stack([axes.move(mean, axes.index(axes.names[0]), value) for value in (-1.0, 0.0, 1.0)])
    with torch.no_grad():
        decoded = model.decode(z)[:, 0].clamp(min=0).sum(dim=2).numpy()
    centroids = decoded @ np.arange(FEATURE["n_mels"]) / decoded.sum(axis=1)
    assert (np.diff(centroids) > 1).all()


def test_rows_have_their_file_and_offset(run, analysis):
    report = analysis.report
    folder = Path(json.loads((run / "run.json").read_text())["dataset"])
    assert len(report["files"]) == TONES
    hashes = [blake3((folder / file).read_bytes()).digest() for file in report["files"]]
    assert hashes == sorted(hashes)
    assert report["rows"]["variant"] == [0, 1] * (2 * TONES)
    for file, name in enumerate(report["files"]):
        # The first file begins with a chunk of silence, which has no row.
        start = 0.5 if name.endswith("00.wav") else 0.0
        expected = [start, start, start + 0.5, start + 0.5]
        assert report["rows"]["offset_s"][4 * file : 4 * file + 4] == expected


def test_neighbours_agree_with_a_kd_tree_of_the_originals_of_other_chunks(analysis):
    latents = analysis.tensors["latents"].flatten(1).double().numpy()
    found = analysis.report["neighbours"]
    assert found["k"] == 5
    originals = np.arange(0, len(latents), 2)
    distances, near = scipy.spatial.cKDTree(latents[originals]).query(latents, 6)
    near = originals[near]
    for row, (indices, expected) in enumerate(zip(near, distances, strict=True)):
        kept = indices // 2 != row // 2
        np.testing.assert_allclose(found["distances"][row], expected[kept][:5], atol=1e-5)
        assert found["indices"][row] == indices[kept][:5].tolist()
    assert any(index // 2 != row // 2 for row, index in enumerate(near[:, 1]))


def test_among_many_originals_neighbours_are_those_of_a_sample_and_that_is_said(run, analysis, monkeypatch, caplog):
    monkeypatch.setattr("distill.latent.report._CANDIDATES", 20)
    caplog.set_level("INFO")
    found = analyze(run).report["neighbours"]
    latents = analysis.tensors["latents"].flatten(1).double().numpy()
    originals = np.arange(0, len(latents), 2)
    assert analysis.report["neighbours"]["candidates"] == len(originals) > 20
    assert found["candidates"] == 20
    assert f"neighbours are those among 20 of the {len(originals)} original rows" in caplog.text
    sample = np.unique(found["indices"])
    assert len(sample) == 20
    assert set(sample) <= set(originals)
    # From all parts of the dataset.
    assert np.diff(sample).max() <= 2 * len(latents) / 20
    distances, near = scipy.spatial.cKDTree(latents[sample]).query(latents, 6)
    near = sample[near]
    for row, (indices, expected) in enumerate(zip(near, distances, strict=True)):
        kept = indices // 2 != row // 2
        np.testing.assert_allclose(found["distances"][row], expected[kept][:5], atol=1e-5)


def test_the_first_axis_is_loudness_if_only_loudness_varies_and_other_features_are_constant(tmp_path):
    levels_db = np.random.default_rng(4).uniform(-40, 0, 30)
    sound = 0.6 * sine(440, CHUNK / RATE) + noise(1, level=0.2)
    for number, level in enumerate(levels_db):
        # PCM for the same bytes, and so the same split, in each run: float WAV files store the time of writing.
        write(tmp_path / "sounds" / f"{number:02}.wav", sound * 10 ** (level / 20), subtype="PCM_24")
    run = train(tmp_path / "sounds", tmp_path / "run", training(epochs=2, latent_dim=8, normalize="none")).run_dir
    analysis = analyze(run)
    assert analysis.report["correlations"]["rms"][0] > 0.95
    assert analysis.report["names"][0] == "rms"
    assert {"spectral_centroid", "pitch"} <= set(analysis.report["constant"])
    assert set(analysis.report["correlations"]["pitch"]) == {0.0}
    files = [int(Path(analysis.report["files"][file]).stem) for file in analysis.report["rows"]["file"]]
    rms = analysis.tensors["features"][:, 0].numpy()
    np.testing.assert_allclose(rms - levels_db[files], (rms - levels_db[files])[0], atol=0.1)


def test_a_one_channel_run_is_analysed_by_decoding(tmp_path, caplog):
    for number in range(12):
        tone = sine(250 * 2 ** (number / 8), 1.0) + noise(number, 2 * CHUNK, level=1e-3)
        silence = np.zeros(CHUNK if number == 3 else 0)
        write(tmp_path / "sounds" / f"{number:02}.wav", np.r_[silence, tone], subtype="PCM_24")
    (tmp_path / "sounds" / "text.wav").write_text("no sound")
    config = training(epochs=2, latent_dim=6, spectrogram=SpectrogramConfig(**FEATURE))
    config = replace(config, complex_spectrogram=replace(config.complex_spectrogram, enabled=False))
    run = train(tmp_path / "sounds", tmp_path / "run", config).run_dir
    assert (run / "latent").exists()
    # Skipped files are logged once by training, and not again by the analysis at its end.
    assert caplog.text.count("text.wav: ") == 1
    calls = []
    analysis = analyze(run, progress=lambda *figures: calls.append(figures))
    assert caplog.text.count("text.wav: ") == 2
    assert not (tmp_path / "sounds" / ".cache").exists()
    assert ("decode", 13, 13) in calls
    dataset = AudioTrainingDataset(sorted((tmp_path / "sounds").glob("*.wav")), CHUNK, RATE)
    waveforms = torch.stack([dataset[row] for row in range(len(dataset))])
    stats = load_description(run)["statistics"]
    rows = (AudioSpectrogram(config.spectrogram)(waveforms) - stats["mag_mean"]) / stats["mag_std"]
    with torch.no_grad():
        mu, _ = load_model(run).encode(rows)
    np.testing.assert_allclose(analysis.tensors["latents"], mu, atol=1e-4)
    report = analysis.report
    numbers = [int(Path(report["files"][file]).stem) for file in report["rows"]["file"]]
    pitch = analysis.tensors["features"][:, FEATURES.index("pitch")]
    np.testing.assert_allclose(pitch, [np.log2(250) + number / 8 for number in numbers], atol=0.1)
    assert max(abs(report["correlations"][name][0]) for name in ("pitch", "spectral_centroid")) > 0.9
    starts = {(number, offset) for number, offset in zip(numbers, report["rows"]["offset_s"], strict=True)}
    assert starts == {(number, start + 0.5 * (number == 3)) for number in range(12) for start in (0.0, 0.5)}


def test_training_analyses_the_rows_that_it_was_trained_on(tmp_path):
    for number in range(3):
        write(tmp_path / "sounds" / f"{number}.wav", noise(number) * np.linspace(1, 0.3 * number, CHUNK))
    stages = []

    def add_a_file(event):
        if event.kind == "epoch":
            write(tmp_path / "sounds" / "later.wav", noise(9))
        if event.kind == "analyze":
            stages.append(event.values["stage"])

    config = training(epochs=1, latent_dim=4, augmentation_expansion=0)
    run = train(tmp_path / "sounds", tmp_path / "run", config, on_event=add_a_file).run_dir
    assert set(stages) == {"encode", "effect", "neighbours"}
    report = json.loads((run / "latent" / "analysis.json").read_text())
    assert sorted(report["files"]) == ["0.wav", "1.wav", "2.wav"]
    assert analyze(run).report["n"] == 4


def test_another_dataset_is_preprocessed_and_its_analysis_replaces_the_first(run, analysis, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    for number in range(4):
        write(tmp_path / "other" / f"{number}.wav", noise(90 + number) * np.linspace(1, 0.1 * number, CHUNK))
    calls = []
    other = analyze(tmp_path / "run", tmp_path / "other", progress=lambda *figures: calls.append(figures))
    assert (other.report["n_chunks"], other.report["neighbours"]["k"]) == (4, 3)
    assert other.report["files"] != analysis.report["files"]
    assert {"features", "encode", "neighbours"} <= {stage for stage, _, _ in calls}
    assert (slot_of(tmp_path / "other") / "manifest.json").exists()
    report = json.loads((tmp_path / "run" / "latent" / "analysis.json").read_text())
    assert report["dataset"] == str(tmp_path / "other")
    # The normalisation is that of the run, whatever the statistics of the second dataset are.
    again = analyze(tmp_path / "run", json.loads((run / "run.json").read_text())["dataset"])
    assert again.report == analysis.report


def test_a_cache_of_another_configuration_gets_a_slot_for_the_run(run, tmp_path):
    from distill.preprocess.pipeline import preprocess

    write(tmp_path / "sounds" / "a.wav", noise(1))
    write(tmp_path / "sounds" / "b.wav", noise(2))
    preprocess(tmp_path / "sounds", training(normalize="chunk", augmentation_expansion=1))
    slot = slot_of(tmp_path / "sounds")
    before = {path: path.read_bytes() for path in slot.rglob("*") if path.is_file()}
    shutil.copytree(run, tmp_path / "run")
    assert analyze(tmp_path / "run", tmp_path / "sounds").report["n_chunks"] == 2
    assert len(list(slot.parent.iterdir())) == 2
    assert {path: path.read_bytes() for path in slot.rglob("*") if path.is_file()} == before


def test_unusable_runs_and_datasets_are_errors(run, tmp_path):
    with pytest.raises(RunError, match="no such run folder"):
        analyze(tmp_path / "none")
    with pytest.raises(DatasetError, match="no such folder"):
        analyze(run, tmp_path / "none")
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"model\.safetensors: missing"):
        analyze(tmp_path / "run")
    write(tmp_path / "one" / "a.wav", sine(440, CHUNK / RATE))
    plain = train(tmp_path / "one", tmp_path / "plain", training(epochs=1, latent_dim=4)).run_dir
    with pytest.raises(NothingUsableError, match="one row of features cannot be analysed") as error:
        analyze(plain)
    assert "two sounds" in error.value.tip


def test_the_command_prints_one_object_or_a_table(run, analysis, capsys):
    from distill.cli import main as commands

    def main(*argv):
        return commands.main(["analyze", str(run), "--device", "cpu", *argv]), *capsys.readouterr()

    assert one_object(*main("--json")) == json.loads(json.dumps(analysis.report))
    code, out, _ = main()
    assert code == 0
    assert str(run / "latent") in out
    assert analysis.report["names"][0] in out
    code, out, err = main(str(run / "none"), "--json")
    assert (code, out) == (2, "")
    assert "no such folder" in err
    assert "\ntip: " in err


def test_the_command_reports_that_axes_of_another_dataset_replace_those_of_the_run(run, tmp_path, capsys):
    from distill.cli import main as commands

    shutil.copytree(run, tmp_path / "run")
    for number in range(2):
        write(tmp_path / "other" / f"{number}.wav", noise(70 + number) * np.linspace(1, number, CHUNK))
    printed = []
    for argv in ((), (str(tmp_path / "other"),)):
        assert commands.main(["analyze", str(tmp_path / "run"), *argv, "--device", "cpu"]) == 0
        printed.append(capsys.readouterr().out)
    assert "distill generate --axis" not in printed[0]
    assert f"distill generate --axis now uses these axes, of {tmp_path / 'other'}" in printed[1]


@pytest.mark.parametrize(
    ("number", "message", "tip"),
    [
        (errno.ENOSPC, "latent: the disk is full", "make room"),
        (errno.EACCES, f"latent: cannot be written: {os.strerror(errno.EACCES)}", "make it writable"),
    ],
)
def test_a_run_folder_that_cannot_be_written_is_an_error_with_a_remedy(run, monkeypatch, number, message, tip):
    def refuse(path, content):
        raise OSError(number, os.strerror(number), str(path.parent))

    monkeypatch.setattr("distill.latent.analysis.write_atomically", refuse)
    with pytest.raises(StorageError, match=message) as error:
        analyze(run)
    assert error.value.tip.startswith(tip)
