"""The Triton kernel: features on a GPU."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import torch

from distill.features.backends import Kernel, KernelError, window_fault
from distill.features.backends.failures import check_device, is_out_of_memory, reason_of
from distill.features.compression import compress
from distill.features.mel import MelSpec, mel_bands

# The kernel is tested with this release; earlier ones lack language features that it uses.
_TRITON = (3, 6)
# The oldest NVIDIA architecture that Triton generates code for.
_CAPABILITY = (8, 0)
# The kernel indexes samples with 32 bits, and needs one bit more for those that it reflects.
_MAX_SAMPLES = 2**30

# What there is for a kind of waveform: the kernel, or why there is none or it could not be launched. Never evicted: a
# launch on some stream may still read a plan's tables.
_found: dict[tuple[MelSpec, torch.dtype, torch.device], Kernel | str] = {}
# Planning takes seconds: one thread does it, the others wait.
_lock = threading.Lock()


def find(waveform: torch.Tensor, spec: MelSpec) -> Kernel | str:
    """Return the kernel for waveforms (B, S) like this one, or the reason why there is none."""
    if waveform.shape[1] > _MAX_SAMPLES:
        return f"a waveform of {waveform.shape[1]} samples, while the kernel takes {_MAX_SAMPLES}"
    key = (spec, waveform.dtype, waveform.device)
    found = _found.get(key)
    if found is None:
        if option := _option_fault(spec):
            return option
        with _lock:
            launch = _launcher(spec, waveform.device)
        found = _found.setdefault(key, launch if isinstance(launch, str) else _kernel(key, launch))
    return found


@cache
def _launcher(spec: MelSpec, device: torch.device) -> Kernel | str:
    """Return what launches the kernel on a device, or the reason why nothing can."""
    fault = _triton_fault(device)
    if fault:
        return fault
    try:
        from distill.kernels import complex_mel, make_plan  # noqa: PLC0415 - needs triton
    except Exception as error:  # noqa: BLE001 - a triton that is broken or too new raises whatever it likes
        return f"the kernel cannot be imported ({reason_of(error)})"

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
    return partial(
        complex_mel,
        plan=plan,
        hop_length=spec.hop_length,
        threshold=spec.if_masking_threshold or 0.0,
        log1p=spec.compression == "log1p",
    )


def _kernel(key: tuple[MelSpec, torch.dtype, torch.device], launch: Kernel) -> Kernel:
    """Return what computes the features of a kind of waveform, from what launches the kernel."""
    spec, _, device = key
    index = device.index if device.type == "cuda" else None
    as_launched = spec.compression == "log1p" and spec.channels == 2

    def compute(waveform: torch.Tensor) -> torch.Tensor:
        if waveform.stride(1) != 1:
            waveform = waveform.contiguous()
        try:
            if index is None or index == torch.cuda.current_device():
                features = launch(waveform)
            else:
                with torch.cuda.device(index):
                    features = launch(waveform)
        except (torch.OutOfMemoryError, MemoryError):  # no room for the features: the reference would need more
            raise
        except Exception as error:
            # Whatever Triton raises while it compiles, loads or launches the kernel, the kernel has not run.
            raise _failure(key, error) from error
        if as_launched:
            return features
        if spec.compression != "log1p":
            features[:, 0] = compress(features[:, 0], spec)
        return features if spec.channels == 2 else features[:, :1].contiguous()

    return compute


def _failure(key: tuple[MelSpec, torch.dtype, torch.device], error: Exception) -> KernelError:
    """Return the error of a kernel that could not be launched, which is not tried again."""
    check_device(key[2], error)
    reason = reason_of(error)
    if not is_out_of_memory(error):
        _found[key] = reason
    return KernelError(reason)


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
    except Exception as error:  # noqa: BLE001 - it compiles and loads C code, which fails in many ways
        return f"triton cannot start ({reason_of(error)})"
    return None


def _target(device: torch.device) -> dict[str, Any]:
    """Return the target of a plan, in Triton's terms."""
    if device.type == "cuda" and torch.version.hip:
        return {"backend": "hip", "wave": torch.cuda.get_device_properties(device).warp_size}
    return {"backend": "cuda"}
