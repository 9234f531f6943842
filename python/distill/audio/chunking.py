"""Chunking: a file as consecutive chunks of one length, peak-normalised, the last one zero-padded, without silent ones.

file     |-------------------------------------------|
chunks   |-----------|-----------|-----------|-------000|
                          silent: left out

A constant offset (DC) of the file is removed first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from distill.audio.decode import Block, decode_blocks, peak_of
from distill.audio.levels import CANCELLED, NO_SIGNAL_PEAK, SILENCE_PEAK, Levels, level_of
from distill.config import Normalize
from distill.errors import AudioFileError
from distill.types import Reason

# Files up to this length are kept in memory while their levels are found; longer ones are decoded twice.
_HELD_S = 60.0


@dataclass
class Chunks:
    """The chunks of a file that are not silent, in order. Iterating decodes the file.

    Parameters
    ----------
    path : path
        The file.
    sample_rate : int
        Hz.
    chunk_samples : int
        Length S of a chunk, samples.
    normalize : {"file", "chunk", "none"}
        Scale the file, each chunk, or nothing to a peak of 1. Default: "file".
    on_block : callable, optional
        Called after each decoded block of a few seconds, whether or not it completes a chunk. An exception that it
        raises ends the iteration.
    skips_partial : bool
        Refuse a file of which only a part can be decoded, instead of using that part. Default: False.

    Attributes
    ----------
    silent : int
        Number of chunks that were left out so far.
    levels : Levels
        Peak and offset of the file, once iteration has begun.
    partial : Reason or None
        Why only a part of the file could be decoded, if so, once iteration has begun.
    channels : int
        The largest number of channels in the file, once iteration has begun.

    Yields
    ------
    ndarray of shape [S], float32

    Raises
    ------
    AudioFileError
        If the file cannot be decoded, or only in part and `skips_partial`. Nothing has been yielded then, unless the
        file was changed meanwhile.
    """

    path: str | os.PathLike[str]
    sample_rate: int
    chunk_samples: int
    normalize: Normalize = "file"
    on_block: Callable[[], object] | None = None
    skips_partial: bool = False
    silent: int = field(default=0, init=False)
    levels: Levels = field(default_factory=Levels, init=False)
    partial: Reason | None = field(default=None, init=False)
    channels: int = field(default=0, init=False)
    _cancels: bool = field(default=False, init=False)

    @property
    def silence(self) -> Reason:
        """The reason for skipping the file if all of its chunks are silent."""
        reason = CANCELLED if self._cancels else self.levels.silence
        return reason if self.partial is None else Reason(f"{reason}; and {self.partial}", reason.code)

    def __iter__(self) -> Iterator[np.ndarray]:
        self.silent = 0
        blocks = self._blocks()
        factor, least = 1.0, SILENCE_PEAK
        if self.normalize == "file":
            factor = 1 / self.levels.peak if self.levels.peak >= NO_SIGNAL_PEAK else 0.0
        elif self.normalize == "chunk":
            least = NO_SIGNAL_PEAK
        for chunk, filled in _cut(blocks, self.chunk_samples, self.levels.offset, factor):
            if level_of(chunk[:filled]) < least:
                self.silent += 1
                continue
            if self.normalize == "chunk":
                chunk *= np.float32(1 / peak_of(chunk))
            yield chunk

    def _blocks(self) -> Iterable[Block]:
        """Find the levels of the file, and return its decoded blocks."""
        held: list[Block] = []
        limit = _HELD_S * self.sample_rate
        self.levels = levels = Levels()
        decoding = decode_blocks(self.path, self.sample_rate)
        for block in self._noted(decoding):
            levels.add(block)
            if levels.samples <= limit:
                held.append(block)
            else:
                held.clear()
        self.partial, self.channels, self._cancels = decoding.partial, decoding.channels, decoding.cancels
        if self.partial is not None and self.skips_partial:
            raise AudioFileError(os.fspath(self.path), self.partial)
        return held if levels.samples <= limit else self._noted(decoding)

    def _noted(self, blocks: Iterable[Block]) -> Iterator[Block]:
        for block in blocks:
            if self.on_block is not None:
                self.on_block()
            yield block


def _cut(blocks: Iterable[Block], chunk_samples: int, offset: float, factor: float) -> Iterator[tuple[np.ndarray, int]]:
    """Yield chunks of samples without their offset, scaled, and how many there are before the zeros of the last one."""
    chunk, filled = np.empty(chunk_samples, np.float32), 0
    for block in blocks:
        samples = block.samples - np.float32(offset) if offset else block.samples
        start = 0
        while start < samples.size:
            taken = min(chunk_samples - filled, samples.size - start)
            np.multiply(samples[start : start + taken], np.float32(factor), out=chunk[filled : filled + taken])
            filled, start = filled + taken, start + taken
            if filled == chunk_samples:
                yield chunk, filled
                chunk, filled = np.empty(chunk_samples, np.float32), 0
    if filled:
        chunk[filled:] = 0
        yield chunk, filled
