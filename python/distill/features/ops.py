"""The features as one operator, ``torch.ops.distill.complex_mel``: computed by a kernel if one can, else the reference.

The operator is opaque to torch.compile, torch.export and tracing: they see the shape of the result and the gradient.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from torch.autograd import forward_ad

from distill.errors import BackendError
from distill.features import reference
from distill.features.backend_names import BACKEND_VARIABLE, Backend, Computed
from distill.features.backends import Kernel, KernelError, rust, triton
from distill.features.mel import MelSpec

logger = logging.getLogger(__name__)

# Torch has no public names for these.
_functorch = torch._C._functorch
_dispatch_modes, _function_modes = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack

_NAME = "distill::complex_mel"
_KERNELS: dict[Computed, Any] = {"fused": triton, "rust": rust}
# The kernel that "auto" tries on each type of device; on others the reference computes.
_AUTO: dict[str, Computed] = {"cuda": "fused", "cpu": "rust"}
# What the kernels accept, and compute in float32.
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def backend_for(waveform: torch.Tensor, spec: MelSpec, backend: Backend) -> Computed:
    """Return which backend computes the features of a waveform.

    Parameters
    ----------
    waveform : torch.Tensor
        Shape (B, S).
    spec : MelSpec
        The feature.
    backend : {"auto", "fused", "rust", "reference"}
        The requested backend.

    Raises
    ------
    BackendError
        If a kernel was requested that cannot compute it.
    """
    return _choose(waveform, spec, backend)[0]


def _choose(waveform: torch.Tensor, spec: MelSpec, backend: Backend) -> tuple[Computed, Kernel | None]:
    """Return which backend computes, and its kernel unless that is the reference."""
    name = backend if backend != "auto" else _AUTO.get(waveform.device.type, "reference")
    # The gradient is the reference's, so "auto" takes the values from it, too. On a GPU the kernel is much faster.
    if name == "reference" or (name == "rust" and backend == "auto" and waveform.requires_grad):
        return "reference", None
    found = _dtype_fault(waveform) or _KERNELS[name].find(waveform, spec)
    if not isinstance(found, str):
        return name, found
    # On a CPU, float64 is a request for precision and needs no warning.
    if backend == name or name != "rust" or waveform.dtype != torch.float64:
        _refuse(backend, name, found)
    return "reference", None


def _dtype_fault(waveform: torch.Tensor) -> str | None:
    """Return why no kernel can compute a waveform of this type, or None."""
    if waveform.dtype in _DTYPES:
        return None
    return f"a waveform of {waveform.dtype}, while the kernel computes in float32"


def _refuse(backend: str, name: str, reason: str) -> None:
    """Raise if the kernel `name` was requested; otherwise log once why the reference takes its place."""
    if backend == name:
        raise BackendError(
            f"backend {name!r} cannot compute this: {reason}; "
            f"choose 'auto' or 'reference', as backend or as {BACKEND_VARIABLE}"
        )
    _warn_once(name, reason)


@cache
def _warn_once(name: str, reason: str) -> None:
    logger.warning("the %s kernel cannot be used, features are computed by the slower reference: %s", name, reason)


# Not torch.library.custom_op: it does the same with these functions, but its first call imports the compiler, 2 s.
torch.library.define(
    _NAME,
    "(Tensor waveform, int sample_rate, int n_fft, int hop_length, int n_mels, float f_min, float? f_max, "
    "float? if_masking_threshold, str backend='auto', str? norm=None, str mel_scale='htk', int? win_length=None, "
    "bool center=True, int power=2, str compression='log1p', float floor=1e-10) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)


@torch.library.impl(_NAME, "default")
def _complex_mel(waveform: torch.Tensor, *arguments: Any) -> torch.Tensor:
    """Compute features (B, C, M, T), contiguous, of a waveform (B, S)."""
    spec, backend = MelSpec.of_arguments(arguments)
    if waveform.ndim != 2 or waveform.shape[1] < spec.least_samples:
        # Checked here, too: the operator can be called directly, and a kernel would read outside the waveform.
        least = f"above n_fft/2 = {spec.n_fft // 2}" if spec.center else f"at least n_fft = {spec.n_fft}"
        expected = f"[batch, samples], samples {least}"
        raise ValueError(f"waveform of shape {list(waveform.shape)} must be {expected}")
    return compute(waveform, spec, backend)


def compute(waveform: torch.Tensor, spec: MelSpec, backend: Backend) -> torch.Tensor:
    """Compute what the operator computes.

    Parameters
    ----------
    waveform : torch.Tensor
        Shape (B, S), S at least ``spec.least_samples``; :func:`is_plain`, unless the operator calls.
    spec : MelSpec
        The feature.
    backend : {"auto", "fused", "rust", "reference"}
        The requested backend.

    Returns
    -------
    torch.Tensor
        Shape (B, C, M, T), contiguous.

    Raises
    ------
    BackendError
        If a kernel was requested that cannot compute it.
    DeviceError
        If the device has failed.
    """
    name, kernel = _choose(waveform, spec, backend)
    if not waveform.numel():
        return _empty_features(waveform, spec)
    if kernel is not None:
        try:
            return kernel(waveform)
        except KernelError as error:
            _refuse(backend, name, str(error))
    # Autograd happens outside the operator; on a waveform that requires a gradient, the reference would not use tiles.
    return reference.complex_mel(waveform.detach(), spec).contiguous()


def is_plain(waveform: torch.Tensor) -> bool:
    """Whether the operator would be a mere detour of 10 µs: nothing traces, transforms, differentiates or watches."""
    return not (
        torch.compiler.is_compiling()
        or type(waveform) is not torch.Tensor
        or not (waveform.is_cuda or waveform.is_cpu)
        or (waveform.requires_grad and torch.is_grad_enabled())
        or forward_ad._current_level >= 0
        or _functorch.peek_interpreter_stack() is not None
        or _functorch.is_functorch_wrapped_tensor(waveform)
        or _dispatch_modes()
        or _function_modes()
        or torch._C._is_tracing()
    )


def _empty_features(waveform: torch.Tensor, spec: MelSpec) -> torch.Tensor:
    dtype = torch.float64 if waveform.dtype == torch.float64 else torch.float32
    shape = (waveform.shape[0], spec.channels, spec.n_mels, spec.n_frames(waveform.shape[1]))
    return waveform.new_empty(shape, dtype=dtype)


def _fake(waveform: torch.Tensor, *arguments: Any) -> torch.Tensor:
    spec, _ = MelSpec.of_arguments(arguments)
    return _empty_features(waveform, spec)


torch.library.register_fake(_NAME, _fake)


def _save_waveform(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    waveform, *arguments = inputs
    ctx.save_for_backward(waveform)
    ctx.spec, _ = MelSpec.of_arguments(arguments)


def _backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """Return the gradient of the reference, which is computed again."""
    (waveform,) = ctx.saved_tensors
    others = (None,) * (len(MelSpec._fields) + 1)
    if waveform.shape[0] == 0:  # on a CPU, an FFT of an empty batch is an error
        return torch.zeros_like(waveform), *others
    with torch.enable_grad():
        features = reference.complex_mel(waveform, ctx.spec)
    # With create_graph, a second derivative raises torch's error instead of being 0.
    (result,) = torch.autograd.grad(features, waveform, gradient, create_graph=torch.is_grad_enabled())
    return result, *others


torch.library.register_autograd(_NAME, _backward, setup_context=_save_waveform)


def _refuse_vmap(info: Any, in_dims: Any, *args: Any) -> None:
    raise BackendError("vmap over distill::complex_mel is not supported; pass the whole batch as [batch, 1, samples]")


torch.library.register_vmap(_NAME, _refuse_vmap)
