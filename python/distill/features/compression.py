"""The compression of channel 0: from the sums over a band's bins to the values of the feature, and back."""

from __future__ import annotations

import math

import torch

from distill.features.mel import MelSpec

# Relative to the floor: values of sums that were raised to it, with their rounding errors.
_AT_FLOOR = 1 + 1e-5


def compress(sums: torch.Tensor, spec: MelSpec) -> torch.Tensor:
    """Return values of channel 0 from sums of power or magnitude, of any shape. NaN stays NaN."""
    if spec.compression == "log1p":
        return sums.log1p()
    if spec.compression == "none":
        return sums
    sums = sums.clamp(min=spec.floor)
    return sums.log() if spec.compression == "log" else sums.log10() * _per_log10(spec)


def expand(values: torch.Tensor, spec: MelSpec) -> torch.Tensor:
    """Return the sums that values of channel 0 stand for: the inverse of :func:`compress`, 0 at the floor and below."""
    if spec.compression == "log1p":
        return values.clamp(min=0).expm1()
    if spec.compression == "none":
        return values.clamp(min=0)
    sums = values.exp() if spec.compression == "log" else (values * (math.log(10.0) / _per_log10(spec))).exp()
    return sums.masked_fill(sums <= spec.floor * _AT_FLOOR, 0.0)


def _per_log10(spec: MelSpec) -> float:
    """Return what the decadic logarithm is multiplied with."""
    return 20.0 / spec.power if spec.compression == "db" else 1.0
