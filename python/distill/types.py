"""Types that every layer shares."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

PathLike = str | os.PathLike[str]
"""A path as callers give it."""
ProgressCallback = Callable[[str, int, int], object]
"""Called with the stage, how much of it is done, and how much there is (0: not known)."""
ConfirmCallback = Callable[[str], bool]
"""Called with a question; False cancels."""
WavFormat = Literal["pcm16", "pcm24", "float"]
"""Sample format of a WAV file that is written."""
