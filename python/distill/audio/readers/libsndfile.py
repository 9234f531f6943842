"""Reads with libsndfile what no other reader is for."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress

import soundfile

from distill.audio.readers.protocol import BLOCK_FRAMES, ByteSource, Pcm, SoundError
from distill.types import Reason

_LENGTH_UNKNOWN = 1 << 62


class LibsndfileSound:
    """A file opened by libsndfile.

    Parameters
    ----------
    source : ByteSource
        Its bytes.
    """

    def __init__(self, source: ByteSource) -> None:
        self._stream = SourceStream(source)
        try:
            self._sound = soundfile.SoundFile(self._stream)
        except soundfile.LibsndfileError as error:
            self._stream.check()
            raise SoundError(Reason(f"cannot be decoded: {_message(error)}", "not-decodable")) from error
        self.kind = self._sound.format
        self.sample_rate, self.channels = self._sound.samplerate, self._sound.channels
        self.frames = self._sound.frames if self._sound.frames < _LENGTH_UNKNOWN else None

    def blocks(self) -> Iterator[Pcm]:
        """Yield all frames; see `Sound`."""
        read = 0
        while True:
            try:
                block = self._sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                self._stream.check()
                raise SoundError(Reason(f"decoding fails after {read} frames: {_message(error)}", "damaged")) from error
            self._stream.check()
            if not len(block):
                return
            read += len(block)
            yield Pcm(block, self.sample_rate)

    def close(self) -> None:
        """Close it."""
        with suppress(soundfile.LibsndfileError):
            self._sound.close()


class SourceStream(io.RawIOBase):
    """A source as a file for libsndfile, which may not see an exception: it is kept for `check`."""

    def __init__(self, source: ByteSource) -> None:
        self._source, self._at, self._error = source, 0, None

    def check(self) -> None:
        """Raise the error of the last read, if there was one."""
        if self._error is not None:
            raise self._error

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:
        """Read into `buffer`, and return how much was read."""
        try:
            found = self._source.read_at(self._at, len(buffer))
        except OSError as error:
            self._error = error
            return 0
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position, and return it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at


def _message(error: soundfile.LibsndfileError) -> str:
    return error.error_string.strip().rstrip(".") or f"libsndfile error {error.code}"
