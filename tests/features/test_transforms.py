"""Derivatives of the default backend in every mode of torch, memory layouts, and the caller's default type."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad

from distill.audio import AudioSpectrogram, ComplexSpectrogram
from distill.config import ComplexSpectrogramConfig, SpectrogramConfig
from distill.errors import BackendError
from distill.features import reference
from distill.features.inversion.bin_power import atom_tables
from distill.features.inversion.crossfade import fade_ends, join_windows

# torch compiles its own forward-mode formulas with it, once a process.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.torch.jit.script. is (deprecated|not supported):{kind}")
    for kind in ("DeprecationWarning", "FutureWarning")
]

NUMBERS = {"sample_rate": 16_000, "n_fft": 64, "hop_length": 32, "n_mels": 8}
MODULES = {
    "two channels": ComplexSpectrogram(ComplexSpectrogramConfig(**NUMBERS)),
    "one channel": AudioSpectrogram(SpectrogramConfig(**NUMBERS)),
}


@pytest.fixture(params=MODULES)
def module(request):
    return MODULES[request.param]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def waveform() -> torch.Tensor:
    return normal(2, 1, 200)


def test_forward_mode_equals_finite_differences(module, waveform):
    direction, step = normal(2, 1, 200, seed=1), 1e-6
    expected = (module(waveform + step * direction) - module(waveform - step * direction)) / (2 * step)
    assert expected.abs().max() > 0.1
    features, derivative = torch.func.jvp(module, (waveform,), (direction,))
    torch.testing.assert_close(derivative, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(features, module(waveform))
    with forward_ad.dual_level():
        dual = module(forward_ad.make_dual(waveform, direction))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_transforms_equal_the_gradient(module):
    waveform = normal(1, 1, 100)
    expected = torch.autograd.functional.jacobian(module, waveform)
    assert expected.abs().max() > 0.1
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(transform(module)(waveform), expected)
    gradient = torch.func.grad(lambda signal: module(signal).sum())(waveform)
    torch.testing.assert_close(gradient, expected.sum(dim=(0, 1, 2, 3)))


def test_vmap_equals_a_loop(module):
    waveforms = normal(3, 2, 1, 200)
    expected = torch.stack([module(waveform) for waveform in waveforms])
    torch.testing.assert_close(torch.func.vmap(module)(waveforms), expected)


def test_a_kernel_that_was_requested_refuses_what_it_cannot_differentiate(waveform):
    module = ComplexSpectrogram(ComplexSpectrogramConfig(**NUMBERS), backend="rust")
    with pytest.raises(BackendError, match="backend 'rust' cannot compute forward-mode derivatives"):
        torch.func.jvp(module, (waveform.float(),), (waveform.float(),))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("first", ["grad", "jvp", "hessian", "vmap of grad", "inverse"])
def test_tables_made_in_a_transform_work_outside_it_and_in_others(first):
    """Tables are cached, and what is made in a transform belongs to it."""
    module = ComplexSpectrogram(ComplexSpectrogramConfig(**NUMBERS), backend="reference")
    waveform, factor = normal(1, 1, 100), torch.tensor(2.0, dtype=torch.float64)
    features = module(normal(2, 1, 200).float())
    sound = module.inverse(features)
    uses = {
        "grad": lambda: torch.func.grad(lambda value: (module(waveform) * value).sum())(factor),
        "jvp": lambda: torch.func.jvp(module, (waveform,), (waveform,))[1],
        "hessian": lambda: torch.func.hessian(lambda signal: module(signal).sum())(waveform),
        "vmap of grad": lambda: torch.func.vmap(torch.func.grad(lambda signal: module(signal[None]).sum()))(waveform),
        "inverse": lambda: torch.func.grad(lambda value: (module.inverse(features) * value).sum())(factor),
    }
    reference.band_tables.cache_clear()
    atom_tables.cache_clear()
    found = {name: uses[name]() for name in (first, *uses)}
    reference.band_tables.cache_clear()
    module(waveform)
    for name, use in uses.items():
        torch.testing.assert_close(found[name], use(), msg=name)
    torch.testing.assert_close(found["inverse"], sound.double().sum(), rtol=1e-4, atol=1e-4)
    assert torch.equal(module.inverse(features), sound)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_the_inverse_refuses_what_it_cannot_differentiate(backend):
    """Its forward-mode derivative would be zero without a word."""
    module = ComplexSpectrogram(ComplexSpectrogramConfig(**NUMBERS), backend=backend)
    features = module(normal(2, 1, 200).float())
    for use in (
        lambda: torch.func.jvp(module.inverse, (features,), (features,)),
        lambda: torch.func.grad(lambda values: module.inverse(values).sum())(features),
        lambda: torch.func.vmap(module.inverse)(features[None]),
    ):
        with pytest.raises(ValueError, match="the inverse has no forward-mode derivative"):
            use()
    with forward_ad.dual_level(), pytest.raises(ValueError, match="pass detached features"):
        module.inverse(forward_ad.make_dual(features, features))
    assert not module.inverse(features.requires_grad_()).requires_grad


def layouts(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """Equal tensors that lie differently in memory."""
    padded = torch.nn.functional.pad(tensor, (1, 2, 3, 1))
    views = {
        "channels last": tensor.to(memory_format=torch.channels_last),
        "transposed": tensor.mT.contiguous().mT,
        "reversed dimensions": tensor.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        "inside a larger one": padded[..., 3:-1, 1:-2],
        "every second value": tensor.repeat_interleave(2, dim=-1)[..., ::2],
        "at an odd address": torch.cat([torch.zeros(1), tensor.flatten()])[1:].view(tensor.shape),
    }
    for view in views.values():
        assert torch.equal(view, tensor)
    return views


def test_results_do_not_depend_on_the_memory_layout(module):
    waveform = normal(5, 1, 3_200).float()
    features = module(waveform)
    sound = module.inverse(features)
    for name, view in layouts(features).items():
        assert torch.equal(module.inverse(view), sound), name
    for name, view in layouts(waveform[:, None]).items():
        assert torch.equal(module(view[:, 0]), features), name
    expanded = features[:1].expand(features.shape)
    assert torch.equal(module.inverse(expanded), module.inverse(expanded.contiguous()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_results_do_not_depend_on_the_default_type(module, dtype):
    waveform = normal(2, 1, 3_200).float()
    part = normal(40).float()

    def results() -> list[torch.Tensor]:
        features = module(waveform)
        windows = torch.cat(list(join_windows([features, features.flip(0)], 20)), dim=-1)
        return [features, module.inverse(features), windows, *fade_ends([part, part], 80, 20, 20)]

    expected = results()
    torch.set_default_dtype(dtype)
    try:
        found = results()
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
