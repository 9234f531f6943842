"""Pictures of a run are not cropped, and show every value."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from distill.plots.training import save_loss_picture, save_quality_picture, save_reconstruction_picture

FIGURES = {
    "spectral_convergence": 0.6,
    "log_spectral_db": 7.8,
    "multi_resolution": 1.25,
    "prior_mean": 0.08,
    "prior_spread": 0.24,
    "prior_frechet": 0.03,
    "held_out_frechet": 0.06,
    "prior_nearest": 1.02,
}


# As a formula, of bytes that are no UTF-8, in a script that few fonts have, with a line break, and too long.
NAMES = ["$a_b$^.wav", "caf\udce9 太鼓.wav", "a\nb.wav", 40 * "long " + ".wav"]


def picture(path) -> np.ndarray:
    """Return the darkness of each pixel, after checking that the edges are blank."""
    ink = 1 - imread(path)[..., :3].min(axis=-1)
    assert ink.max() == 1
    for edge in (ink[:2], ink[-2:], ink[:, :2], ink[:, -2:]):
        assert not edge.any()
    return ink


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("chunks", [1, 4])
def test_the_picture_of_reconstructions_is_not_cropped(tmp_path, chunks, channels):
    features = np.random.default_rng(1).uniform(-1, 9, (chunks, channels, 32, 20))
    path = tmp_path / "a.png"
    options = {"centres": np.geomspace(50, 8000, 32), "duration_s": 0.5}
    save_reconstruction_picture(features, features, path, titles=NAMES[:chunks], **options)
    named = picture(path)
    save_reconstruction_picture(features, features, path, titles=["another.wav"] * chunks, **options)
    rows, _ = np.nonzero(np.abs(picture(path) - named) > 0.5)
    # Only the names differ: they are above the panels.
    assert 0 < rows.max() < 40


@pytest.mark.parametrize("epochs", [1, 40])
def test_the_quality_picture_shows_every_value(tmp_path, epochs):
    lines = [{"epoch": epoch} | FIGURES for epoch in range(1, epochs + 1)]
    save_quality_picture(lines, tmp_path / "all.png")
    whole = picture(tmp_path / "all.png")
    for name in FIGURES:
        save_quality_picture([line | {name: None} for line in lines], tmp_path / "less.png")
        less = picture(tmp_path / "less.png")
        assert less.shape == whole.shape
        assert np.abs(less - whole).max() > 0.5


@pytest.mark.parametrize("epochs", [1, 40])
def test_the_picture_of_losses_is_not_cropped(tmp_path, epochs):
    values = {"train_loss": 0.39, "val_loss": 0.37, "val_magnitude_r2": 0.9, "val_if_r2": None}
    save_loss_picture([{"epoch": epoch} | values for epoch in range(1, epochs + 1)], tmp_path / "loss.png")
    picture(tmp_path / "loss.png")
