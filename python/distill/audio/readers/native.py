"""Reads MP3, AAC, ALAC and FLAC with the decoders of the Rust extension."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from distill import _native
from distill.audio.readers.kinds import refusal, start_of
from distill.audio.readers.protocol import ByteSource, NotForMeError, Pcm, SoundError
from distill.types import Reason

_Kind = Literal["mpeg", "adts", "mp4", "flac", "ogg-flac", "caf"]


class NativeSound:
    """A file opened by a decoder of the Rust extension.

    Parameters
    ----------
    source : ByteSource
        Its bytes.
    kind : {"mpeg", "adts", "mp4", "flac", "ogg-flac", "caf"}
        Its kind.
    """

    def __init__(self, source: ByteSource, kind: _Kind) -> None:
        try:
            self._decoder: _native.Decoder | None = _native.Decoder(source, kind)
        except _native.DecodeError as error:
            raise _translated(error) from None
        self.sample_rate, self.channels = self._decoder.sample_rate, self._decoder.channels
        self.frames = self._decoder.frames

    def blocks(self) -> Iterator[Pcm]:
        """Yield all frames; see `Sound`."""
        while self._decoder is not None:
            try:
                block = self._decoder.next_block()
            except _native.DecodeError as error:
                raise _translated(error) from None
            if block is None:
                return
            yield Pcm(*block)

    def close(self) -> None:
        """Close it."""
        self._decoder = None


def _translated(error: _native.DecodeError) -> SoundError | NotForMeError:
    text, code = error.args
    return NotForMeError() if code is None else SoundError(Reason(text, code))


class _MpegSound(NativeSound):
    """MPEG audio. If its frames were found behind other bytes and none can be decoded, it is none."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        try:
            super().__init__(source, "mpeg")
        except (SoundError, NotForMeError) as error:
            raise self._judged(error) from None

    def blocks(self) -> Iterator[Pcm]:
        """Yield all frames; see `Sound`."""
        is_begun = False
        try:
            for pcm in super().blocks():
                is_begun = True
                yield pcm
        except SoundError as error:
            raise error if is_begun else self._judged(error) from None

    def _judged(self, error: SoundError | NotForMeError) -> SoundError | NotForMeError:
        head = self._source.read_at(start_of(self._source), 4)
        return error if head.startswith((b"\xff", b"RIFF")) else SoundError(refusal(self._source))


def open_mpeg(source: ByteSource) -> NativeSound:
    """Open MPEG audio, layers 1 to 3, bare or in RIFF."""
    return _MpegSound(source)


def open_adts(source: ByteSource) -> NativeSound:
    """Open AAC-LC without a container."""
    return NativeSound(source, "adts")


def open_mp4(source: ByteSource) -> NativeSound:
    """Open AAC-LC or ALAC in MP4 or QuickTime."""
    return NativeSound(source, "mp4")


def open_flac(source: ByteSource) -> NativeSound:
    """Open FLAC."""
    return NativeSound(source, "flac")


def open_ogg_flac(source: ByteSource) -> NativeSound:
    """Open FLAC in Ogg; other codecs in Ogg are for other readers."""
    return NativeSound(source, "ogg-flac")


def open_caf(source: ByteSource) -> NativeSound:
    """Open AAC-LC or ALAC in CAF; other codecs in CAF are for other readers."""
    return NativeSound(source, "caf")
