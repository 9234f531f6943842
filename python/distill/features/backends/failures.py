"""What to make of an error that Triton raised before a kernel ran: the reason in one line, and a remedy."""

from __future__ import annotations

import subprocess

import torch

from distill.errors import BackendError, DeviceError

_LONGEST = 400
_FOLDER = "name a folder that can be written in TRITON_CACHE_DIR"
_COMPILER = "install a C compiler and the headers of Python, or name the compiler in CC"
_VERSIONS = "update the driver of the GPU, or install the release of triton that this torch was built with"


def reason_of(error: Exception) -> str:
    """Return what went wrong, and a remedy."""
    return f"{_one_line(error)}; {_remedy(error)}"


def check_device(device: torch.device, error: Exception) -> None:
    """Raise if it was not the kernel that failed, but what surrounds it, so that nothing else would run either.

    Waits for the device.

    Raises
    ------
    BackendError
        If a CUDA graph is being captured: kernels cannot be loaded meanwhile, and the capture has failed.
    DeviceError
        If the device fails whatever is called, as after an access to invalid memory by an earlier kernel.
    """
    if device.type != "cuda":
        return
    if torch.cuda.is_current_stream_capturing():
        raise BackendError(
            f"the kernel cannot be loaded while a CUDA graph is captured: {_one_line(error)}; "
            "compute features of a waveform of this kind once before the capture"
        ) from error
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as fault:
        raise DeviceError(
            f"{device} has failed, and this process cannot use it any more: {_one_line(fault)}. The cause may be any "
            "earlier kernel, because errors of kernels are reported by later calls",
            "start again; with CUDA_LAUNCH_BLOCKING=1 the call that fails is the cause",
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device had no room for the kernel; it may have later."""
    return "out of memory" in str(error)


def _one_line(error: BaseException) -> str:
    # Errors of Triton's compiler quote the source first. In functions that others call, the last error says why.
    while getattr(error, "node", None) is not None and error.__cause__ is not None:
        error = error.__cause__
    message = " ".join(str(getattr(error, "error_message", None) or error).split())
    if len(message) > _LONGEST:
        message = f"{message[:_LONGEST]}…"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _remedy(error: Exception) -> str:
    if is_out_of_memory(error):
        return "free memory of the GPU"
    if type(error).__name__ == "OutOfResources":
        return "choose a smaller n_fft"
    if isinstance(error, subprocess.CalledProcessError | FileNotFoundError) or "compiler" in str(error).lower():
        return _COMPILER
    return _FOLDER if isinstance(error, OSError) else _VERSIONS
