"""Uncompressed samples, of every layout that a container may hold, as float32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from distill.audio.readers.protocol import BLOCK_FRAMES, NotForMeError, Pcm, Readable, SoundError
from distill.types import Reason

_BLOCK_BYTES = 1 << 20
# Bytes by which a size may be too large. A larger difference is sound that is missing.
_SLACK = 64
# Blocks shorter than this are joined, up to so many.
_SHORT_FRAMES, _JOINED = 512, 1 << 10
# Those of fields of 32 bits, and what SoX writes.
_LIMITS = (0x7F00_0000, 0x7FFF_FFFF, 0xFFFF_FFFF)
Form = Literal["signed", "unsigned", "float", "mulaw", "alaw"]
_WIDTHS = {"signed": (1, 2, 3, 4), "unsigned": (1,), "float": (4, 8), "mulaw": (1,), "alaw": (1,)}


@dataclass(frozen=True)
class Encoding:
    """How a sample is stored.

    Raises
    ------
    NotForMeError
        If there is no such encoding.
    """

    form: Form
    width: int = 1
    """Bytes."""
    big_endian: bool = False
    full_scale: float = 1.0
    """The value of full scale, of floats."""

    def __post_init__(self) -> None:
        if self.width not in _WIDTHS[self.form]:
            raise NotForMeError(f"{self.form} samples of {self.width} bytes")


@dataclass(frozen=True)
class Part:
    """A region of a file with samples of one encoding."""

    sample_rate: int
    channels: int
    encoding: Encoding
    offset: int
    length: int | None
    """Bytes, as the header promises them; None if it does not say: then the region ends with the file."""

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame."""
        return self.channels * self.encoding.width

    @property
    def frames(self) -> int | None:
        """Frames that the header promises, or None."""
        return None if self.length is None else self.length // self.frame_bytes


class PcmSound:
    """A file of uncompressed samples.

    Parameters
    ----------
    source : Readable
        Its bytes.
    parts : iterator of Part
        Where the samples are. A part is asked for when the one before it was read, so that the end of a long file is
        not visited at the start.
    """

    def __init__(self, source: Readable, parts: Iterator[Part]) -> None:
        self._source, self._parts = source, parts
        first = next(parts, None)
        if first is None:
            raise SoundError(Reason("holds no samples", "no-samples"))
        first = self._first = _checked(_without_slack(first, source))
        self.sample_rate, self.channels = first.sample_rate, first.channels
        self.frames = first.frames
        self.bytes_per_s = first.frame_bytes * first.sample_rate

    def blocks(self) -> Iterator[Pcm]:
        """Yield all frames; see `Sound`. Those of short parts are joined."""
        waiting: list[Pcm] = []
        try:
            for pcm in self._blocks():
                is_short = len(pcm.samples) < _SHORT_FRAMES
                if waiting and (not is_short or not _are_alike(waiting[0], pcm) or len(waiting) == _JOINED):
                    yield _joined(waiting)
                    waiting = []
                if is_short:
                    waiting.append(pcm)
                else:
                    yield pcm
        except SoundError:
            if waiting:
                yield _joined(waiting)
            raise
        if waiting:
            yield _joined(waiting)

    def _blocks(self) -> Iterator[Pcm]:
        yield from self._part(self._first)
        try:
            for part in self._parts:
                part = _checked(_without_slack(part, self._source))
                if self.frames is not None:
                    self.frames = None if part.frames is None else self.frames + part.frames
                yield from self._part(part)
        except NotForMeError as error:
            text = "has a second part that is compressed, behind one that is not: only the first can be decoded"
            raise SoundError(Reason(text, "damaged")) from error

    def _part(self, part: Part) -> Iterator[Pcm]:
        frame_bytes, encoding = part.frame_bytes, part.encoding
        most = max(1, min(BLOCK_FRAMES, _BLOCK_BYTES // frame_bytes)) * frame_bytes
        at, end = part.offset, self._source.size
        if part.length is not None:
            end = min(end, part.offset + part.length)
        while at < end:
            samples = self._source.read_samples(
                at, min(most, end - at), encoding.form, encoding.width, encoding.big_endian, encoding.full_scale
            )
            samples = samples[: len(samples) // part.channels * part.channels]
            if not samples.size:
                return
            at += samples.size * encoding.width
            yield Pcm(samples.reshape(-1, part.channels), part.sample_rate)

    def close(self) -> None:
        """Do nothing: it holds nothing."""


def _without_slack(part: Part, source: Readable) -> Part:
    """Return a part that ends with the file, if its size is a little too large: some writers count a header to it."""
    beyond = 0 if part.length is None else part.offset + part.length - source.size
    if not 0 < beyond <= _SLACK or part.length is None or beyond > part.length // _SLACK:
        return part
    return replace(part, length=part.length - beyond)


def _are_alike(first: Pcm, second: Pcm) -> bool:
    return first.sample_rate == second.sample_rate and first.samples.shape[1] == second.samples.shape[1]


def _joined(waiting: list[Pcm]) -> Pcm:
    return Pcm(np.concatenate([pcm.samples for pcm in waiting]), waiting[0].sample_rate)


def _checked(part: Part) -> Part:
    if part.channels <= 0:
        raise SoundError(Reason("is damaged: its header says 0 channels", "out-of-range"))
    if part.sample_rate <= 0:
        raise SoundError(Reason("is damaged: its header says a sample rate of 0 Hz", "out-of-range"))
    return part


def promised(size: int, source: Readable, offset: int) -> int | None:
    """Return the size of a region in bytes as a header gives it, or None if the writer did not know it.

    Programs that write to a pipe, and recorders that crash, leave a size of 0 or one near the limit of its field.
    """
    return None if size <= 0 or (size > source.size - offset and is_placeholder(size)) else size


def is_placeholder(size: int) -> bool:
    """Return whether a size, or number of frames, is so near a limit that it stands for one that is not known."""
    return size >= 1 << 62 or any(abs(size - limit) <= 1 << 16 for limit in _LIMITS)
