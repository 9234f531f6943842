"""Axes are found by name or number, move latent vectors, and are refused if the weights have changed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from distill.errors import ConfigError, RunError
from distill.runs.axes import Axes, axes_metadata, read_axes

NAMES = ["rms", "pitch", "axis3"]


@pytest.fixture
def axes():
    directions = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0][:3]
    tensors = [torch.tensor(array, dtype=torch.float32) for array in (np.arange(5), directions, [3.0, 2.0, 0.5])]
    return Axes(NAMES, *tensors)


@pytest.fixture
def analysed(axes, tmp_path):
    """A run folder with weights and an analysis of them."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "latent").mkdir()
    tensors = {"mean": axes.mean, "components": axes.components, "scale": axes.scale}
    save_file(tensors, tmp_path / "latent" / "analysis.safetensors", axes_metadata(axes.names, tmp_path))
    return tmp_path


def test_an_axis_is_found_by_its_name_or_its_number_from_one(axes):
    assert [axes.index(name) for name in ("rms", "pitch", "axis3", "1", "2", "3", "03")] == [0, 1, 2, 0, 1, 2, 2]


@pytest.mark.parametrize("name", ["0", "4", "-1", "1.5", "", "Pitch", "loudness", "9" * 5000, "²"])
def test_an_unknown_axis_is_refused_and_the_known_ones_are_named(axes, name):
    with pytest.raises(ConfigError, match=r"1 \(rms\), 2 \(pitch\), 3 \(axis3\)") as error:
        axes.index(name)
    assert "distill analyze" in error.value.tip


def test_a_move_changes_one_coordinate_by_the_given_number_of_standard_deviations(axes):
    z = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    moved = axes.move(z, 1, -1.5)
    coordinates = (moved - z).double().numpy() @ axes.components.double().numpy().T
    np.testing.assert_allclose(coordinates, np.tile([0.0, -1.5 * 2.0, 0.0], (4, 1)), atol=1e-6)


def test_axes_round_trip(axes, analysed):
    found = read_axes(analysed)
    assert found.names == NAMES
    for name in ("mean", "components", "scale"):
        assert torch.equal(getattr(found, name), getattr(axes, name))


def test_a_run_without_an_analysis_is_refused(tmp_path):
    with pytest.raises(RunError, match="has not been analysed") as error:
        read_axes(tmp_path)
    assert error.value.tip == f"run: distill analyze {tmp_path}"


def test_an_analysis_of_earlier_weights_is_refused(analysed):
    (analysed / "model.safetensors").write_bytes(b"better weights")
    with pytest.raises(RunError, match="trained on since") as error:
        read_axes(analysed)
    assert "distill analyze" in error.value.tip


def test_a_damaged_analysis_is_refused(axes, analysed):
    path = analysed / "latent" / "analysis.safetensors"
    whole = path.read_bytes()
    metadata = axes_metadata(NAMES, analysed)
    tensors = {"mean": axes.mean, "components": axes.components, "scale": axes.scale}
    save_file(tensors, path, metadata | {"names": json.dumps(NAMES[:2])})
    damaged = [whole[:-1], whole[:20], b"", path.read_bytes()]
    save_file(tensors | {"scale": axes.scale.double()}, path, metadata)
    damaged.append(path.read_bytes())
    save_file({"mean": axes.mean}, path, metadata)
    damaged.append(path.read_bytes())
    save_file(tensors, path)
    damaged.append(path.read_bytes())
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"analysis\.safetensors: damaged") as error:
            read_axes(analysed)
        assert "distill analyze" in error.value.tip
    path.write_bytes(whole)
    assert read_axes(analysed).names == NAMES


def test_an_axis_of_a_course_is_stretched_to_the_length_of_a_sound():
    """A rise over the three latent vectors of a chunk becomes a rise over the five of a sound."""
    rise = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]) / 2**0.5
    axes = Axes(["rise"], torch.zeros(6), rise.flatten()[None], torch.tensor([2**0.5]))
    moved = axes.move(torch.zeros(5, 2), 0, 2.0)
    np.testing.assert_allclose(moved[:, 0], [-2.0, -1.0, 0.0, 1.0, 2.0], atol=1e-6)
    assert moved[:, 1].eq(0).all()
