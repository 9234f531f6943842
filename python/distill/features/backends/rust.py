"""The Rust kernel as a backend: whether it can compute something, why not, and its call."""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any

import torch

from distill.features.reference import Numbers


def fault_of(waveform: torch.Tensor) -> str | None:
    """Why the kernel cannot compute a waveform, or None."""
    if waveform.device.type != "cpu":
        return f"the waveform is on {waveform.device.type!r} and must be on 'cpu'"
    try:
        _native()
    except ImportError as error:
        return f"the extension cannot be imported ({error})"
    return None


def compute(waveform: torch.Tensor, numbers: Numbers) -> torch.Tensor:
    """Features of waveforms (B, S), float32; on as many threads as torch would take, which share out waveforms.

    Where torch may take one thread, as in the workers of a data loader, everything is computed by the caller's.
    """
    kernel = _kernel(numbers)
    waveform = waveform.detach().resolve_neg().float().contiguous()
    frames = waveform.shape[1] // numbers.hop_length + 1
    out = waveform.new_empty((waveform.shape[0], numbers.channels, numbers.n_mels, frames))
    kernel.compute(waveform.numpy(), out.numpy(), torch.get_num_threads())
    return out


@lru_cache(maxsize=32)
def _kernel(numbers: Numbers) -> Any:
    return _native().MelKernel(
        n_fft=numbers.n_fft,
        hop_length=numbers.hop_length,
        if_masking_threshold=numbers.if_masking_threshold,
        **vars(numbers.bands()),
    )


def _native() -> ModuleType:
    from distill import _native  # noqa: PLC0415 - the reference and the Triton kernel run where it was not built

    return _native
