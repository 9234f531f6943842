"""The kernels that compute the features besides the reference: one module each.

A backend is a module with one function, ``find(waveform, spec)``, which :mod:`distill.features.ops` calls. It returns
a :data:`Kernel` for waveforms of that kind, or the reason why there is none. It must be cheap, because every call of
the operator asks, so it caches whatever is expensive to find out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from distill.features.mel import MelSpec

Kernel = Callable[[torch.Tensor], torch.Tensor]
"""From waveforms (B, S), B at least 1, to contiguous float32 features (B, C, M, T); may raise :class:`KernelError`."""


def window_fault(spec: MelSpec) -> str | None:
    """Return why a kernel whose window is a stencil cannot compute a feature, or None."""
    if spec.win_length is None:
        return None
    return f"win_length={spec.win_length}, while the kernel's window is as long as the frame"


class KernelError(Exception):
    """Raised by a kernel that turns out not to compile or launch here; the message is the reason.

    The backend remembers it, so that ``find`` returns the reason from then on.
    """
