"""Types that every layer shares, and the progress callback of callers that give none."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

PathLike = str | os.PathLike[str]
"""A path argument."""
ProgressCallback = Callable[[str, int, int], object]
"""Called with the name of a stage, the amount done and the total (0: unknown)."""
ConfirmCallback = Callable[[str], bool]
"""Called with a question; returning False cancels."""
WavFormat = Literal["pcm16", "pcm24", "float"]
"""Sample format of a WAV file."""


def no_progress(stage: str, current: int, total: int) -> None:
    """Ignore progress."""
