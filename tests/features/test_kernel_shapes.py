"""Both kernels against the definition, at shapes that hypothesis draws."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from definition import LOUD, assert_within_gates, make_signal
from distill.config import ComplexSpectrogramConfig
from distill.features.mel import MelSpec, mel_bands


@st.composite
def cases(draw, n_ffts):
    """A spec, a number of clips and a number of samples, for three programs of the Triton kernel at most."""
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
    return MelSpec.of(config), clips, min(samples, 20_000)


KINDS = st.sampled_from(["noise", "tonal", "mixed"])
SEEDS = st.integers(0, 2**16)
SETTINGS = {
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
    spec, clips, samples = case
    assume(samples // spec.hop_length < 100)
    waveform = np.stack([make_signal(samples, kind, spec.sample_rate, seed + clip) for clip in range(clips)])
    waveform = waveform.astype(np.float32)
    expected, powers = assert_within_gates(computed(waveform, spec), waveform, spec)
    # Short frames may hold almost nothing in the drawn range of frequencies.
    assume((powers > LOUD).any() and np.abs(expected[:, 1]).max() > 1e-3)


@settings(max_examples=25, **SETTINGS)
@given(case=cases([512, 1024, 2048, 4096]), kind=KINDS, seed=SEEDS)
def test_any_shape_in_triton(interpreted, case, kind, seed):
    spec, _, _ = case
    from distill.kernels import make_plan

    assume(not isinstance(make_plan(mel_bands(spec), n_fft=spec.n_fft), str))
    check(interpreted, case, kind, seed)


@settings(max_examples=100, **SETTINGS)
@given(case=cases([256, 512, 1024, 2048, 4096, 8192]), kind=KINDS, seed=SEEDS)
def test_any_shape_in_rust(rust, case, kind, seed):
    check(rust, case, kind, seed)
