"""The fused Triton kernel: both mel channels of a batch of waveforms in one launch. README.md derives it."""

from .complex_mel import complex_mel, source
from .plan import Plan, make_plan

__all__ = ["Plan", "complex_mel", "make_plan", "source"]
