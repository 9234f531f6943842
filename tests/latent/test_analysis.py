"""What `distill analyze` writes, held to numpy and scipy; and a planted factor that it has to find."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.spatial
from safetensors.numpy import load_file

from distill import commands
from distill.errors import NothingUsableError, RunError
from distill.latent.analysis import analyze
from distill.models import load_model
from distill.training import CachedSpectrogramDataset, train
from sounds import CHUNK, noise, one_object, sine, training, write

FEATURES = ("rms", "spectral_centroid", "flatness", "onset_strength", "pitch")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on 24 tones of rising pitch, all else alike."""
    folder = tmp_path_factory.mktemp("analysis")
    for number in range(24):
        tone = sine(200 * 2 ** (number / 6), CHUNK / 16_000) + noise(number, level=1e-3)
        write(folder / "tones" / f"{number:02}.wav", tone)
    config = training(epochs=2, latent_dim=8, normalize="chunk")
    return train(folder / "tones", folder / "run", config).run_dir


@pytest.fixture(scope="module")
def analysis(run):
    return analyze(run)


def test_what_is_written_is_what_is_returned(run, analysis):
    report = json.loads((run / "latent" / "analysis.json").read_text(), parse_constant=pytest.fail)
    assert report == json.loads(json.dumps(analysis.report))
    assert {"variance_explained", "correlations", "active_units", "ranges", "neighbours"} <= report.keys()
    assert set(report["correlations"]) == set(FEATURES)
    for name in ("scree.png", "map.png", "sweep.png"):
        assert (run / "latent" / name).read_bytes().startswith(b"\x89PNG")


def test_latents_are_the_models_in_the_order_of_the_dataset(run, analysis):
    tensors = load_file(run / "latent" / "analysis.safetensors")
    source = json.loads((run / "run.json").read_text())
    rows = CachedSpectrogramDataset(f"{source['dataset']}/.cache", split="all")
    model = load_model(run)
    expected = np.concatenate([model.encode(row[None])[0].detach().numpy() for row in rows])
    assert expected.std() > 0.1
    np.testing.assert_allclose(tensors["latents"], expected, atol=1e-4)
    np.testing.assert_allclose(tensors["mean"], expected.mean(axis=0), atol=1e-4)
    components = tensors["components"].astype(float)
    np.testing.assert_allclose(components @ components.T, np.eye(len(components)), atol=1e-4)


def test_correlations_are_numpys(analysis):
    tensors = {name: tensor.double().numpy() for name, tensor in analysis.tensors.items()}
    scores = (tensors["latents"] - tensors["mean"]) @ tensors["components"].T
    np.testing.assert_allclose(scores.std(axis=0), tensors["scale"], rtol=0.05)
    for column, name in enumerate(FEATURES):
        values = tensors["features"][:, column]
        found = analysis.report["correlations"][name]
        if values.std() > 1e-6 * max(1.0, abs(values.mean())):
            expected = [np.corrcoef(values, axis)[0, 1] for axis in scores.T]
            np.testing.assert_allclose([r or 0.0 for r in found], expected, atol=1e-3)


def test_pitch_that_alone_varies_is_found(analysis):
    correlations = np.abs([r or 0.0 for r in analysis.report["correlations"]["pitch"]])
    assert correlations.max() > 0.7
    assert {"pitch", "spectral_centroid"} & set(analysis.report["names"])
    assert sum(analysis.report["variance_explained"]) == pytest.approx(1.0, abs=1e-3)
    pitch = analysis.tensors["features"][:, FEATURES.index("pitch")].numpy()
    hertz = 200 * 2 ** (np.arange(24) / 6)
    # Octaves are as far from each other as they are, whatever they are counted from.
    assert np.ptp(pitch) == pytest.approx(np.ptp(np.log2(hertz)), abs=0.05)


def test_neighbours_are_those_of_a_tree(analysis):
    latents = analysis.tensors["latents"].double().numpy()
    expected, _ = scipy.spatial.cKDTree(latents).query(latents, 1 + analysis.report["neighbours"]["k"])
    assert expected[:, 1:].min() > 0
    np.testing.assert_allclose(analysis.report["neighbours"]["distances"], expected[:, 1:], atol=1e-3)


def test_the_command_prints_one_object(run, capsys):
    code = commands.main(["analyze", str(run), "--device", "cpu", "--json"])
    assert set(one_object(code, *capsys.readouterr())["correlations"]) == set(FEATURES)
    assert commands.main(["analyze", str(run), "--device", "cpu"]) == 0
    assert "% of the variance" in capsys.readouterr().out


def test_what_is_no_run_or_no_two_sounds_is_said(run, tmp_path):
    with pytest.raises(RunError, match="no such run folder"):
        analyze(tmp_path / "none")
    write(tmp_path / "one" / "a.wav", sine(440, CHUNK / 16_000))
    with pytest.raises(NothingUsableError, match="one row of features"):
        analyze(run, tmp_path / "one")
