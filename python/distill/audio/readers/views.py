"""Parts of a source as sources of their own, for files that begin behind tags or have a broken header."""

from __future__ import annotations

from distill.audio.readers.protocol import ByteSource


class View:
    """A region of a source behind bytes of our own.

    Parameters
    ----------
    source : ByteSource
        All the bytes.
    start : int
        Where the region begins.
    length : int, optional
        Its length. Default: up to the end.
    prefix : bytes, optional
        What stands before it. Default: nothing.
    """

    def __init__(self, source: ByteSource, start: int, length: int | None = None, *, prefix: bytes = b"") -> None:
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
