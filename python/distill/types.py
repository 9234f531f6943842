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


class Reason(str):
    """Why a file or a pack is left out or damaged: text for people, with a code for programs that stays the same.

    Parameters
    ----------
    text : str
        The reason.
    code : str
        Such as "unreadable" or "silent". Default: "unusable".
    """

    code: str

    def __new__(cls, text: str, code: str = "unusable") -> Reason:
        """Return a reason with a code."""
        reason = super().__new__(cls, text)
        reason.code = code
        return reason

    def __getnewargs__(self) -> tuple[str, str]:
        return str(self), self.code

    @classmethod
    def of(cls, reason: str) -> Reason:
        """Return `reason`, with the code "unusable" if it has none."""
        return reason if isinstance(reason, cls) else cls(reason)


def no_progress(stage: str, current: int, total: int) -> None:
    """Ignore progress."""
