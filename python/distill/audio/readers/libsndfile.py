"""Reads with libsndfile what no other reader is for."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import suppress

import soundfile

from distill.audio.readers.protocol import BLOCK_FRAMES, Pcm, Readable, SoundError
from distill.audio.readers.riff import compressed
from distill.audio.readers.views import View
from distill.types import Reason

_LENGTH_UNKNOWN = 1 << 62
_OUT_OF_MEMORY = 17
_PVF_HEADER = re.compile(rb"PVF1\n\d+ \d+ \d+\n")


class LibsndfileSound:
    """A file opened by libsndfile.

    Parameters
    ----------
    source : Readable
        Its bytes.
    missing : Reason, optional
        Why it is known that sound is missing at the end. Default: none.
    frames : int, optional
        Number of frames, at most. Default: as many as libsndfile finds.
    """

    def __init__(self, source: Readable, missing: Reason | None = None, frames: int | None = None) -> None:
        self._missing = missing
        self._stream = SourceStream(source)
        try:
            self._sound = soundfile.SoundFile(self._stream)
        except soundfile.LibsndfileError as error:
            self._stream.check()
            check_memory(error)
            text = "is damaged, or of a variant of its format that distill does not read"
            raise SoundError(Reason(text, "not-decodable")) from error
        self.sample_rate, self.channels = self._sound.samplerate, self._sound.channels
        found = self._sound.frames if self._sound.frames < _LENGTH_UNKNOWN else None
        self._most = _LENGTH_UNKNOWN if frames is None else frames
        self.frames = found if frames is None or found is None else min(found, frames)

    def blocks(self) -> Iterator[Pcm]:
        """Yield all frames; see `Sound`."""
        read = 0
        while read < self._most:
            try:
                block = self._sound.read(min(BLOCK_FRAMES, self._most - read), dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                self._stream.check()
                check_memory(error)
                raise SoundError(Reason(f"is damaged: only {read} frames can be decoded", "damaged")) from error
            self._stream.check()
            if not len(block):
                break
            read += len(block)
            yield Pcm(block, self.sample_rate)
        if self._missing is not None:
            raise SoundError(self._missing)

    def close(self) -> None:
        """Close it."""
        with suppress(soundfile.LibsndfileError):
            self._sound.close()


def check_memory(error: soundfile.LibsndfileError) -> None:
    """Raise MemoryError if that is what an error of libsndfile says: it is not about the file."""
    if error.code == _OUT_OF_MEMORY:
        raise MemoryError(str(error)) from error


def open_compressed_wav(source: Readable) -> LibsndfileSound:
    """Open a WAV file of ADPCM, GSM and the like. What is wrong in its header does not reach libsndfile."""
    return LibsndfileSound(*compressed(source))


class SourceStream(io.RawIOBase):
    """A source as a file for libsndfile, which may not see an exception: it is kept for `check`."""

    def __init__(self, source: Readable) -> None:
        self._source, self._at = source, 0
        self._error: BaseException | None = None

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

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read into `buffer`, and return how much was read."""
        try:
            found = self._source.read_at(self._at, len(buffer))
        except (OSError, MemoryError, KeyboardInterrupt) as error:
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


def open_pvf(source: Readable) -> LibsndfileSound:
    """Open a PVF file. SoX writes its header into a pipe twice."""
    header = _PVF_HEADER.match(source.read_at(0, 64))
    if header and source.read_at(header.end(), header.end()) == header[0]:
        return LibsndfileSound(View(source, header.end()))
    return LibsndfileSound(source)
