"""The Triton kernel: features on a GPU."""

from __future__ import annotations

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import torch

from distill.features.backends import Kernel, KernelError, window_fault
from distill.features.compression import compress
from distill.features.mel import MelSpec, mel_bands

# The kernel is tested with this release; earlier ones lack language features that it uses.
_TRITON = (3, 6)
# The oldest NVIDIA architecture that Triton generates code for.
_CAPABILITY = (8, 0)
# The kernel indexes samples with 32 bits, and needs one bit more for those that it reflects.
_MAX_SAMPLES = 2**30

# Planning and compiling take seconds: one thread does it, the others wait and then find the result in a cache.
_lock = threading.Lock()
# Why a kernel could not be compiled or launched.
_failed: dict[tuple[MelSpec, torch.dtype, torch.device], str] = {}


def find(waveform: torch.Tensor, spec: MelSpec) -> Kernel | str:
    """Return the kernel for waveforms (B, S) like this one, or the reason why there is none."""
    if waveform.shape[1] > _MAX_SAMPLES:
        return f"a waveform of {waveform.shape[1]} samples, while the kernel takes {_MAX_SAMPLES}"
    if option := _option_fault(spec):
        return option
    with _lock:
        return _failed.get((spec, waveform.dtype, waveform.device)) or _kernel(spec, waveform.device)


# Never evicted: a launch on some stream may still read a plan's tables.
@cache
def _kernel(spec: MelSpec, device: torch.device) -> Kernel | str:
    """Return the kernel on a device, or the reason why there is none."""
    fault = _triton_fault(device)
    if fault:
        return fault
    from distill.kernels import complex_mel, make_plan  # noqa: PLC0415 - needs triton

    def make() -> Any:
        plan = make_plan(mel_bands(spec), n_fft=spec.n_fft, **_target(device))
        if isinstance(plan, str):
            return plan
        fault = _capability_fault(device) or _driver_fault(device)
        if fault is None:
            plan.on(device)
        return fault or plan

    # The tables outlive this call, so they are made on a thread where the caller's settings do not apply: a default
    # device, inference mode, or the memory pool of a graph that torch.compile(mode="reduce-overhead") records.
    with ThreadPoolExecutor(1) as thread:
        plan = thread.submit(make).result()
    if isinstance(plan, str):
        return plan
    launch = partial(
        complex_mel,
        plan=plan,
        hop_length=spec.hop_length,
        threshold=spec.if_masking_threshold or 0.0,
        log1p=spec.compression == "log1p",
    )
    return partial(_launch, spec=spec, launch=launch)


def _launch(waveform: torch.Tensor, spec: MelSpec, launch: Kernel) -> torch.Tensor:
    from triton.errors import TritonError  # noqa: PLC0415 - a kernel was found, so triton is installed

    key = (spec, waveform.dtype, waveform.device)
    if waveform.stride(1) != 1:
        waveform = waveform.contiguous()
    try:
        with _lock, torch.cuda.device_of(waveform):
            features = launch(waveform)
    except TritonError as error:
        first_line, *_ = str(error).splitlines() or [""]
        _failed[key] = f"{type(error).__name__}: {first_line}"
        raise KernelError(_failed[key]) from error
    if spec.compression != "log1p":
        features[:, 0] = compress(features[:, 0], spec)
    return features if spec.channels == 2 else features[:, :1].contiguous()


def _option_fault(spec: MelSpec) -> str | None:
    """Return which option of a feature the kernel does not have, or None."""
    if fault := window_fault(spec):
        return fault
    if not spec.center:
        return "center=False, while the kernel's frames are centred"
    if spec.power != 2:
        return f"power={spec.power}, while the kernel adds up powers"
    return None


def _triton_fault(device: torch.device) -> str | None:
    """Return why Triton cannot be used for a type of device, or None."""
    try:
        import triton  # noqa: PLC0415 - installed with torch on Linux only, and slow to import
    except ImportError as error:
        return f"triton cannot be imported ({error})"
    if tuple(map(int, triton.__version__.split(".")[:2])) < _TRITON:
        return f"triton {triton.__version__} is older than {_TRITON[0]}.{_TRITON[1]}"
    if device.type == "cuda" or (device.type == "cpu" and triton.knobs.runtime.interpret):
        return None
    return f"the waveform is on {device.type!r} and must be on 'cuda'"


def _capability_fault(device: torch.device) -> str | None:
    """Return why Triton cannot generate code for a GPU, or None."""
    if device.type != "cuda" or torch.version.hip:
        return None
    properties = torch.cuda.get_device_properties(device)
    if (properties.major, properties.minor) < _CAPABILITY:
        return f"{properties.name} has compute capability {properties.major}.{properties.minor}, below 8.0"
    return None


def _driver_fault(device: torch.device) -> str | None:
    """Return why Triton cannot launch on a GPU, or None: its launcher needs a C compiler the first time."""
    import triton  # noqa: PLC0415 - _triton_fault has imported it

    if device.type != "cuda" or triton.knobs.runtime.interpret:
        return None
    try:
        triton.runtime.driver.active  # noqa: B018 - made on first access
    except (RuntimeError, ImportError, OSError, subprocess.CalledProcessError) as error:
        return f"triton cannot start ({error})"
    return None


def _target(device: torch.device) -> dict[str, Any]:
    """Return the target of a plan, in Triton's terms."""
    if device.type == "cuda" and torch.version.hip:
        return {"backend": "hip", "wave": torch.cuda.get_device_properties(device).warp_size}
    return {"backend": "cuda"}
