"""The feature as one operator, ``torch.ops.distill.complex_mel``: a kernel where one can, else the reference.

To what compiles, exports or traces, the operator is opaque: it knows the shape of the result and the gradient.
"""

from __future__ import annotations

import logging
import os
from functools import cache, partial
from typing import Any, Literal, get_args

import torch

from distill.errors import BackendError, ConfigError
from distill.features import reference
from distill.features.backends import rust
from distill.features.backends import triton as fused
from distill.features.backends.triton import Launch
from distill.features.reference import Numbers

logger = logging.getLogger(__name__)

Backend = Literal["auto", "fused", "rust", "reference"]
"""What computes: the Triton kernel or an error, the Rust kernel or an error, the reference, or what is quickest."""
Computed = Literal["fused", "rust", "reference"]
"""What is recorded of features."""
BACKEND_VARIABLE = "DISTILL_BACKEND"
"""Environment variable that takes the place of "auto"."""

_NAME = "distill::complex_mel"
# What the kernels take, and compute in float32.
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def resolve_backend(backend: Backend) -> Backend:
    """`backend`, or what the environment says if that is "auto".

    Parameters
    ----------
    backend : {"auto", "fused", "rust", "reference"}
        What was asked for.

    Raises
    ------
    ConfigError
        If it, or the environment's DISTILL_BACKEND, is none of these.
    """
    choices = ", ".join(get_args(Backend))
    if backend not in get_args(Backend):
        raise ConfigError([f"backend={backend!r} must be one of {choices}"])
    # Set and empty is as good as not set.
    chosen = os.environ.get(BACKEND_VARIABLE) or "auto"
    if chosen not in get_args(Backend):
        raise ConfigError([f"environment variable {BACKEND_VARIABLE}={chosen!r} must be one of {choices}"])
    return chosen if backend == "auto" else backend


def backend_for(waveform: torch.Tensor, numbers: Numbers, backend: Backend) -> Computed:
    """Which backend computes.

    Parameters
    ----------
    waveform : torch.Tensor
        Shape (B, S).
    numbers : Numbers
        The feature.
    backend : {"auto", "fused", "rust", "reference"}
        What was asked for.

    Raises
    ------
    BackendError
        If a kernel was asked for and cannot.
    """
    return _choose(waveform, numbers, backend)[0]


def _choose(waveform: torch.Tensor, numbers: Numbers, backend: str) -> tuple[Computed, Launch | None]:
    """Which backend computes, and how if it is a kernel."""
    # Elsewhere the Triton kernel is interpreted if anything, and nobody wants that who did not ask for it.
    if backend == "fused" or (backend == "auto" and waveform.device.type == "cuda"):
        found = _dtype_fault(waveform) or fused.find_kernel(waveform, numbers)
        if not isinstance(found, str):
            return "fused", found
        _refuse(backend, "fused", found)
    elif backend == "rust" or (backend == "auto" and waveform.device.type == "cpu"):
        # The gradient is that of the reference, and so are the values that it belongs to.
        if waveform.requires_grad and backend == "auto":
            return "reference", None
        fault = _dtype_fault(waveform) or rust.fault_of(waveform)
        if fault is None:
            return "rust", partial(rust.compute, numbers=numbers)
        # In float64, who wants precision gets it, and need not be told.
        if backend == "rust" or waveform.dtype != torch.float64:
            _refuse(backend, "rust", fault)
    return "reference", None


def _dtype_fault(waveform: torch.Tensor) -> str | None:
    """Why neither kernel can compute a waveform of its type, or None."""
    if waveform.dtype in _DTYPES:
        return None
    return f"a waveform of {waveform.dtype}, while the kernel computes in float32"


def _refuse(backend: str, kernel: str, reason: str) -> None:
    """Raise if nothing but this kernel was wanted, and otherwise say why it is not taken."""
    if backend == kernel:
        raise BackendError(
            f"backend {kernel!r} cannot compute this: {reason}; "
            f"choose 'auto' or 'reference', as backend or as {BACKEND_VARIABLE}"
        )
    _say_once(kernel, reason)


