"""The kernel interpreted by Triton, for tests: in a process of its own, for a process does it always or never."""

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


class Interpreter(Protocol):
    """What :func:`interpreter` gives: :func:`compute`, over there."""

    def __call__(self, waveform: np.ndarray, feature: dict[str, float], **options: object) -> np.ndarray:
        """Features [B, 2, M, T]."""


@contextmanager
def interpreter() -> Iterator[Interpreter]:
    """A process that computes with the interpreted kernel."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_interpret) as pool:
        yield lambda waveform, feature, **options: pool.submit(compute, waveform, feature, **options).result()


def _interpret() -> None:
    os.environ["TRITON_INTERPRET"] = "1"


def compute(
    waveform: np.ndarray,
    feature: dict[str, float],
    *,
    dtype: str = "float32",
    threshold: float = 1e-5,
    apart: int = 0,
    backend: str = "cuda",
    wave: int = 32,
) -> np.ndarray:
    """Features [B, 2, M, T] of a waveform [B, S], into memory that was NaN before.

    `feature` goes to mel_bands, `dtype` is what samples are given as, `apart` how many samples of something else lie
    between rows, `backend` and `wave` what the plan is for.
    """
    from distill import kernels
    from distill.features.mel import mel_bands

    plan = kernels.make_plan(mel_bands(**feature), n_fft=feature["n_fft"], backend=backend, wave=wave)
    if plan is None:
        raise ValueError(f"{feature} has no plan; give the test one that has")
    with poisoned():
        features = kernels.complex_mel(
            rows_apart(waveform, apart, dtype), plan, hop_length=feature["hop_length"], threshold=threshold
        )
    return features.numpy()


def rows_apart(waveform: np.ndarray, apart: int, dtype: str) -> torch.Tensor:
    """A waveform [B, S] in memory where `apart` samples of something else lie between rows."""
    import torch

    rows, samples = waveform.shape
    memory = torch.full((rows, samples + apart), 1e3, dtype=getattr(torch, dtype))
    memory[:, :samples] = torch.from_numpy(waveform)
    return memory[:, :samples]


@contextmanager
def poisoned() -> Iterator[None]:
    """New memory is NaN, so that what a kernel leaves out shows."""
    import torch

    new_empty = torch.Tensor.new_empty

    def filled(*args: object, **options: object) -> torch.Tensor:
        memory = new_empty(*args, **options)
        return memory.fill_(torch.nan) if memory.is_floating_point() else memory

    with mock.patch.object(torch.Tensor, "new_empty", filled):
        yield
