"""Types that every layer shares, and the progress callback of callers that give none."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, TypeVar

_Result = TypeVar("_Result")

PathLike = str | os.PathLike[str]
"""A path argument."""
ProgressCallback = Callable[[str, int, int], object]
"""Called with the name of a stage, the amount done and the total (0: unknown)."""
ConfirmCallback = Callable[[str], bool]
"""Called with a question; returning False cancels."""
FileFormat = Literal["wav", "flac", "ogg", "mp3"]
"""Kind of a sound file that is written."""
ExportFormat = Literal["pt", "npy", "safetensors", "webdataset", "parquet"]
"""Kind of the files that features are exported to."""
SampleFormat = Literal["pcm16", "pcm24", "float"]
"""Sample format of a sound file that is not lossy."""


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

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return str(self), self.code

    @classmethod
    def of(cls, reason: str) -> Reason:
        """Return `reason`, with the code "unusable" if it has none."""
        return reason if isinstance(reason, cls) else cls(reason)


def no_progress(stage: str, current: int, total: int) -> None:
    """Ignore progress."""


class _CallbackError(BaseException):
    """An exception of a callback, on its way past the handlers of other errors."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def hands_on_errors_of_progress(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Let the exceptions of the callback `progress` reach the caller of a function as they are.

    Otherwise an OSError of a callback, which may write to a file of its own, would be taken for one of the cache.
    """

    @wraps(function)
    def call(*arguments: Any, progress: ProgressCallback | None = None, **options: Any) -> _Result:
        if progress is None:
            return function(*arguments, **options)

        def guarded(stage: str, current: int, total: int) -> None:
            try:
                progress(stage, current, total)
            except Exception as error:
                raise _CallbackError(error) from error

        try:
            return function(*arguments, progress=guarded, **options)
        except _CallbackError as raised:
            failed = raised.error
        raise failed

    return call
