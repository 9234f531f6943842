"""Both kernels against the definition, at shapes that hypothesis finds."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from definition import LOUD, assert_within_gates, make_signal
from distill.config import ComplexSpectrogramConfig
from distill.features.mel import mel_bands
from distill.kernels import make_plan

NAMES = ("sample_rate", "n_fft", "hop_length", "n_mels", "f_min", "f_max")


@st.composite
def cases(draw, n_ffts):
    """A feature, a number of clips and of samples: at most three programs of the Triton kernel."""
    n_fft = draw(st.sampled_from(n_ffts))
    hop_length = draw(st.integers(1, n_fft))
    sample_rate = draw(st.sampled_from([8_000, 16_000, 44_100, 48_000, 96_000]))
    f_min = draw(st.floats(0, sample_rate / 4))
    f_max = draw(st.one_of(st.none(), st.floats(f_min + sample_rate / 16, sample_rate / 2)))
    config = ComplexSpectrogramConfig(
        sample_rate=sample_rate,
        n_fft=n_fft,
        hop_length=hop_length,
        n_mels=draw(st.integers(4, min(300, n_fft // 4))),
        f_min=f_min,
        f_max=f_max,
    )
    clips = draw(st.integers(1, 3))
    frames = draw(st.integers(1, 3 * 8 * max(1, 2048 // n_fft) // clips))
    samples = max(n_fft // 2 + 1, (frames - 1) * hop_length + draw(st.integers(0, hop_length - 1)))
    return config, clips, min(samples, 20_000)


KINDS = st.sampled_from(["noise", "tonal", "mixed"])
SEEDS = st.integers(0, 2**16)
PLAN = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.differing_executors,
    ],
}


def check(computed, case, kind, seed):
    config, clips, samples = case
    assume(samples // config.hop_length < 100)
    waveform = np.stack([make_signal(samples, kind, config.sample_rate, seed + clip) for clip in range(clips)])
    waveform = waveform.astype(np.float32)
    expected, powers = assert_within_gates(computed(waveform, feature_of(config)), waveform, config)
    # Short frames may hold next to nothing in the range that is asked for.
    assume((powers > LOUD).any() and np.abs(expected[:, 1]).max() > 1e-3)


def feature_of(config):
    return {name: getattr(config, name) for name in NAMES}


@settings(max_examples=25, **PLAN)
@given(case=cases([512, 1024, 2048, 4096]), kind=KINDS, seed=SEEDS)
def test_any_shape_in_triton(interpreted, case, kind, seed):
    config, _, _ = case
    assume(not isinstance(make_plan(mel_bands(**feature_of(config)), n_fft=config.n_fft), str))
    check(interpreted, case, kind, seed)


@settings(max_examples=100, **PLAN)
@given(case=cases([256, 512, 1024, 2048, 4096, 8192]), kind=KINDS, seed=SEEDS)
def test_any_shape_in_rust(rust, case, kind, seed):
    check(rust, case, kind, seed)
