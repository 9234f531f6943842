"""Chunking: a file as consecutive chunks of one length, peak-normalised, the last one zero-padded, without silent ones.

file     |-------------------------------------------|
chunks   |-----------|-----------|-----------|-------000|
                          silent: left out

A constant offset (DC) of the file is removed first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from distill.audio.decode import Block, decode_blocks, peak_of, unreadable
from distill.audio.levels import CANCELLED, NO_SIGNAL_PEAK, SILENCE_PEAK, Levels, level_of
from distill.audio.readers.protocol import ByteSource
from distill.audio.spool import Spool
from distill.config import Normalize
from distill.errors import AudioFileError
from distill.types import Reason

CHANGED = Reason("changed while it was read", "unstable")
"""Reason for not using a file that was written or replaced while it was decoded."""

_Piece = TypeVar("_Piece", Block, np.ndarray)


@dataclass
class Chunks:
    """The chunks of a file that are not silent, in order. Iterating decodes the file, unless `decode` was called.

    It is decoded once, and kept until its levels are known; see `Spool`. A file for which there is not enough room is
    decoded twice.

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
    source : ByteSource, optional
        The opened file. Default: it is opened when it is decoded.
    spool_dir : Path, optional
        Folder of a temporary file for what does not fit into memory. Default: None, such files are decoded twice.

    Attributes
    ----------
    silent_runs : list of (int, int)
        Chunks that were left out so far, because they are silent: number of the first one, and how many, of each run.
    levels : Levels
        Peak and offset of the file, once it is decoded.
    partial : Reason or None
        Why only a part of the file could be decoded, if so, once it is decoded.
    channels : int
        The largest number of channels in the file, once it is decoded.

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
    source: ByteSource | None = None
    spool_dir: Path | None = None
    silent_runs: list[tuple[int, int]] = field(default_factory=list, init=False)
    levels: Levels = field(default_factory=Levels, init=False)
    partial: Reason | None = field(default=None, init=False)
    channels: int = field(default=0, init=False)
    _cancels: bool = field(default=False, init=False)
    _spool: Spool | None = field(default=None, init=False)

    @property
    def silent(self) -> int:
        """Number of chunks that were left out so far."""
        return sum(count for _, count in self.silent_runs)

    @property
    def silence(self) -> Reason:
        """The reason for skipping the file if all of its chunks are silent."""
        reason = CANCELLED if self._cancels else self.levels.silence
        return reason if self.partial is None else Reason(f"{reason}; and {self.partial}", reason.code)

    def decode(self) -> None:
        """Decode the file and find its levels, so that iterating only cuts it.

        Raises
        ------
        AudioFileError
            See the class.
        """
        self.close()
        spool, self.levels = Spool(self.spool_dir), Levels()
        decoding = decode_blocks(self.path if self.source is None else self.source, self.sample_rate, path=self.path)
        try:
            for block in self._noted(decoding):
                self.levels.add(block)
                spool.append(block.samples)
        except BaseException:
            spool.close()
            raise
        self._spool = spool
        self.partial, self.channels, self._cancels = decoding.partial, decoding.channels, decoding.cancels
        if self.partial is not None and self.skips_partial:
            self.close()
            raise AudioFileError(os.fspath(self.path), self.partial)

    @property
    def is_spooled(self) -> bool:
        """Whether the file is decoded, and need not be decoded again to be cut."""
        return self._spool is not None and self._spool.is_complete

    def close(self) -> None:
        """Free what was decoded."""
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def __iter__(self) -> Iterator[np.ndarray]:
        self.silent_runs = []
        if self._spool is None:
            self.decode()
        assert self._spool is not None
        try:
            yield from self._audible(self._samples(self._spool))
        finally:
            self.close()

    def _audible(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the chunks that are not silent, normalised."""
        factor, least = 1.0, SILENCE_PEAK
        if self.normalize == "file":
            factor = 1 / self.levels.peak if self.levels.peak >= NO_SIGNAL_PEAK else 0.0
        elif self.normalize == "chunk":
            least = NO_SIGNAL_PEAK
        for number, (chunk, filled) in enumerate(_cut(blocks, self.chunk_samples, self.levels.offset, factor)):
            if level_of(chunk[:filled]) < least:
                self._leave_out(number)
                continue
            if self.normalize == "chunk":
                chunk *= np.float32(1 / peak_of(chunk))
            yield chunk

    def _leave_out(self, number: int) -> None:
        first, count = self.silent_runs.pop() if self.silent_runs else (number, 0)
        if first + count == number:
            self.silent_runs.append((first, count + 1))
        else:
            self.silent_runs += [(first, count), (number, 1)]

    def _samples(self, spool: Spool) -> Iterator[np.ndarray]:
        if spool.is_complete:
            yield from self._noted(spool)
        else:
            yield from self._decoded_again()

    def _decoded_again(self) -> Iterator[np.ndarray]:
        """Decode the file again, and check that it still is what `source` was."""
        try:
            opened = ByteSource(self.path)
        except OSError as error:
            raise unreadable(self.path, error) from error
        with closing(opened) as again:
            for block in self._noted(decode_blocks(again, self.sample_rate, path=self.path)):
                yield block.samples
            if self.source is not None and again.digest(self._stop) != self.source.digest(self._stop):
                raise AudioFileError(os.fspath(self.path), CHANGED)

    def _stop(self, *hashed: object) -> None:
        if self.on_block is not None:
            self.on_block()

    def _noted(self, blocks: Iterable[_Piece]) -> Iterator[_Piece]:
        for block in blocks:
            if self.on_block is not None:
                self.on_block()
            yield block


def _cut(
    blocks: Iterable[np.ndarray], chunk_samples: int, offset: float, factor: float
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield chunks of samples without their offset, scaled, and how many there are before the zeros of the last one."""
    chunk, filled = np.empty(chunk_samples, np.float32), 0
    for block in blocks:
        samples = block - np.float32(offset) if offset else block
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
