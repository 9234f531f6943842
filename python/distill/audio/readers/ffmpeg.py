"""Reads with FFmpeg what no other reader is for, if PyAV is installed: the extra `distill[ffmpeg]`."""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from distill.audio.readers.kinds import NAMES
from distill.audio.readers.libsndfile import SourceStream
from distill.audio.readers.pcm import is_placeholder
from distill.audio.readers.protocol import (
    BLOCK_FRAMES,
    NEEDS_FFMPEG,
    Opener,
    PartOpener,
    Pcm,
    Readable,
    Sound,
    SoundError,
    needs_ffmpeg,
)
from distill.availability import is_used_up
from distill.extensions import ffmpeg_remedy, has_ffmpeg
from distill.types import Reason

if TYPE_CHECKING:
    import av

FFMPEG_KINDS = {
    "wavpack": "wv",
    "tta": "tta",
    "ape": "ape",
    "tak": "tak",
    "shorten": "shn",
    "musepack": "mpc,mpc8",
    "asf": "asf,asf_o",
    "real": "rm",
    "ac3": "ac3,eac3",
    "dts": "dts,dtshd",
    "dsf": "dsf,iff",
    "amr": "amr",
    "aac": "aac",
    "latm": "loas",
    "mp4": "mov,mp4,m4a,3gp,3g2,mj2",
    "caf": "caf",
    "matroska": "matroska,webm",
    "avi": "avi",
    "flv": "flv",
    "mpegps": "mpeg",
    "mpegts": "mpegts",
    "wav": "wav",
    "w64": "w64",
    "aiff": "aiff",
    "au": "au",
    "voc": "voc",
    "svx": "iff",
    "ogg": "ogg",
    "mlp": "mlp",
    "truehd": "truehd",
    "mxf": "mxf",
    "dv": "dv",
    "oma": "oma",
    "xwma": "xwma",
    "qoa": "qoa",
    "dss": "dss",
    "vqf": "vqf",
    "nut": "nut",
    "sox": "sox",
    "hcom": "hcom",
    "wve": "wve",
    "maud": "iff",
}
"""The kinds that FFmpeg reads, and what it may take them for. Others might open further files, as playlists do."""

# Their headers say exactly how many frames there are.
_COUNTED = ("wavpack", "tta", "ape")
_SOME_MEMORY = 16 << 20
_DAMAGED = Reason("a packet is damaged or cut", "damaged")
_SCALES = {"u8": 2.0**-7, "s16": 2.0**-15, "s32": 2.0**-31, "s64": 2.0**-63}
_HEAD_BYTES = 1 << 16
# The header object of ASF that holds the size of the file, which streams lack.
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# In the metadata of Flash video: a name with its length, and the type of the value, a double.
_FLV_SIZE = b"\x00\x08filesize\x00"
# Programs that write AVI are not exact about the size in its header.
_CONTAINER_SLACK = 64

_Source = TypeVar("_Source", bound=Readable)


def with_ffmpeg(kind: str) -> Opener:
    """Return the opener of one of `FFMPEG_KINDS`."""
    return functools.partial(FfmpegSound, kind=kind)


def or_with_ffmpeg(opener: Callable[[_Source], Sound], kind: str) -> Callable[[_Source], Sound]:
    """Return an opener that leaves to FFmpeg the files for which `opener` says that they need it."""

    def open_either(source: _Source) -> Sound:
        try:
            return _EitherSound(opener(source), source, kind)
        except SoundError as error:
            if error.reason.code != NEEDS_FFMPEG or not has_ffmpeg():
                raise
        return FfmpegSound(source, kind=kind)

    return open_either


def variant_with_ffmpeg(opener: PartOpener, kind: str) -> PartOpener:
    """Return an opener that leaves to FFmpeg the files that `opener` does not know."""

    def open_variant(source: Readable) -> Sound:
        try:
            return opener(source)
        except SoundError as error:
            if error.reason.code not in (NEEDS_FFMPEG, "not-decodable"):
                raise
            if not has_ffmpeg():
                text = f"is damaged, or a variant of {NAMES[kind]} that is read with FFmpeg: {ffmpeg_remedy()}"
                raise SoundError(Reason(text, NEEDS_FFMPEG)) from error
        return FfmpegSound(source, kind=kind)

    return open_variant


