"""Chunking: a file as consecutive chunks of one length, peak-normalised, the last one zero-padded, without silent ones.

file     |-------------------------------------------|
chunks   |-----------|-----------|-----------|-------000|
                          silent: left out
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from distill.audio.decode import Block, decode_blocks, peak_of
from distill.config import Normalize
from distill.types import Reason

SILENCE_PEAK = 1e-3
"""A chunk whose peak, after normalisation, is below this is silent: -60 dBFS."""
NO_SIGNAL_PEAK = 1e-6
"""A file or chunk whose peak is below this is not normalised but counts as silent: -120 dBFS."""
FAINT = "mixed to mono, nothing in it is above -60 dBFS"
"""Message for a file that does not reach `SILENCE_PEAK`."""
SILENT = Reason(f"silent throughout: {FAINT}", "silent")
"""Reason for skipping a file all of whose chunks are silent."""
# Files up to this length are kept in memory while their peak is found; longer ones are decoded twice.
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

    Attributes
    ----------
    silent : int
        Number of chunks that were left out so far.

    Yields
    ------
    ndarray of shape [S], float32

    Raises
    ------
    AudioFileError
        If the file cannot be decoded.
    """

    path: str | os.PathLike[str]
    sample_rate: int
    chunk_samples: int
    normalize: Normalize = "file"
    on_block: Callable[[], object] | None = None
    silent: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[np.ndarray]:
        self.silent = 0
        blocks, factor = self._blocks()
        for chunk in _cut(blocks, self.chunk_samples, factor):
            if self.normalize == "chunk":
                chunk *= np.float32(_to_full_scale(peak_of(chunk)))
            if peak_of(chunk) < SILENCE_PEAK:
                self.silent += 1
            else:
                yield chunk

    def _blocks(self) -> tuple[Iterable[Block], float]:
        """Return the decoded blocks, and the factor to scale them with."""
        if self.normalize != "file":
            return self._decoded(), 1.0
        held: list[Block] = []
        limit = _HELD_S * self.sample_rate
        samples, peak = 0, 0.0
        for block in self._decoded():
            samples, peak = samples + block.samples.size, max(peak, block.peak)
            if samples <= limit:
                held.append(block)
            else:
                held.clear()
        return (held if samples <= limit else self._decoded()), _to_full_scale(peak)

    def _decoded(self) -> Iterator[Block]:
        for block in decode_blocks(self.path, self.sample_rate):
            if self.on_block is not None:
                self.on_block()
            yield block


def _to_full_scale(peak: float) -> float:
    return 1.0 / peak if peak >= NO_SIGNAL_PEAK else 0.0


def _cut(blocks: Iterable[Block], chunk_samples: int, factor: float) -> Iterator[np.ndarray]:
    """Yield chunks of scaled samples; the last one is padded with zeros."""
    chunk, filled = np.empty(chunk_samples, np.float32), 0
    for samples, _ in blocks:
        start = 0
        while start < samples.size:
            taken = min(chunk_samples - filled, samples.size - start)
            np.multiply(samples[start : start + taken], np.float32(factor), out=chunk[filled : filled + taken])
            filled, start = filled + taken, start + taken
            if filled == chunk_samples:
                yield chunk
                chunk, filled = np.empty(chunk_samples, np.float32), 0
    if filled:
        chunk[filled:] = 0
        yield chunk
