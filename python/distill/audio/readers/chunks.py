"""Containers made of chunks, each with a name and a size."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from distill.audio.readers.protocol import Readable, SoundError
from distill.types import Reason

# Chunks before the sound are small, but for pictures and the padding that some recorders leave.
_SEARCHED_BYTES = 4 << 20
_MOST_CHUNKS = 1 << 16


class Chunk(NamedTuple):
    """The contents of a chunk: `size` bytes at `offset`, if its header is right."""

    name: bytes
    offset: int
    size: int


@dataclass(frozen=True)
class Layout:
    """How a container stores its chunks."""

    header: str
    """Format of name and size, for `struct`."""
    padding: int = 2
    """Chunks begin at multiples of this."""
    counts_header: bool = False
    """Whether the size includes the header."""


RIFF, RIFX, IFF = Layout("<4sI"), Layout(">4sI"), Layout(">4sI")
CAF = Layout(">4sq", padding=1)
WAVE64 = Layout("<16sq", padding=8, counts_header=True)


def walk(source: Readable, at: int, layout: Layout) -> Iterator[Chunk]:
    """Yield the chunks from `at` on, until something is no chunk."""
    for number in itertools.count():
        chunk = chunk_at(source, at, layout)
        if chunk is None:
            return
        check_number(number)
        yield chunk
        if chunk.size < 0:
            return
        at = after(source, chunk, layout)


def check_number(chunks: int) -> None:
    """Refuse a file with more chunks than any that is intact."""
    if chunks >= _MOST_CHUNKS:
        raise SoundError(Reason("is damaged: it has too many chunks", "damaged"))


def chunk_at(source: Readable, at: int, layout: Layout) -> Chunk | None:
    """Return the chunk that begins at `at`, or None if there is none."""
    length = struct.calcsize(layout.header)
    head = source.read_at(at, length)
    if len(head) < length:
        return None
    name, size = struct.unpack(layout.header, head)
    if not all(0x20 <= byte < 0x7F for byte in name[:4]):
        return None
    return Chunk(name, at + length, size - length if layout.counts_header else size)


def is_chunk(source: Readable, at: int, layout: Layout) -> bool:
    """Return whether a chunk begins at `at` that ends within the file."""
    chunk = chunk_at(source, at, layout)
    return chunk is not None and 0 <= chunk.size <= source.size - chunk.offset


def after(source: Readable, chunk: Chunk, layout: Layout) -> int:
    """Return where the next chunk begins."""
    end = chunk.offset + chunk.size
    padded = end + -end % layout.padding if layout.padding > 2 else end + chunk.size % layout.padding
    # Some programs forget the byte behind a chunk of odd size.
    if padded != end and not is_chunk(source, padded, layout) and is_chunk(source, end, layout):
        return end
    return padded


def find(source: Readable, name: bytes, at: int, layout: Layout) -> Chunk | None:
    """Return the first chunk of this name that begins behind `at`, wherever it is; for files with a wrong size.

    One that ends within the file is preferred.
    """
    head, first, position = source.read_at(at, _SEARCHED_BYTES), None, -1
    while (position := head.find(name, position + 1)) >= 0:
        chunk = chunk_at(source, at + position, layout)
        if chunk is not None and 0 <= chunk.size <= source.size - chunk.offset:
            return chunk
        first = first or chunk
    return first
