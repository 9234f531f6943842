"""What a reader of audio files is given, and what it returns."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, Protocol

import numpy as np

from distill._native import ByteSource
from distill.extensions import NEEDS_FFMPEG, ffmpeg_remedy
from distill.types import Reason

__all__ = [
    "BLOCK_FRAMES",
    "NEEDS_FFMPEG",
    "UNFORESEEN",
    "ByteSource",
    "NotForMeError",
    "Opener",
    "PartOpener",
    "Pcm",
    "Readable",
    "SampleForm",
    "Sound",
    "SoundError",
    "needs_ffmpeg",
]

SampleForm = Literal["signed", "unsigned", "float", "mulaw", "alaw"]
"""How uncompressed samples are encoded."""

BLOCK_FRAMES = 1 << 16
"""Frames in a block, at most."""


UNFORESEEN = (ValueError, ArithmeticError, LookupError, struct.error)
"""What a reader may raise that did not foresee how a file is damaged. It ends the reading of this file only."""


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


def needs_ffmpeg(what: str) -> SoundError:
    """Return the error for a file that only FFmpeg reads; `what` says what it is."""
    return SoundError(Reason(f"{what}, which is read with FFmpeg: {ffmpeg_remedy()}", NEEDS_FFMPEG))


class NotForMeError(Exception):
    """A file that another reader of the same kind may read."""


class Readable(Protocol):
    """What can be read at any position: a `ByteSource`, or a `View` of a part of one."""

    @property
    def size(self) -> int:
        """Number of bytes."""

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ByteSource.read_at`."""

    def read_samples(
        self, offset: int, length: int, form: SampleForm, width: int, big_endian: bool, full_scale: float
    ) -> np.ndarray:
        """See `ByteSource.read_samples`."""


class Pcm(NamedTuple):
    """Consecutive frames of a file."""

    samples: np.ndarray
    """[n, channels], float32."""
    sample_rate: int
    """Hz. In a file of several parts it may change, and so may the number of channels."""


class Sound(Protocol):
    """An open audio file.

    Attributes
    ----------
    sample_rate, channels : int
        Those of the first part.
    frames : int or None
        Number of frames that the header promises; None if it does not say. Never an estimate. What is known of further
        parts is added while they are read, so that the number is right once `blocks` has ended; a reader that
        compares the number itself and raises SoundError may leave None.
    """

    sample_rate: int
    channels: int

    @property
    def frames(self) -> int | None:
        """See the class."""

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
PartOpener = Callable[[Readable], Sound]
"""Opens a file or a part of one, likewise."""
