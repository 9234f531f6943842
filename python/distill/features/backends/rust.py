"""The Rust kernel: features on a CPU."""

from __future__ import annotations

from functools import lru_cache, partial
from types import ModuleType
from typing import Any

import torch

from distill.features.backends import Kernel, window_fault
from distill.features.mel import MelSpec, mel_bands


def find(waveform: torch.Tensor, spec: MelSpec) -> Kernel | str:
    """Return the kernel for waveforms (B, S) on the CPU, or the reason why there is none."""
    if reason := window_fault(spec):
        return reason
    if not waveform.is_cpu:
        return _elsewhere(waveform.device, "the waveform is")
    try:
        return _kernel(spec)
    except ImportError as error:
        return _missing(error)


def fault(device: torch.device, what_is: str) -> str | None:
    """Return why the extension cannot compute on what is on `device`, or None; `what_is` begins the sentence."""
    if device.type != "cpu":
        return _elsewhere(device, what_is)
    try:
        native()
    except ImportError as error:
        return _missing(error)
    return None


def _elsewhere(device: torch.device, what_is: str) -> str:
    return f"{what_is} on {device.type!r} and must be on 'cpu'"


def _missing(error: ImportError) -> str:
    return f"the extension cannot be imported ({error})"


@lru_cache(maxsize=32)
def _kernel(spec: MelSpec) -> Kernel:
    kernel = native().MelKernel(
        n_fft=spec.n_fft,
        hop_length=spec.hop_length,
        if_masking_threshold=spec.if_masking_threshold,
        center=spec.center,
        power=spec.power,
        compression=spec.compression,
        floor=spec.floor,
        **vars(mel_bands(spec)),
    )
    return partial(_compute, spec=spec, kernel=kernel)


def _compute(waveform: torch.Tensor, spec: MelSpec, kernel: Any) -> torch.Tensor:
    """Compute features on as many threads as torch may use, which share the frames of all waveforms.

    With one thread, as in the workers of a data loader, the calling thread computes.
    """
    waveform = waveform.detach().resolve_neg().float().contiguous()
    clips, samples = waveform.shape
    out = waveform.new_empty((clips, spec.channels, spec.n_mels, spec.n_frames(samples)))
    kernel.compute(waveform.numpy(), out.numpy(), torch.get_num_threads())
    return out


def native() -> ModuleType:
    """Return the extension module; raises ImportError where it was not built."""
    from distill import _native  # noqa: PLC0415 - the reference and the Triton kernel run where it was not built

    return _native
