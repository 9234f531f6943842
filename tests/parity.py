"""Cases in which every kernel must agree with the definition in float64.

A test module of a kernel derives a class from :class:`Parity` and defines the fixture `computed`: a function from a
waveform (B, S), a MelSpec and options to features [B, 2, M, T], written to memory filled with NaN.
"""

from __future__ import annotations

import numpy as np
import pytest

from definition import LOUD, assert_within_gates, make_signal
from distill.config import ComplexSpectrogramConfig
from distill.features.mel import MelSpec

RATE = 48_000
DEFAULT = {}
MIDDLE = {"n_fft": 1024, "hop_length": 256, "n_mels": 80}
LARGE = {"n_fft": 4096, "hop_length": 1024}
SMALL = {"n_fft": 512, "hop_length": 160, "n_mels": 64, "sample_rate": 16_000}


def impulses(samples):
    signal = np.zeros(samples)
    signal[[0, samples // 3, samples // 2, -1]] = 1.0, -1.0, 0.5, 1.0
    return signal


def sine(samples, bins, n_fft=2048):
    return np.sin(2 * np.pi * bins / n_fft * np.arange(samples) + 0.3)


SIGNALS = {
    "noise": lambda samples: make_signal(samples, "noise"),
    "loud noise": lambda samples: 10 * make_signal(samples, "noise", seed=1),
    "quiet noise": lambda samples: 1e-3 * make_signal(samples, "noise", seed=2),
    "tonal": lambda samples: make_signal(samples, "tonal"),
    "mixed": lambda samples: make_signal(samples, seed=3),
    "chirp": lambda samples: np.sin(
        2 * np.pi * (20 + 11_000 * np.arange(samples) / samples) * np.arange(samples) / RATE
    ),
    # A whole bin at every frame length.
    "full-scale sine at a bin": lambda samples: sine(samples, 100),
    "full-scale sine between bins": lambda samples: sine(samples, 100.5),
    "full-scale sine near DC": lambda samples: sine(samples, 1.3),
    "full-scale sine near Nyquist": lambda samples: sine(samples, 1022.6),
    "impulses": impulses,
    "clipped square": lambda samples: np.clip(3 * sine(samples, 17.3), -1, 1).round(),
    "DC": lambda samples: np.full(samples, 0.7),
    "noise on DC": lambda samples: 0.9 + 0.01 * make_signal(samples, "noise", seed=4),
    "silence": np.zeros,
    "half silent": lambda samples: np.where(np.arange(samples) < samples // 2, 0, make_signal(samples, seed=5)),
    "denormals": lambda samples: 1e-40 * make_signal(samples, "noise", seed=6),
}


def spec_of(**feature):
    return MelSpec.of(ComplexSpectrogramConfig(**feature))


def check(computed, rows, feature, **options):
    """Compute features of rows as one batch and compare them with the definition's, which are returned with powers."""
    spec = spec_of(**feature)
    waveform = np.stack(rows).astype(np.float32)
    return assert_within_gates(computed(waveform, spec, **options), waveform, spec)


# Signals for the other frame lengths: those on which transforms differ by rounding or leakage.
FEW = ("loud noise", "chirp", "full-scale sine between bins", "impulses", "clipped square", "half silent", "denormals")


SHAPES = {
    "hop 441": {"hop_length": 441},
    "hop 777": {"hop_length": 777},
    "hop n_fft": {"hop_length": 2048},
    "hop 100": {"hop_length": 100},
    "16 mels": {"n_mels": 16},
    "33 mels": {"n_mels": 33},
    "64 mels": {"n_mels": 64},
    "229 mels": {"n_mels": 229},
    "256 mels": {"n_mels": 256},
    "512 mels": {"n_mels": 512},
    "100 Hz to 8 kHz": {"f_min": 100.0, "f_max": 8_000.0},
    "80 bands to 7.6 kHz": {"f_min": 80.0, "f_max": 7_600.0, "n_mels": 80},
    "a narrow range": {"f_min": 900.0, "f_max": 1_400.0, "n_mels": 40},
    "44.1 kHz": {"sample_rate": 44_100, "hop_length": 441},
    "4096, hop 999": {**LARGE, "hop_length": 999},
    "4096, hop n_fft": {**LARGE, "hop_length": 4096},
    "4096, 40 mels": {**LARGE, "n_mels": 40},
    "4096, 512 mels": {**LARGE, "n_mels": 512},
    "4096, 96 kHz from 20 Hz": {**LARGE, "sample_rate": 96_000, "f_min": 20.0},
    "1024, hop 333": {**MIDDLE, "hop_length": 333},
    "1024, hop n_fft": {**MIDDLE, "hop_length": 1024},
    "1024, 40 mels": {**MIDDLE, "n_mels": 40},
    "1024, 128 mels": {**MIDDLE, "n_mels": 128},
    "1024, 300 mels": {**MIDDLE, "n_mels": 300},
    "1024, 22.05 kHz": {**MIDDLE, "sample_rate": 22_050, "f_max": 8_000.0},
    "512, hop 1": {**SMALL, "hop_length": 1},
    "512, hop 77": {**SMALL, "hop_length": 77},
    "512, hop n_fft": {**SMALL, "hop_length": 512},
    "512, 40 mels": {**SMALL, "n_mels": 40},
    "512, 200 mels": {**SMALL, "n_mels": 200},
    "512, 48 kHz": {**SMALL, "sample_rate": 48_000, "n_mels": 128},
    "512, 8 kHz from 300 Hz": {**SMALL, "sample_rate": 8_000, "f_min": 300.0},
}


# The shortest possible, around one frame, frames that do and do not fill the programs, one clip and several.
LENGTHS = {
    "2048": (DEFAULT, {1_025: 1, 1_536: 3, 3_583: 1, 3_584: 2, 4_095: 1, 4_096: 3, 8_191: 1, 12_345: 1}),
    "4096": (LARGE, {2_049: 2, 8_191: 1, 9_216: 1, 12_345: 1}),
    "1024": (MIDDLE, {513: 3, 3_840: 1, 4_096: 2, 4_999: 1}),
    "512": (SMALL, {257: 3, 320: 1, 4_960: 2, 5_119: 1, 5_120: 1}),
}


class Parity:
    """All cases, for the kernel `computed`."""

    @pytest.mark.parametrize(
        ("feature", "kind"),
        [pytest.param(DEFAULT, kind, id=f"2048-{kind}") for kind in SIGNALS]
        + [
            pytest.param(feature, kind, id=f"{feature['n_fft']}-{kind}")
            for feature in (LARGE, MIDDLE, SMALL)
            for kind in FEW
        ],
    )
    def test_signals(self, computed, feature, kind):
        # A second row of noise shows that the kernel is not silent on everything.
        samples = 3_001 if feature is not LARGE else 5_001
        expected, powers = check(computed, [SIGNALS[kind](samples), make_signal(samples, "noise", seed=7)], feature)
        assert (powers[1] > LOUD).mean() > 0.5
        assert expected[1, 1].std() > 0.05
        assert (powers[0].max() > 1e-5) == (kind not in ("silence", "denormals"))

    @pytest.mark.parametrize("feature", SHAPES.values(), ids=SHAPES)
    def test_shapes(self, computed, feature):
        spec = spec_of(**feature)
        samples = spec.n_fft // 2 + (101 if spec.hop_length == 1 else 2_222)
        expected, powers = check(computed, [make_signal(samples, rate=spec.sample_rate)], feature)
        assert (powers > LOUD).mean() > 0.1
        # Several times the gate. With a hop of one sample, the unit of channel 1 is half the spectrum.
        assert expected[0, 1].std() > (4e-3 if spec.hop_length == 1 else 0.05)

    @pytest.mark.parametrize(
        ("feature", "samples", "clips"),
        [
            pytest.param(feature, samples, clips, id=f"{name}-{samples} samples-{clips} clips")
            for name, (feature, lengths) in LENGTHS.items()
            for samples, clips in lengths.items()
        ],
    )
    def test_lengths(self, computed, feature, samples, clips):
        expected, powers = check(computed, [make_signal(samples, seed=seed) for seed in range(clips)], feature)
        assert (powers > LOUD).mean() > 0.1
        assert expected[:, 1].std() > 0.05

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    @pytest.mark.parametrize("feature", [DEFAULT, LARGE, MIDDLE, SMALL], ids=["2048", "4096", "1024", "512"])
    def test_half_precision_is_computed_in_float32(self, computed, feature, dtype):
        import torch

        spec = spec_of(**feature)
        waveform = np.stack([make_signal(4_000, seed=seed) for seed in range(2)]).astype(np.float32)
        rounded = torch.from_numpy(waveform).to(getattr(torch, dtype)).float().numpy()
        assert (rounded != waveform).mean() > 0.5
        expected = computed(rounded, spec)
        assert expected.std() > 0.1
        np.testing.assert_array_equal(computed(waveform, spec, dtype=dtype), expected)

    @pytest.mark.parametrize("feature", [DEFAULT, LARGE, MIDDLE, SMALL], ids=["2048", "4096", "1024", "512"])
    def test_rows_may_have_gaps_between_them(self, computed, feature):
        check(computed, [make_signal(4_000, seed=seed) for seed in range(2)], feature, gap=37)

    @pytest.mark.parametrize(
        ("feature", "bad"),
        [(DEFAULT, np.nan), (DEFAULT, np.inf), (LARGE, np.inf), (MIDDLE, np.nan), (SMALL, np.nan), (SMALL, -np.inf)],
        ids=["2048-NaN", "2048-infinity", "4096-infinity", "1024-NaN", "512-NaN", "512-minus infinity"],
    )
    def test_a_broken_row_does_not_affect_others(self, computed, feature, bad):
        spec = spec_of(**feature)
        samples = 9_000 if feature is LARGE else 4_500
        clean = np.stack([make_signal(samples, seed=seed) for seed in range(3)]).astype(np.float32)
        broken, at = clean.copy(), 3 * samples // 4
        broken[1, at] = bad
        expected, actual = computed(clean, spec), computed(broken, spec)
        assert expected.std() > 0.1
        np.testing.assert_array_equal(actual[[0, 2]], expected[[0, 2]])
        # Frame t spans the samples from t·hop - n_fft/2 up to, not including, t·hop + n_fft/2.
        start = np.arange(expected.shape[-1]) * spec.hop_length - spec.n_fft // 2
        holds = (start <= at) & (at < start + spec.n_fft)
        assert 0 < holds.sum() < len(holds)
        np.testing.assert_array_equal(actual[1][..., ~holds], expected[1][..., ~holds])
        assert not np.isfinite(actual[1, 0][:, holds]).any()

    def test_the_mask_follows_the_threshold(self, computed):
        spec = spec_of()
        waveform = make_signal(6_000)[None].astype(np.float32)
        _, powers = assert_within_gates(computed(waveform, spec), waveform, spec)
        threshold = float(np.quantile(powers, 0.5))
        actual = computed(waveform, spec._replace(if_masking_threshold=threshold))
        clear = np.abs(powers / threshold - 1) > 1e-3
        np.testing.assert_array_equal((actual[:, 1] != 0)[clear], (powers > threshold)[clear])

    def test_channel_1_is_clamped_at_both_limits(self, computed):
        waveform = 0.5 * sine(6_000, 128.43)[None]
        expected, powers = check(computed, waveform, {"n_mels": 256})
        clamped = expected[:, 1][powers > LOUD]
        assert (clamped == 2).any()
        assert (clamped == -2).any()

    def test_an_empty_batch_gives_an_empty_batch(self, computed):
        assert computed(np.zeros((0, 4_000), np.float32), spec_of()).shape == (0, 2, 128, 8)