class _EitherSound:
    """A file whose reader may find only in the first packet that FFmpeg is needed."""

    def __init__(self, sound: Sound, source: Readable, kind: str) -> None:
        self._sound, self._source, self._ffmpeg_kind = sound, source, kind
        self.sample_rate, self.channels = sound.sample_rate, sound.channels

    @property
    def frames(self) -> int | None:
        return self._sound.frames

    def blocks(self) -> Iterator[Pcm]:
        given = 0
        try:
            for pcm in self._sound.blocks():
                given += len(pcm.samples)
                yield pcm
        except SoundError as error:
            if error.reason.code != NEEDS_FFMPEG or not has_ffmpeg():
                raise
        else:
            return
        self._sound.close()
        self._sound = FfmpegSound(self._source, kind=self._ffmpeg_kind)
        yield from _behind(self._sound, given)

    def close(self) -> None:
        self._sound.close()


def _behind(sound: Sound, given: int) -> Iterator[Pcm]:
    """Yield the blocks of a sound without the first frames, which were given already."""
    for samples, rate in sound.blocks():
        left_out = min(given, len(samples))
        given -= left_out
        if left_out < len(samples):
            yield Pcm(samples[left_out:], rate)


class FfmpegSound:
    """A file opened by FFmpeg, of which the first track of sound is read.

    Parameters
    ----------
    source : Readable
        Its bytes.
    kind : str
        One of `FFMPEG_KINDS`.
    """

    def __init__(self, source: Readable, *, kind: str) -> None:
        name = NAMES[kind]
        if not has_ffmpeg():
            raise needs_ffmpeg(f"is {name}")
        self._missing = _missing_bytes(source)
        self._stream = SourceStream(source)
        self._container = _container(self._stream, FFMPEG_KINDS[kind], name)
        tracks = self._container.streams.audio
        if not tracks or tracks[0].codec_context is None:
            self.close()
            if tracks:
                text = f"is {name} with a codec that FFmpeg does not know"
                raise SoundError(Reason(text, "not-decodable"))
            raise SoundError(Reason(f"is {name} without sound", "no-samples"))
        self._track = tracks[0]
        self._track.codec_context.thread_count = 1  # files are decoded in threads already
        self.sample_rate, self.channels = self._track.codec_context.sample_rate, self._track.codec_context.channels
        if not self.sample_rate or not self.channels:
            self.close()
            raise _unknown(name)
        self.frames: int | None = None
        time_base = self._track.time_base
        if kind in _COUNTED and self._track.duration and time_base and time_base * self.sample_rate == 1:
            self.frames = self._track.duration

    def blocks(self) -> Iterator[Pcm]:
        """Yield all frames; see `Sound`."""
        waiting: list[np.ndarray] = []
        rate, total, reason = self.sample_rate, 0, None
        for decoded in self._decoded():
            if isinstance(decoded, Reason):
                reason = decoded
                break
            if waiting and (decoded.sample_rate != rate or decoded.samples.shape[1] != waiting[0].shape[1]):
                yield from _blocks(waiting, rate)
                waiting = []
            rate = decoded.sample_rate
            waiting.append(decoded.samples)
            total += len(decoded.samples)
            if sum(map(len, waiting)) >= BLOCK_FRAMES // 2:
                yield from _blocks(waiting, rate)
                waiting = []
        if waiting:
            yield from _blocks(waiting, rate)
        if reason is not None:
            words = f"decoding fails after {total} frames" if total else "cannot be decoded"
            raise SoundError(Reason(f"{words}: {reason}", reason.code))
        if self._missing is not None:
            raise SoundError(self._missing)

    def _decoded(self) -> Iterator[Pcm | Reason]:
        """Yield what each packet gives, and last why there is no more, unless the file ends."""
        import av  # noqa: PLC0415 - an extra; it is there, or nothing had been opened

        try:
            for packet in self._container.demux(self._track):
                self._stream.check()
                if packet.is_corrupt:
                    yield _DAMAGED
                    return
                for frame in packet.decode():
                    if frame.is_corrupt:  # what is missing is made up
                        yield _DAMAGED
                        return
                    if frame.samples:
                        yield Pcm(_samples(frame), frame.sample_rate)
        except (av.error.FFmpegError, IndexError) as error:  # the latter for a packet of a track that began late
            self._stream.check()
            _check_used_up(error)
            yield _DAMAGED
        self._stream.check()

    def close(self) -> None:
        """Close it."""
        self._container.close()


