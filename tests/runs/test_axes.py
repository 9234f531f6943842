"""Axes as `generate` reads them: found by name or number, moved along, and refused when they are of other weights."""

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


def test_an_axis_by_name_and_by_number_from_one(axes):
    assert [axes.index(name) for name in ("rms", "pitch", "axis3", "1", "2", "3", "03")] == [0, 1, 2, 0, 1, 2, 2]


@pytest.mark.parametrize("name", ["0", "4", "-1", "1.5", "", "Pitch", "loudness", "9" * 5000, "²"])
def test_an_axis_that_is_none_is_refused_with_those_that_there_are(axes, name):
    with pytest.raises(ConfigError, match=r"1 \(rms\), 2 \(pitch\), 3 \(axis3\)") as error:
        axes.index(name)
    assert "distill analyze" in error.value.tip


def test_moving_changes_one_coordinate_by_so_many_deviations(axes):
    z = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    moved = axes.move(z, 1, -1.5)
    coordinates = (moved - z).double().numpy() @ axes.components.double().numpy().T
    np.testing.assert_allclose(coordinates, np.tile([0.0, -1.5 * 2.0, 0.0], (4, 1)), atol=1e-6)


def test_axes_are_read_as_they_were_written(axes, analysed):
    found = read_axes(analysed)
    assert found.names == NAMES
    for name in ("mean", "components", "scale"):
        assert torch.equal(getattr(found, name), getattr(axes, name))


def test_a_run_without_an_analysis(tmp_path):
    with pytest.raises(RunError, match="has not been analysed") as error:
        read_axes(tmp_path)
    assert error.value.tip == f"run: distill analyze {tmp_path}"


def test_an_analysis_of_earlier_weights_is_not_used(analysed):
    (analysed / "model.safetensors").write_bytes(b"better weights")
    with pytest.raises(RunError, match="trained on since") as error:
        read_axes(analysed)
    assert "distill analyze" in error.value.tip


def test_a_damaged_analysis(axes, analysed):
    path = analysed / "latent" / "analysis.safetensors"
    whole = path.read_bytes()
    about = axes_metadata(NAMES, analysed)
    tensors = {"mean": axes.mean, "components": axes.components, "scale": axes.scale}
    save_file(tensors, path, about | {"names": json.dumps(NAMES[:2])})
    damaged = [whole[:-1], whole[:20], b"", path.read_bytes()]
    save_file(tensors | {"scale": axes.scale.double()}, path, about)
    damaged.append(path.read_bytes())
    save_file({"mean": axes.mean}, path, about)
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
