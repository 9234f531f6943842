"""The embedded dataset: what the demo promises of it."""

from __future__ import annotations

import numpy as np
import soundfile

from distill.demo import write_dataset


def test_the_same_seed_gives_the_same_samples_and_another_does_not(sounds, tmp_path):
    again, other = tmp_path / "again", tmp_path / "other"
    write_dataset(again)
    write_dataset(other, seed=8)
    for path in sounds.rglob("*.*"):
        name = path.relative_to(sounds)
        samples = soundfile.read(path)[0]
        assert np.array_equal(soundfile.read(again / name)[0], samples), name
        assert not np.array_equal(soundfile.read(other / name)[0], samples), name


def test_it_has_the_kinds_rates_and_channels_that_users_have(sounds):
    found = [soundfile.info(path) for path in sounds.rglob("*.*")]
    assert len(found) == 60
    assert {info.samplerate for info in found} == {22_050, 44_100, 48_000}
    assert {info.channels for info in found} == {1, 2}
    kinds = {(info.format, info.subtype) for info in found}
    assert kinds >= {("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("OGG", "VORBIS")}
