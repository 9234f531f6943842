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
    return window_fault(spec) or fault(waveform.device, "the waveform is") or partial(_compute, spec=spec)


def fault(device: torch.device, what_is: str) -> str | None:
    """Return why the extension cannot compute on what is on `device`, or None; `what_is` begins the sentence."""
    if device.type != "cpu":
        return f"{what_is} on {device.type!r} and must be on 'cpu'"
    try:
        native()
    except ImportError as error:
        return f"the extension cannot be imported ({error})"
    return None


def _compute(waveform: torch.Tensor, spec: MelSpec) -> torch.Tensor:
    """Compute features on as many threads as torch may use, which share the frames of all waveforms.

    With one thread, as in the workers of a data loader, the calling thread computes.
    """
    kernel = _kernel(spec)
    waveform = waveform.detach().resolve_neg().float().contiguous()
    out = waveform.new_empty((waveform.shape[0], spec.channels, spec.n_mels, spec.n_frames(waveform.shape[1])))
    kernel.compute(waveform.numpy(), out.numpy(), torch.get_num_threads())
    return out


@lru_cache(maxsize=32)
def _kernel(spec: MelSpec) -> Any:
    return native().MelKernel(
        n_fft=spec.n_fft,
        hop_length=spec.hop_length,
        if_masking_threshold=spec.if_masking_threshold,
        center=spec.center,
        power=spec.power,
        compression=spec.compression,
        floor=spec.floor,
        **vars(mel_bands(spec)),
    )


def native() -> ModuleType:
    """Return the extension module; raises ImportError where it was not built."""
    from distill import _native  # noqa: PLC0415 - the reference and the Triton kernel run where it was not built

    return _native
