"""The fused kernel: a batch of waveforms to both mel channels in one launch. README.md derives it."""

from .complex_mel import complex_mel, source
from .plan import Plan, make_plan

__all__ = ["Plan", "complex_mel", "make_plan", "source"]
