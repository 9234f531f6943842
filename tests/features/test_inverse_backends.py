"""The inverse in Rust relative to the reference in torch: the same sound, for every shape; and which one computes."""

import logging
import sys

import numpy as np
import pytest
import torch

from definition import make_signal
from distill.audio import AudioSpectrogram, ComplexSpectrogram, ComplexSpectrogramConfig, SpectrogramConfig
from distill.errors import BackendError
from distill.features.distance import distances

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = {
    "two channels": (ComplexSpectrogram, ComplexSpectrogramConfig),
    "magnitude": (AudioSpectrogram, SpectrogramConfig),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def make(request):
    kind, config = request.param
    return lambda backend="rust", **options: kind(config(**options), backend)


def chord(samples, *seeds):
    """Three sines and a little noise. In noise alone the loudest paths of the phase depend on rounding."""
    time = np.arange(samples)
    clips = []
    for seed in seeds:
        random = np.random.default_rng(seed)
        steps = random.uniform(0.02, 0.6, 3)[:, None]
        clips.append((0.3 * np.sin(steps * time)).sum(axis=0) + 1e-3 * random.standard_normal(samples))
    return torch.tensor(np.stack(clips)[:, None], dtype=torch.float32)


def assert_same_sound(module, features, *, limit=1e-3, **options):
    """Compare with the reference, by spectral convergence; return the sound.

    Iterations amplify rounding errors. So the limit is what the last bits of the features change in the reference,
    times 8 because that varies, or `limit` if it is more.
    """
    reference = type(module)(module.config, "reference")
    last_bits = 1 + 2e-7 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    changed = reference.inverse(features * last_bits, **options)
    found, expected = (m.inverse(features, **options) for m in (module, reference))
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert expected.abs().max() > 0.01
    missing = max(0, 4_096 - found.shape[-1])
    found_at, changed_at = (
        distances(*(torch.nn.functional.pad(w, (0, missing)) for w in (expected, other))).spectral_convergence
        for other in (found, changed)
    )
    # A constant, silence and noise are at 1 or more; the features alone determine a sound to about 0.2.
    assert found_at.max() < min(0.2, max(limit, 8 * float(changed_at.max())))
    return found


@pytest.mark.parametrize(
    ("n_fft", "hop_length", "n_mels"),
    [
        (32, 16, 1),
        (32, 5, 17),
        (64, 64, 8),
        (128, 37, 20),
        (256, 64, 129),
        (512, 128, 40),
        (1_024, 511, 64),
        (2_048, 512, 128),
        (2_048, 1_024, 1_024),
        (4_096, 1_000, 256),
    ],
)
def test_it_is_the_sound_of_the_reference(make, n_fft, hop_length, n_mels):
    module = make(sample_rate=16_000, n_fft=n_fft, hop_length=hop_length, n_mels=n_mels)
    features = module(chord(9_000, 0, 1))
    for n_iter in (0, 8):
        assert_same_sound(module, features, length=9_000, n_iter=n_iter, limit=3e-3)


def test_frames_larger_than_a_cpu_cache(make):
    module = make(n_fft=65_536, hop_length=16_384, n_mels=64)
    # The reference rounds the phase of the highest bins to 0.01 rad.
    assert_same_sound(module, module(chord(70_000, 3)), n_iter=0, limit=2e-2)


@pytest.mark.parametrize("frames", [1, 2, 15, 16, 17, 33])
@pytest.mark.parametrize("n_iter", [0, 1, 3])
def test_any_number_of_frames_and_iterations(make, frames, n_iter):
    module = make(sample_rate=16_000, n_fft=512, hop_length=128, n_mels=40)
    features = module(chord(9_000, 3))[..., :frames]
    assert_same_sound(module, features, n_iter=n_iter, length=128 * frames)


@pytest.mark.parametrize("length", [None, 100, 8_999, 9_000, 9_100, 20_000])
def test_any_length(make, length):
    module = make(sample_rate=16_000, n_fft=512, hop_length=128, n_mels=40)
    assert_same_sound(module, module(chord(9_000, 4)), length=length)


def test_a_batch_gives_the_bits_of_its_clips_for_any_number_of_threads(make):
    module = make(sample_rate=16_000, n_fft=512, hop_length=128, n_mels=40)
    features = module(torch.tensor(np.stack([make_signal(9_000, seed=s) for s in range(5)]))[:, None].float())
    alone = torch.cat([module.inverse(clip[None]) for clip in features])
    assert alone.std() > 0.01
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        assert torch.equal(module.inverse(features), alone)
    torch.set_num_threads(1)
    views = features.transpose(1, 3).contiguous().transpose(1, 3), features.repeat_interleave(2, dim=-1)[..., ::2]
    for view in views:
        assert not view.is_contiguous()
        assert torch.equal(module.inverse(view), alone)
    assert torch.equal(module.inverse(features.double()), alone)
    assert torch.equal(module.inverse(features.half()), module.inverse(features.half().float()))


def test_noise_is_as_far_from_the_original_as_with_the_reference(make):
    """Of two paths that are as loud but for rounding, either may be chosen: the sounds differ, not their quality."""
    module, reference = make(), make("reference")
    waveform = torch.tensor(np.stack([make_signal(48_000, seed=s) for s in range(3)]))[:, None].float()
    features = module(waveform)
    found, expected = (
        distances(waveform, m.inverse(features, length=48_000)).spectral_convergence for m in (module, reference)
    )
    assert expected.mean() > 0.05
    torch.testing.assert_close(found.mean(), expected.mean(), atol=5e-3, rtol=0)


def test_silent_clips_and_clips_without_power(make):
    module = make(sample_rate=16_000, n_fft=512, hop_length=128, n_mels=40)
    features = module(chord(9_000, 5, 6))
    features[0] = 0.0
    features[1, :, :, 20:40] = 0.0
    found = assert_same_sound(module, features)[0]
    assert not found.any()


def test_the_backend_decides_who_inverts(make, monkeypatch):
    features = make()(chord(48_000, 7))
    rust, reference = (make(name).inverse(features) for name in ("rust", "reference"))
    assert rust.std() > 0.01
    assert not torch.equal(rust, reference)
    for name in ("auto", "fused"):
        assert torch.equal(make(name).inverse(features), rust)
    monkeypatch.setenv("DISTILL_BACKEND", "reference")
    assert torch.equal(make("auto").inverse(features), reference)


def test_without_the_extension_the_reference_inverts_and_the_reason_is_logged(make, monkeypatch, caplog):
    features = make("reference")(chord(48_000, 8))
    expected = make("reference").inverse(features)
    monkeypatch.setitem(sys.modules, "distill._native", None)
    monkeypatch.delattr("distill._native", raising=False)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(make("auto").inverse(features), expected)
    with pytest.raises(BackendError, match=r"'rust' cannot invert this: the extension cannot be imported.*'auto'"):
        make("rust").inverse(features)


@pytest.mark.gpu
def test_rust_refuses_features_on_a_gpu(make):
    features = make("reference")(chord(48_000, 9)).cuda()
    with pytest.raises(BackendError, match=r"'rust' cannot invert this: the features are on 'cuda'"):
        make("rust").inverse(features)
