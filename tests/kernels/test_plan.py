"""Which features the kernel supports, and the reasons for the others."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("triton", "3.6")

from distill.features.mel import MelSpec, mel_bands
from distill.kernels import make_plan

# (n_fft, hop_length, n_mels) in common use, and the extremes that are supported.
SUPPORTED = [
    (2048, 512, 128),
    (2048, 512, 16),
    (2048, 441, 512),
    (1024, 256, 80),
    (1024, 256, 512),
    (512, 160, 40),
    (512, 160, 80),
    (512, 128, 257),
    (4096, 1024, 128),
    (4096, 1024, 512),
]


@pytest.mark.parametrize("backend", ["cuda", "hip"])
@pytest.mark.parametrize(("n_fft", "hop_length", "n_mels"), SUPPORTED)
def test_supported_features_have_a_plan(n_fft, hop_length, n_mels, backend):
    bands = mel_bands(MelSpec(48_000, n_fft, hop_length, n_mels))
    plan = make_plan(bands, n_fft=n_fft, backend=backend)
    assert (plan.n_fft, plan.n_mels) == (n_fft, n_mels)
    assert plan.frames_per_program >= 1


def test_every_configuration_has_a_plan_or_a_reason():
    taken, refused = 0, set()
    lengths = [32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 65_536]
    ranges = [(0.0, None), (100.0, 8_000.0), (0.0, 200.0), (23_000.0, None)]
    for n_fft, n_mels, (f_min, f_max) in itertools.product(lengths, [1, 2, 16, 31, 128, 512, 2049], ranges):
        if n_mels > n_fft // 2 + 1:
            continue
        plan = make_plan(mel_bands(MelSpec(48_000, n_fft, n_fft // 4, n_mels, f_min, f_max)), n_fft=n_fft)
        if isinstance(plan, str):
            assert f"n_fft={n_fft}" in plan
            refused.add(plan)
        else:
            assert plan.n_mels == n_mels
            taken += 1
    assert taken > 5
    assert any("is none of" in reason for reason in refused)
    assert any("too wide" in reason for reason in refused)


@pytest.mark.parametrize(("n_fft", "hop_length", "n_mels"), SUPPORTED)
def test_every_weight_is_in_the_tables_once(n_fft, hop_length, n_mels):
    bands = mel_bands(MelSpec(48_000, n_fft, hop_length, n_mels))
    plan = make_plan(bands, n_fft=n_fft)
    count = plan.tables.bins.numel()
    weights, offsets = plan.tables.weights.numpy()[: 2 * count].reshape(2, count).astype(np.float64)
    k = np.arange(n_fft // 2 + 1)[:, None]
    distance = np.where(bands.filterbank > 0, k - bands.centre, 0)
    # The stencil computes 16·|X|² and 16·C.
    np.testing.assert_allclose(
        np.sort(weights[weights > 0]) * 16, np.sort(bands.filterbank[bands.filterbank > 0]), 1e-6
    )
    assert (weights * 16).sum() == pytest.approx(bands.filterbank.sum(), rel=1e-6)
    assert (offsets * 16).sum() == pytest.approx((bands.filterbank * distance).sum(), abs=1e-3)
    assert bands.filterbank.sum() > 10
