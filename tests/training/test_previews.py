"""Previews of a training run: number of files, repeatability for a seed, and agreement with the returned sounds."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.image import imread

from distill.runs.instrument import Instrument
from distill.training.previews import save_previews
from instruments import PITCHES, pitch_of, tones, write_run
from sounds import CHUNK, RATE, sine


@pytest.mark.parametrize("channels", [2, 1])
@pytest.mark.parametrize("count", [2, 6])
def test_previews_are_written_and_returned(tmp_path, channels, count):
    run = write_run(tmp_path / "run", tones(), channels=channels)
    instrument = Instrument.load(run, "cpu")
    chunks = np.stack([sine(pitch, CHUNK / RATE, level=1.0) for pitch in PITCHES[:count]])
    rows = instrument.features(chunks.astype(np.float32)[:, None])
    before = torch.get_rng_state()
    names = [f"tone of {pitch:.0f} Hz" for pitch in PITCHES[:count]]
    # The second one cannot be had any more.
    originals = [None if number == 1 else chunk for number, chunk in enumerate(chunks.astype(np.float32))]
    save = functools.partial(save_previews, run, instrument, rows, names=names, originals=originals)
    found = save(epoch=12, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert found.folder == run / "previews" / "epoch-012"
    kept = min(count, 4)
    written = [f"original-{n}" for n in range(1, kept + 1) if n != 2]
    names = [*written, *(f"reconstruction-{n}" for n in range(1, kept + 1))] + [f"sample-{n}" for n in range(1, 5)]
    assert list(found.sounds) == names
    assert {path.name for path in found.folder.iterdir()} == {"previews.png", *(f"{name}.wav" for name in names)}
    sounds = {}
    for name, path in found.sounds.items():
        assert path == found.folder / f"{name}.wav"
        sounds[name], rate = soundfile.read(path)
        assert (rate, sounds[name].shape, found.sample_rate) == (RATE, (CHUNK,), RATE)
        assert 1e-3 < np.abs(sounds[name]).max() <= (1 if name in written else 0.9)
    for name in written:
        np.testing.assert_allclose(sounds[name], originals[int(name[-1]) - 1], atol=2**-14)
    for number, pitch in enumerate(PITCHES[:kept], 1):
        assert abs(pitch_of(sounds[f"reconstruction-{number}"]) - pitch) < (5 if channels == 2 else 70)
    picture = imread(found.folder / "previews.png")[..., :3]
    np.testing.assert_allclose(found.picture / 255, picture, atol=1e-3)
    assert found.picture.std() > 10
    again, other = (soundfile.read(save(epoch=13, seed=seed).sounds["sample-2"])[0] for seed in (3, 4))
    np.testing.assert_array_equal(again, sounds["sample-2"])
    assert np.abs(other - sounds["sample-2"]).max() > 1e-3
