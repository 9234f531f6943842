"""Reads Ogg Vorbis and Opus: libsndfile decodes, and is given pages that are whole and in order.

A file is read once, from its start to its end. Each of its streams, if it is chained, is decoded on its own. libsndfile
is given the headers anew, with the sample rate of 48 kHz for Opus and without comments (cover art), and pages without
their granule positions and end: what is to be cut off at the start and at the end is computed here, because libsndfile
needs the end of the file for that and refuses positions that are odd.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import soundfile

from distill.audio.readers.libsndfile import check_memory
from distill.audio.readers.oggstreams import Pages, Stream, next_stream
from distill.audio.readers.protocol import BLOCK_FRAMES, NEEDS_FFMPEG, NotForMeError, Pcm, Readable, SoundError
from distill.types import Reason


class OggSound:
    """An Ogg file whose first stream of audio is Vorbis or Opus.

    Parameters
    ----------
    source : Readable
        Its bytes.
    """

    frames = None  # no header says how long the file is

    def __init__(self, source: Readable) -> None:
        self._pages = Pages(source)
        stream = next_stream(self._pages)
        if stream is None:
            raise SoundError(Reason("the first page of its Ogg stream is missing or damaged", "damaged"))
        self._first = stream
        self.sample_rate, self.channels = stream.codec.sample_rate, stream.codec.channels

    def blocks(self) -> Iterator[Pcm]:
        """Yield all frames; see `Sound`."""
        stream: Stream | None = self._first
        total, unfinished = 0, False
        while stream is not None:
            for samples in _decode(stream):
                total += len(samples)
                yield Pcm(samples, stream.codec.sample_rate)
            if stream.fault is not None:
                raise SoundError(Reason(f"{stream.fault}, {total} frames before it can be decoded", "damaged"))
            unfinished |= not stream.finished
            try:
                stream = next_stream(self._pages)
            except NotForMeError as error:
                raise SoundError(Reason(f"goes on as FLAC after {total} frames", "not-decodable")) from error
            except SoundError as error:
                if error.reason.code != NEEDS_FFMPEG:
                    raise
                # FFmpeg does not change the codec in the middle of a file.
                raise SoundError(Reason(f"goes on as Speex after {total} frames", "not-decodable")) from error
        if unfinished:
            text = f"cut short: the last page of its Ogg stream is missing, {total} frames can be decoded"
            raise SoundError(Reason(text, "cut-short"))

    def close(self) -> None:
        """Do nothing: nothing is held."""


def _decode(stream: Stream) -> Iterator[np.ndarray]:
    """Yield the frames of a stream that are to be heard."""
    view = _View(stream.end_page())
    while not stream.ended and not stream.decodable:
        view.append(stream.next_bytes())
    if not stream.decodable:
        return
    try:
        sound = _ForwardFile(view)
    except soundfile.LibsndfileError as error:
        check_memory(error)
        raise SoundError(Reason(f"its {stream.codec.kind} header is damaged", "damaged")) from error
    view.begin()
    done, most = 0, min(BLOCK_FRAMES, 2 * BLOCK_FRAMES // sound.channels)
    try:
        while True:
            while not stream.ended and stream.decodable - done < most:
                view.append(stream.next_bytes())
            wanted = min(stream.decodable - done, most)
            if not wanted:
                return
            samples = _read(sound, wanted, done)
            heard = samples[max(stream.skipped - done, 0) : max(stream.decodable - stream.unheard - done, 0)]
            done += len(samples)
            if len(heard):
                yield heard
            if len(samples) < wanted:
                raise SoundError(
                    Reason(f"decoding fails after {done} frames of its {stream.codec.kind} stream", "damaged")
                )
    finally:
        with suppress(soundfile.LibsndfileError):
            sound.close()


def _read(sound: soundfile.SoundFile, wanted: int, done: int) -> np.ndarray:
    samples = np.empty((wanted, sound.channels), np.float32)
    try:
        read: np.ndarray = sound.read(out=samples)
    except soundfile.LibsndfileError as error:
        check_memory(error)
        return samples[: sound.tell() - done]  # what was decoded before the error
    return read


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
    """A file that soundfile does not seek in after each read."""

    def seekable(self) -> bool:
        """Return False."""
        return False


class _View(io.RawIOBase):
    """The pages of a stream as a file for libsndfile, which forgets what was read.

    While it opens a file, libsndfile seeks its last page, for its length. It finds a page at the end of a file of a
    huge size, so that it never stops before the pages do.
    """

    _SIZE = 1 << 50

    def __init__(self, end: bytes) -> None:
        self._bytes, self._end = bytearray(), end
        self._start = 0  # of these bytes in the file
        self._at = self._end_start = 0
        self._opening = True

    def begin(self) -> None:
        """Allow that bytes are forgotten from now on."""
        self._opening = False

    def append(self, more: bytes) -> None:
        """Add bytes at the end."""
        if not self._opening:
            del self._bytes[: self._at - self._start]
            self._start = self._at
        self._bytes += more

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read into `buffer`, and return how much was read."""
        behind = self._at >= self._SIZE // 2
        known, start = (self._end, self._end_start) if behind else (self._bytes, self._start)
        found = known[self._at - start : self._at - start + len(buffer)]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position, and return it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._SIZE}[whence]
        self._at = self._end_start = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at