def _container(stream: SourceStream, demuxers: str, name: str) -> av.container.InputContainer:
    import av  # noqa: PLC0415 - an extra; checked by the caller

    # Tags in other encodings are not needed. Later versions do not refuse them anyway.
    lenient: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
    options = {"format_whitelist": demuxers, "skip_estimate_duration_from_pts": "1"}
    try:
        # Of a short file FFmpeg does not recognise each kind.
        known = None if "," in demuxers else demuxers
        container: av.container.InputContainer = av.open(stream, mode="r", format=known, options=options, **lenient)
    except (av.error.FFmpegError, ValueError) as error:
        stream.check()
        _check_used_up(error)
        raise _unknown(name) from error
    return container


def _unknown(name: str) -> SoundError:
    text = f"is {name} with a damaged header, or of a variant that FFmpeg does not know"
    return SoundError(Reason(text, "not-decodable"))


def _check_used_up(error: Exception) -> None:
    """Raise an error that is not about the file. FFmpeg itself calls data that ends too early an EIO, or asks again."""
    if isinstance(error, MemoryError):
        bytearray(_SOME_MEMORY)  # raises MemoryError, too, unless it is the file that asks for far more than it needs
    elif isinstance(error, OSError) and is_used_up(error) and not isinstance(error, BlockingIOError):
        raise error


def _samples(frame: av.AudioFrame) -> np.ndarray:
    """Return the samples of a frame as [n, channels], float32."""
    kind = frame.format.name.removesuffix("p")
    samples: np.ndarray = frame.to_ndarray()
    # [channels, n], or [1, n * channels]
    samples = samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1)
    if kind in _SCALES:
        centred: np.ndarray = samples.astype(np.float32 if kind != "s32" and kind != "s64" else np.float64)
        samples = (centred - 128 if kind == "u8" else centred) * _SCALES[kind]
    return np.ascontiguousarray(samples, np.float32)


def _blocks(waiting: list[np.ndarray], rate: int) -> Iterator[Pcm]:
    samples = np.concatenate(waiting)
    for start in range(0, len(samples), BLOCK_FRAMES):
        yield Pcm(samples[start : start + BLOCK_FRAMES], rate)


def _missing_bytes(source: Readable) -> Reason | None:
    """Return by how much a file is shorter than its header promises. FFmpeg takes that for its end."""
    promised = _promised_bytes(source.read_at(0, _HEAD_BYTES))
    if promised is None or promised <= source.size + _CONTAINER_SLACK:
        return None
    text = f"cut short: its header promises {promised} bytes, the file holds {source.size}"
    return Reason(text, "cut-short")


def _promised_bytes(head: bytes) -> int | None:
    if head.startswith(b"RIFF"):
        size = int.from_bytes(head[4:8], "little")
        return size + 8 if size > 0 and not is_placeholder(size) else None
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _promised_by_matroska(head)
    if head.startswith(b"FLV"):
        name = head.find(_FLV_SIZE)
        stated = struct.unpack_from(">d", head + bytes(8), name + len(_FLV_SIZE))[0] if name >= 0 else math.nan
        return int(stated) if math.isfinite(stated) else None
    properties = head.find(_ASF_PROPERTIES)
    if head.startswith(b"\x30\x26\xb2\x75") and 0 <= properties <= len(head) - 96:
        size, flags = struct.unpack_from("<Q40xI", head, properties + 40)
        return size if not flags & 1 else None
    return None


def _promised_by_matroska(head: bytes) -> int | None:
    """Return where the second element ends, which holds all but the header."""
    start, size = _element(head, 4)
    if size is None or head[start + size : start + size + 4] != b"\x18\x53\x80\x67":
        return None
    start, size = _element(head, start + size + 4)
    return None if size is None else start + size


def _element(head: bytes, place: int) -> tuple[int, int | None]:
    """Return where the content of a Matroska element starts, and its size, None if it is not known."""
    length = 9 - head[place].bit_length() if place < len(head) and head[place] else 0
    size = int.from_bytes(head[place : place + length], "big") & ((1 << 7 * length) - 1)
    return place + length, None if length == 0 or size == (1 << 7 * length) - 1 else size
