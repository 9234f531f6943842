"""The feature as one operator, ``torch.ops.distill.complex_mel``: the fused kernel where it can, else the reference.

To what compiles, exports or traces, the operator is opaque: it knows the shape of the result and the gradient.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, Literal, NamedTuple, get_args

import torch

from distill.errors import BackendError, ConfigError

from . import reference
from .mel import mel_bands

logger = logging.getLogger(__name__)

Backend = Literal["auto", "fused", "reference"]
"""What computes: the kernel where it can and else the reference, the kernel or an error, or the reference."""
BACKEND_VARIABLE = "DISTILL_BACKEND"
"""Environment variable that takes the place of "auto"."""
Launch = Callable[[torch.Tensor], torch.Tensor]
"""From waveforms (B, S), samples of a row adjacent, to both channels."""

_NAME = "distill::complex_mel"
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# What the kernel is proven with: releases before it lack some of what it is written in.
_TRITON = (3, 6)
# NVIDIA's generation from which on Triton generates code.
_CAPABILITY = (8, 0)
# Indices of samples are 32 bits wide in the kernel, with a bit to spare for those that it reflects.
_MAX_SAMPLES = 2**30

# One thread plans or compiles, which takes seconds, while others wait and then find it done.
_launching = threading.Lock()


class Numbers(NamedTuple):
    """Arguments of the operator that say what the feature is, in its order; as :func:`reference.complex_mel`."""

    sample_rate: int
    n_fft: int
    hop_length: int
    n_mels: int
    f_min: float
    f_max: float | None
    if_masking_threshold: float


def resolve_backend(backend: Backend) -> Backend:
    """`backend`, or what the environment says if that is "auto".

    Parameters
    ----------
    backend : {"auto", "fused", "reference"}
        What was asked for.

    Raises
    ------
    ConfigError
        If it, or the environment's DISTILL_BACKEND, is none of the three.
    """
    choices = ", ".join(get_args(Backend))
    if backend not in get_args(Backend):
        raise ConfigError([f"backend={backend!r} must be one of {choices}"])
    # Set and empty is as good as not set.
    chosen = os.environ.get(BACKEND_VARIABLE) or "auto"
    if chosen not in get_args(Backend):
        raise ConfigError([f"environment variable {BACKEND_VARIABLE}={chosen!r} must be one of {choices}"])
    return chosen if backend == "auto" else backend


def backend_for(waveform: torch.Tensor, numbers: Numbers, backend: Backend) -> Literal["fused", "reference"]:
    """Which backend computes.

    Parameters
    ----------
    waveform : torch.Tensor
        Shape (B, S).
    numbers : Numbers
        The feature.
    backend : {"auto", "fused", "reference"}
        What was asked for.

    Raises
    ------
    BackendError
        If "fused" was asked for and cannot.
    """
    return "reference" if _kernel_for(waveform, numbers, backend) is None else "fused"


def _kernel_for(waveform: torch.Tensor, numbers: Numbers, backend: str) -> Launch | None:
    """The kernel's launch; None for the reference."""
    # Elsewhere the kernel is interpreted if anything, and nobody wants that who did not ask for it.
    if backend == "reference" or (backend == "auto" and waveform.device.type != "cuda"):
        return None
    with _launching:
        key = (numbers, waveform.dtype, waveform.device)
        found = _failed.get(key) or _kernel(*key)
    if waveform.shape[1] > _MAX_SAMPLES:
        found = f"a waveform of {waveform.shape[1]} samples, while the kernel takes {_MAX_SAMPLES}"
    if not isinstance(found, str):
        return found
    if backend == "fused":
        raise BackendError(
            f"backend 'fused' cannot compute this: {found}; "
            f"choose 'auto' or 'reference', as backend or as {BACKEND_VARIABLE}"
        )
    _say_once(found)
    return None


@cache
def _say_once(reason: str) -> None:
    logger.warning("the fused kernel cannot be used, features are computed by the slower reference: %s", reason)


# Why a kernel that there is could not be compiled or launched, by the arguments of `_kernel`.
_failed: dict[tuple[Numbers, torch.dtype, torch.device], str] = {}


# Never evicted: what was launched on some stream may still read a plan's tables.
@cache
def _kernel(numbers: Numbers, dtype: torch.dtype, device: torch.device) -> Launch | str:
    """The kernel's launch on a device, or why it cannot be."""
    if dtype not in _DTYPES:
        return f"a waveform of {dtype}, while the kernel computes in float32"
    fault = _triton_fault(device)
    if fault:
        return fault
    from distill.kernels import complex_mel, make_plan  # noqa: PLC0415 - needs triton

    shape = {"n_fft": numbers.n_fft, "hop_length": numbers.hop_length, "n_mels": numbers.n_mels}

    def make() -> Any:
        bands = mel_bands(**shape, sample_rate=numbers.sample_rate, f_min=numbers.f_min, f_max=numbers.f_max)
        plan = make_plan(bands, n_fft=numbers.n_fft, **_target(device))
        if isinstance(plan, str):
            return plan
        fault = _capability_fault(device) or _driver_fault(device)
        if fault is None:
            plan.on(device)
        return fault or plan

    # A thread of its own, because tables are kept. What callers have set holds for their thread: a default device,
    # inference mode, or the memory of a graph that torch.compile(mode="reduce-overhead") is about to record.
    with ThreadPoolExecutor(1) as thread:
        plan = thread.submit(make).result()
    if isinstance(plan, str):
        return plan
    return partial(complex_mel, plan=plan, hop_length=numbers.hop_length, threshold=numbers.if_masking_threshold)


