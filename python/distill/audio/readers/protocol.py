"""What a reader of audio files is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from distill._native import ByteSource
from distill.types import Reason

__all__ = ["BLOCK_FRAMES", "ByteSource", "NotForMeError", "Opener", "Pcm", "Sound", "SoundError"]

BLOCK_FRAMES = 1 << 16
"""Frames in a block, at most."""


class SoundError(Exception):
    """A file that cannot be opened, or not be decoded any further.

    Parameters
    ----------
    reason : Reason
        Why; in words for those who own the file.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class NotForMeError(Exception):
    """A file that another reader of the same kind may read."""


class Pcm(NamedTuple):
    """Consecutive frames of a file."""

    samples: np.ndarray
    """[n, channels], float32. The next block may overwrite them."""
    sample_rate: int
    """Hz. In a file of several parts it may change, and so may the number of channels."""


class Sound(Protocol):
    """An open audio file.

    Attributes
    ----------
    kind : str
        The format in words, for messages.
    sample_rate, channels : int
        Those of the first part.
    frames : int or None
        Number of frames that the file promises, over all of its parts; None if it does not say. Never an estimate.
    """

    kind: str
    sample_rate: int
    channels: int
    frames: int | None

    def blocks(self) -> Iterator[Pcm]:
        """Yield all frames, at most `BLOCK_FRAMES` at a time; to be called once.

        Raises
        ------
        SoundError
            After the last good frame, if there are others that cannot be decoded.
        OSError
            If the file cannot be read.
        """

    def close(self) -> None:
        """Free what the reader holds. The source stays open."""


Opener = Callable[[ByteSource], Sound]
"""Opens a file, reading no more than it must.

It raises SoundError if the file cannot be decoded, NotForMeError if another reader may decode it, and OSError if it
cannot be read.
"""
