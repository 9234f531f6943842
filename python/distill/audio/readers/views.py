"""Parts of a source as sources of their own, for files that begin behind tags or have a broken header."""

from __future__ import annotations

import numpy as np

from distill.audio.readers.protocol import Readable, SampleForm


class View:
    """A region of a source behind bytes of our own.

    Parameters
    ----------
    source : Readable
        All the bytes.
    start : int
        Where the region begins.
    length : int, optional
        Its length. Default: up to the end.
    prefix : bytes, optional
        What stands before it. Default: nothing.
    """

    def __init__(self, source: Readable, start: int, length: int | None = None, *, prefix: bytes = b"") -> None:
        rest = max(0, source.size - start)
        self._source, self._prefix = source, prefix
        self._start, self._end = start, start + (rest if length is None else min(rest, length))
        self.size = len(prefix) + self._end - start

    def read_at(self, offset: int, length: int) -> bytes:
        """Return `length` bytes at `offset`, or those up to the end."""
        before = self._prefix[offset : offset + length]
        at = self._start + max(0, offset - len(self._prefix))
        wanted = min(length - len(before), self._end - at)
        return before + (self._source.read_at(at, wanted) if wanted > 0 else b"")

    def read_samples(
        self, offset: int, length: int, form: SampleForm, width: int, big_endian: bool, full_scale: float
    ) -> np.ndarray:
        """Return the samples at `offset`, which is behind the prefix; see `ByteSource.read_samples`."""
        at = self._start + offset - len(self._prefix)
        return self._source.read_samples(at, max(0, min(length, self._end - at)), form, width, big_endian, full_scale)


_REPEATED_BYTES, _LONGEST_HEADER = 16, 4096


def behind_first_header(source: Readable) -> Readable:
    """Return a source without the further headers in a file that SoX wrote to a pipe.

    Its library goes back to correct the header. Into a pipe it writes it again instead: behind the first one, and
    behind the samples.
    """
    head = source.read_at(0, _LONGEST_HEADER + _REPEATED_BYTES)
    start = head.find(head[:_REPEATED_BYTES], 1)
    # The name of the data chunk, and its size, are the end of the header.
    if start < 0 or b"data" not in head[max(0, start - 24) : start]:
        return source
    end = source.size - start
    is_repeated = source.read_at(end, _REPEATED_BYTES) == head[:_REPEATED_BYTES]
    return View(source, start, end - start if is_repeated and end > start else None)
