"""The Triton kernel as a backend: whether it can compute something, why not, and its launch."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import torch

from distill.features.reference import Numbers

Launch = Callable[[torch.Tensor], torch.Tensor]
"""From waveforms (B, S), samples of a row adjacent, to both channels."""

# What the kernel is proven with: releases before it lack some of what it is written in.
_TRITON = (3, 6)
# NVIDIA's generation from which on Triton generates code.
_CAPABILITY = (8, 0)
# Indices of samples are 32 bits wide in the kernel, with a bit to spare for those that it reflects.
_MAX_SAMPLES = 2**30

# One thread plans or compiles, which takes seconds, while others wait and then find it done.
_launching = threading.Lock()


def find_kernel(waveform: torch.Tensor, numbers: Numbers) -> Launch | str:
    """The kernel's launch for waveforms (B, S) like this one, or why it cannot be."""
    if waveform.shape[1] > _MAX_SAMPLES:
        return f"a waveform of {waveform.shape[1]} samples, while the kernel takes {_MAX_SAMPLES}"
    with _launching:
        return _failed.get((numbers, waveform.dtype, waveform.device)) or _kernel(numbers, waveform.device)


def launch(kernel: Launch, waveform: torch.Tensor, numbers: Numbers) -> torch.Tensor | None:
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


# Why a kernel that there is could not be compiled or launched for waveforms of a type.
_failed: dict[tuple[Numbers, torch.dtype, torch.device], str] = {}


# Never evicted: what was launched on some stream may still read a plan's tables.
@cache
def _kernel(numbers: Numbers, device: torch.device) -> Launch | str:
    """The kernel's launch on a device, or why it cannot be."""
    fault = _triton_fault(device)
    if fault:
        return fault
    from distill.kernels import complex_mel, make_plan  # noqa: PLC0415 - needs triton

    def make() -> Any:
        plan = make_plan(numbers.bands(), n_fft=numbers.n_fft, **_target(device))
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
    return partial(complex_mel, plan=plan, hop_length=numbers.hop_length, threshold=numbers.if_masking_threshold or 0.0)


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
