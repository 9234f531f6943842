"""The Triton kernel run by Triton's interpreter, for tests.

Triton decides at import whether it interprets, so the kernel runs in a separate process.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol
from unittest import mock

import numpy as np

if TYPE_CHECKING:
    import torch

    from distill.features.mel import MelSpec


class Interpreter(Protocol):
    """What :func:`interpreter` yields: :func:`compute` in the other process."""

    def __call__(self, waveform: np.ndarray, spec: MelSpec, **options: object) -> np.ndarray:
        """Compute features [B, 2, M, T]."""


@contextmanager
def interpreter() -> Iterator[Interpreter]:
    """Start a process that computes with the interpreted kernel."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_interpret) as pool:
        yield lambda waveform, spec, **options: pool.submit(compute, waveform, spec, **options).result()


def _interpret() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    replace_the_language_once()


def replace_the_language_once() -> None:
    """Let Triton's interpreter replace the functions of its language once a launch, for it to take a third of the time.

    It does so at every call of a device function again, where it only finds that all are replaced.
    """
    from triton.runtime.interpreter import InterpretedFunction

    def call(self: InterpretedFunction, *args: object, **options: object) -> object:
        return self.rewrite()(*args, **options)

    InterpretedFunction.__call__ = call


def compute(
    waveform: np.ndarray,
    spec: MelSpec,
    *,
    dtype: str = "float32",
    gap: int = 0,
    backend: str = "cuda",
    wave: int = 32,
    through_operator: bool = False,
) -> np.ndarray:
    """Compute features [B, 2, M, T] of a waveform [B, S], into memory filled with NaN.

    `dtype` is the type of the samples, `gap` the number of unrelated samples between rows, and `backend` and `wave` are
    the target of the plan. `through_operator` is for features that the kernel does not compute alone.
    """
    import torch

    from distill import kernels
    from distill.features import ops  # noqa: F401 - defines the operator
    from distill.features.mel import mel_bands

    if through_operator:
        with new_memory_is_nan():
            rows = rows_with_gaps(waveform, gap, dtype)
            return torch.ops.distill.complex_mel(rows, *spec.arguments("fused")).numpy()
    plan = kernels.make_plan(mel_bands(spec), n_fft=spec.n_fft, backend=backend, wave=wave)
    assert not isinstance(plan, str), f"{spec} has no plan ({plan}); choose a feature that has one"
    with new_memory_is_nan():
        features = kernels.complex_mel(
            rows_with_gaps(waveform, gap, dtype),
            plan,
            hop_length=spec.hop_length,
            threshold=spec.if_masking_threshold,
        )
    return features.numpy()


def rows_with_gaps(waveform: np.ndarray, gap: int, dtype: str) -> torch.Tensor:
    """Return a waveform [B, S] in memory that holds `gap` unrelated samples between rows."""
    import torch

    rows, samples = waveform.shape
    memory = torch.full((rows, samples + gap), 1e3, dtype=getattr(torch, dtype))
    memory[:, :samples] = torch.from_numpy(waveform)
    return memory[:, :samples]


@contextmanager
def new_memory_is_nan() -> Iterator[None]:
    """Fill tensors of ``new_empty`` with NaN, so that values which a kernel does not write are noticed."""
    import torch

    new_empty = torch.Tensor.new_empty

    def filled(*args: object, **options: object) -> torch.Tensor:
        memory = new_empty(*args, **options)
        return memory.fill_(torch.nan) if memory.is_floating_point() else memory

    with mock.patch.object(torch.Tensor, "new_empty", filled):
        yield
