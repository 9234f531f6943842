"""The map of a latent space: its labels name sounds at their dots, and none covers another."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from distill.plots import latent


@pytest.mark.parametrize("spread", [1.0, 0.01])
@pytest.mark.parametrize("folders", [3, 1])
def test_labels_are_beside_what_they_name_and_do_not_overlap(tmp_path, monkeypatch, spread, folders):
    figures = []
    monkeypatch.setattr(latent, "save_figure", lambda figure, path: figures.append(figure))
    rng = np.random.default_rng(3)
    files = [f"family{number % folders}/take {number} $x.wav" for number in range(90)]
    coordinates = spread * rng.standard_normal((90, 2))
    coordinates[0] = 5, 0
    options = {"labels": ["one", "two"], "values": rng.uniform(7, 12, 90), "value_name": "centroid", "unit": "log2 Hz"}
    latent.save_map_picture(coordinates, files, tmp_path / "map.png", **options)
    (figure,) = figures
    axes = figure.axes[0]
    figure.draw_without_rendering()
    boxes = {text.get_text().replace("\\$", "$"): text.get_window_extent() for text in axes.texts}
    assert not any(one.overlaps(other) for one, other in combinations(boxes.values(), 2))
    assert all(axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max) for box in boxes.values())
    takes = {name: box for name, box in boxes.items() if name.startswith("take")}
    assert "take 0 $x" in takes
    assert len(takes) >= (20 if spread == 1.0 else 2)
    assert set(boxes) - set(takes) == ({f"family{number}" for number in range(3)} if folders > 1 else set())
    for name, box in takes.items():
        x, y = axes.transData.transform(coordinates[int(name.split()[1])])
        assert max(box.x0 - x, x - box.x1, box.y0 - y, y - box.y1) < 15
