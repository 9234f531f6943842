"""Pictures of sounds: averages over time, and input above output."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from distill.plots.sounds import TimeAverage, save_preview_picture, save_sound_picture


@pytest.mark.parametrize(("frames", "width"), [(700, 1), (1500, 1), (1501, 2), (4000, 3)])
def test_time_average_is_the_mean_of_neighbouring_frames(frames, width):
    random = np.random.default_rng(frames)
    features = random.standard_normal((2, 5, frames + 40))
    average = TimeAverage(frames)
    for part in np.array_split(features, [1, 2, 300, 301, 699], axis=-1):
        average.add(part)
    found = average.columns()
    whole = frames // width * width
    mean = features[..., :whole].reshape(2, 5, -1, width).mean(axis=-1)
    assert found.shape == (2, 5, -(-frames // width))
    np.testing.assert_allclose(found[..., : mean.shape[-1]], mean)
    if whole < frames:
        np.testing.assert_allclose(found[..., -1], features[..., whole:frames].mean(axis=-1))


@pytest.mark.parametrize("channels", [1, 2])
def test_the_picture_shows_the_input_above_the_output(tmp_path, channels):
    random = np.random.default_rng(1)
    inputs, outputs = (random.uniform(0, 5, (channels, 32, 90)) * (np.arange(90) < end) for end in (90, 45))
    # A name that matplotlib would read as a formula, with characters that its own font does not have.
    title = "$x_{ \udcff 音楽.wav"
    centres = np.geomspace(50, 8000, 32)
    save_sound_picture(inputs, outputs, tmp_path / "a.png", centres=centres, duration_s=2.0, title=title)
    picture = imread(tmp_path / "a.png")[..., :3]
    height, width = picture.shape[0] // (2 * channels), picture.shape[1] // 2
    # The right half, where only the input has sound.
    panels = [picture[row * height : (row + 1) * height, width + 100 : -200] for row in range(2)]
    black = [float((panel.max(axis=-1) < 0.1).mean()) for panel in panels]
    assert black[0] < 0.2
    assert black[1] > 0.7


def test_the_picture_of_previews_names_its_columns(tmp_path):
    features = np.random.default_rng(1).uniform(0, 9, (2, 1, 16, 40))
    rows = [("validation", features), ("sample", np.repeat(features, 2, axis=0))]
    options = {"centres": np.geomspace(50, 5000, 16), "duration_s": 0.5}
    named, other = (
        save_preview_picture(rows, tmp_path / "a.png", titles=titles, **options).astype(int)
        for titles in (["$a_b$^.wav", "caf\udce9 太鼓.wav"], ["$c_d$^.wav", "fac\udce9 鼓太.wav"])
    )
    assert named.shape == other.shape
    changed, columns = np.nonzero(np.abs(named - other).max(axis=-1) > 100)
    # Above the first two of four columns.
    assert 0 < changed.max() < 40
    assert columns.min() < 0.25 * named.shape[1] < columns.max() < 0.6 * named.shape[1]