def _triton_fault(device: torch.device) -> str | None:
    """Why there is no Triton for a kind of device, or None."""
    try:
        import triton  # noqa: PLC0415 - is not everywhere, nor needed everywhere
    except ImportError as error:
        return f"triton cannot be imported ({error})"
    if tuple(map(int, triton.__version__.split(".")[:2])) < _TRITON:
        return f"triton {triton.__version__} is older than {_TRITON[0]}.{_TRITON[1]}"
    if device.type == "cuda" or (device.type == "cpu" and triton.knobs.runtime.interpret):
        return None
    return f"the waveform is on {device.type!r} and must be on 'cuda'"


def _capability_fault(device: torch.device) -> str | None:
    if device.type != "cuda" or torch.version.hip:
        return None
    properties = torch.cuda.get_device_properties(device)
    if (properties.major, properties.minor) < _CAPABILITY:
        return f"{properties.name} has compute capability {properties.major}.{properties.minor}, below 8.0"
    return None


def _driver_fault(device: torch.device) -> str | None:
    """Why Triton cannot launch on a GPU, or None: it compiles a part of itself at first, for which it wants C."""
    import triton  # noqa: PLC0415 - is there, or this is not called

    if device.type != "cuda" or triton.knobs.runtime.interpret:
        return None
    try:
        triton.runtime.driver.active  # noqa: B018 - made when it is looked at
    except (RuntimeError, ImportError, OSError, subprocess.CalledProcessError) as error:
        return f"triton cannot start ({error})"
    return None


def _target(device: torch.device) -> dict[str, Any]:
    """What a plan is made for, as Triton names it."""
    if device.type == "cuda" and torch.version.hip:
        return {"backend": "hip", "wave": torch.cuda.get_device_properties(device).warp_size}
    return {"backend": "cuda"}


# Not torch.library.custom_op, which is the same on top of these but imports the compiler at the first call: 2 s.
torch.library.define(
    _NAME,
    "(Tensor waveform, int sample_rate, int n_fft, int hop_length, int n_mels, float f_min, float? f_max, "
    "float if_masking_threshold, str backend='auto') -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)


@torch.library.impl(_NAME, "default")
def _complex_mel(waveform: torch.Tensor, *given: Any) -> torch.Tensor:
    """Both channels (B, 2, M, T) of a waveform (B, S), on whatever device it is; contiguous."""
    numbers, backend = _parse(*given)
    if waveform.ndim != 2 or waveform.shape[1] <= numbers.n_fft // 2:
        # Checked here too: the kernel would read outside of it.
        wanted = f"[batch, samples], samples above n_fft/2 = {numbers.n_fft // 2}"
        raise ValueError(f"waveform of shape {list(waveform.shape)} must be {wanted}")
    kernel = _kernel_for(waveform, numbers, backend)
    if waveform.shape[0] == 0:
        return _shape(waveform, *given)
    if kernel is not None:
        features = _launch(kernel, waveform, numbers)
        if features is not None:
            return features
        _kernel_for(waveform, numbers, backend)  # says so, or raises where nothing else is wanted
    # Autograd is outside; tracked, the reference would not go tile by tile.
    return reference.complex_mel(waveform.detach(), **numbers._asdict()).contiguous()


def _launch(kernel: Launch, waveform: torch.Tensor, numbers: Numbers) -> torch.Tensor | None:
    """What the kernel gives; None if it cannot be compiled or launched here, now and from then on."""
    from triton.errors import TritonError  # noqa: PLC0415 - there is a kernel, so there is triton

    key = (numbers, waveform.dtype, waveform.device)
    if waveform.stride(1) != 1:
        waveform = waveform.contiguous()
    try:
        with _launching, torch.cuda.device_of(waveform):
            return kernel(waveform)
    except TritonError as error:
        first_line, *_ = str(error).splitlines() or [""]
        _failed[key] = f"{type(error).__name__}: {first_line}"
        return None


def _parse(*given: Any) -> tuple[Numbers, str]:
    """What follows the waveform; the dispatcher leaves out what equals its default."""
    n_numbers = len(Numbers._fields)
    return Numbers(*given[:n_numbers]), given[n_numbers] if len(given) > n_numbers else "auto"


@torch.library.register_fake(_NAME)
def _shape(waveform: torch.Tensor, *given: Any) -> torch.Tensor:
    numbers, _ = _parse(*given)
    dtype = torch.float64 if waveform.dtype == torch.float64 else torch.float32
    n_frames = waveform.shape[1] // numbers.hop_length + 1
    return waveform.new_empty((waveform.shape[0], 2, numbers.n_mels, n_frames), dtype=dtype)


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
