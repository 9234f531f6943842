"""Cross-fades of consecutive chunks of one sound."""

import math

import numpy as np
import pytest
import torch

from definition import make_signal
from distill.audio import ComplexSpectrogram, ComplexSpectrogramConfig
from distill.features.inversion.crossfade import join_chunks

pytestmark = pytest.mark.usefixtures("one_thread")


SMALL = {"sample_rate": 16_000, "n_fft": 512, "hop_length": 128, "n_mels": 40}


@pytest.mark.parametrize("overlap", [0, 1, 1_000, 4_000])
def test_chunks_of_a_sound_join_to_the_same_sound(overlap):
    samples, step = 8_000, 8_000 - overlap
    sound = torch.tensor(make_signal(4 * step + overlap))
    chunks = sound.unfold(0, samples, step)[:, None]
    assert len(chunks) == 4
    torch.testing.assert_close(join_chunks(chunks, overlap), sound[None, None], atol=1e-12, rtol=0)
    inverted = chunks * torch.tensor([1.0, -1.0, -1.0, 1.0])[:, None, None]
    if overlap >= 1_000:
        torch.testing.assert_close(join_chunks(inverted, overlap), sound[None, None], atol=1e-12, rtol=0)


def test_different_chunks_join_at_constant_level_without_clicks():
    overlap = 4_000
    chunks = torch.tensor(np.stack([make_signal(16_000, "noise", seed=seed) for seed in range(6)]))[:, None]
    joined = join_chunks(chunks, overlap)[0, 0]
    assert joined.shape == (6 * 12_000 + overlap,)
    faded = torch.cat([joined[n * 12_000 :][:overlap] for n in range(1, 6)])
    level = 20 * torch.log10(faded.std() / chunks.std())
    assert abs(level) < 0.3  # a linear fade loses 1.8 dB
    tones = torch.stack([torch.sin(0.05 * torch.arange(16_000.0) + phase) for phase in (0.0, 1.0, 2.5)])[:, None]
    steps = join_chunks(tones, overlap)[0, 0].diff().abs()
    assert 0.045 < steps.max() < 0.055  # the largest step of the sine is 0.05


def test_chunks_from_features_join_without_a_seam():
    """A joined low tone has no more high frequencies at the seams than elsewhere; cut without a fade it has many."""
    module, samples, overlap = ComplexSpectrogram(ComplexSpectrogramConfig(**SMALL)), 8_000, 1_600
    time = torch.arange(4 * (samples - overlap) + overlap) / 16_000
    sound = 0.5 * torch.sin(2 * math.pi * 300.3 * time)
    chunks = module.inverse(module(sound.unfold(0, samples, samples - overlap)[:, None]), length=samples)
    joined = join_chunks(chunks, overlap)[0, 0]
    cut = torch.cat([chunk[0, : samples - overlap] for chunk in chunks])
    curvature = joined.diff().diff().abs()
    seams = [n * (samples - overlap) for n in (1, 2, 3)]
    inside = torch.cat([curvature[s - 50 : s + overlap + 50] for s in seams]).max()
    elsewhere = torch.cat([curvature[s - 4_000 : s - 100] for s in seams]).max()
    assert inside < 1.5 * elsewhere
    assert max(cut.diff().diff().abs()[s - 50 : s + 50].max() for s in seams) > 5 * elsewhere
    level = torch.stack([joined[s : s + overlap].norm() / sound[s : s + overlap].norm() for s in seams])
    assert (20 * torch.log10(level)).abs().max() < 1.5


def test_one_chunk_is_returned_unchanged():
    chunk = torch.tensor(make_signal(500, rate=16_000))[None, None]
    assert torch.equal(join_chunks(chunk, 250), chunk)


@pytest.mark.parametrize(
    ("chunks", "overlap", "message"),
    [
        (torch.zeros(2, 1, 100), 51, "overlap=51 must be from 0 to 50 samples"),
        (torch.zeros(2, 1, 100), -1, "overlap=-1"),
        (torch.zeros(0, 1, 100), 0, r"\[0, 1, 100\]"),
        (torch.zeros(2, 2, 100), 0, r"\[2, 2, 100\]"),
        (torch.zeros(2, 1, 100, dtype=torch.int16), 0, "int16"),
    ],
)
def test_wrong_chunks_are_reported(chunks, overlap, message):
    with pytest.raises(ValueError, match=message):
        join_chunks(chunks, overlap)