@cache
def _say_once(kernel: str, reason: str) -> None:
    logger.warning("the %s kernel cannot be used, features are computed by the slower reference: %s", kernel, reason)


# Not torch.library.custom_op, which is the same on top of these but imports the compiler at the first call: 2 s.
torch.library.define(
    _NAME,
    "(Tensor waveform, int sample_rate, int n_fft, int hop_length, int n_mels, float f_min, float? f_max, "
    "float? if_masking_threshold, str backend='auto') -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)


@torch.library.impl(_NAME, "default")
def _complex_mel(waveform: torch.Tensor, *given: Any) -> torch.Tensor:
    """Features (B, 2, M, T), or (B, 1, M, T) without a threshold, of a waveform (B, S); contiguous."""
    numbers, backend = _parse(*given)
    if waveform.ndim != 2 or waveform.shape[1] <= numbers.n_fft // 2:
        # Checked here too: a kernel would read outside of it.
        wanted = f"[batch, samples], samples above n_fft/2 = {numbers.n_fft // 2}"
        raise ValueError(f"waveform of shape {list(waveform.shape)} must be {wanted}")
    chosen, kernel = _choose(waveform, numbers, backend)
    if waveform.shape[0] == 0:
        return _shape(waveform, *given)
    if chosen == "rust":
        return kernel(waveform)
    if chosen == "fused":
        features = fused.launch(kernel, waveform, numbers)
        if features is not None:
            return features if numbers.if_masking_threshold is not None else features[:, :1].contiguous()
        _choose(waveform, numbers, backend)  # says so, or raises where nothing else is wanted
    # Autograd is outside; tracked, the reference would not go tile by tile.
    return reference.complex_mel(waveform.detach(), **numbers._asdict()).contiguous()


def _parse(*given: Any) -> tuple[Numbers, str]:
    """What follows the waveform; the dispatcher leaves out what equals its default."""
    n_numbers = len(Numbers._fields)
    return Numbers(*given[:n_numbers]), given[n_numbers] if len(given) > n_numbers else "auto"


@torch.library.register_fake(_NAME)
def _shape(waveform: torch.Tensor, *given: Any) -> torch.Tensor:
    numbers, _ = _parse(*given)
    dtype = torch.float64 if waveform.dtype == torch.float64 else torch.float32
    n_frames = waveform.shape[1] // numbers.hop_length + 1
    return waveform.new_empty((waveform.shape[0], numbers.channels, numbers.n_mels, n_frames), dtype=dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    waveform, *given = inputs
    ctx.save_for_backward(waveform)
    ctx.numbers, _ = _parse(*given)


def _backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """Gradient through the reference, computed again.

    A fused backward would take one kernel more: the spectrum of each frame once more, gradients of the bands spread to
    their bins, the adjoint of the stencil, an inverse real FFT, and frames added where they overlap, in a fixed order.
    """
    (waveform,) = ctx.saved_tensors
    others = (None,) * (len(Numbers._fields) + 1)
    if waveform.shape[0] == 0:  # on a CPU an FFT of nothing is an error
        return torch.zeros_like(waveform), *others
    with torch.enable_grad():
        features = reference.complex_mel(waveform, **ctx.numbers._asdict())
    # With a graph where one is asked for: a second derivative is then torch's error, and not 0.
    (result,) = torch.autograd.grad(features, waveform, gradient, create_graph=torch.is_grad_enabled())
    return result, *others


torch.library.register_autograd(_NAME, _backward, setup_context=_save)


@torch.library.register_vmap(_NAME)
def _refuse_vmap(info: Any, in_dims: Any, *args: Any) -> None:
    raise BackendError("vmap over distill::complex_mel: it takes a batch as it is; give it [batch, 1, samples] whole")
