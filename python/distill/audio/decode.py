"""Decoding of audio files to mono float32 at a given sample rate, in blocks, so that long files need no more memory."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from distill import _native
from distill.audio.readers.pcm import PcmSound
from distill.audio.readers.protocol import UNFORESEEN, ByteSource, Pcm, Sound, SoundError
from distill.audio.readers.table import open_sound
from distill.audio.versions import decoder_version
from distill.errors import AudioFileError
from distill.text import printable
from distill.types import PathLike, Reason

logger = logging.getLogger(__name__)

MAX_CHANNELS = 64
MAX_DURATION_S = 48 * 3600
SAMPLE_RATES = (1_000, 768_000)
DECODER_VERSION = decoder_version(soundfile.__libsndfile_version__, soxr.__version__)

# The lowest bit rate of compressed sound, 8 kbit/s, and a usual one, 128 kbit/s: for estimates of lengths.
_LOWEST_BYTES_PER_S, _USUAL_BYTES_PER_S = 1_000, 16_000
# A mix that stays below this, of channels that do not, cancels. The same share of full scale as silence.
_CANCELLED_PEAK = 1e-4


class Block(NamedTuple):
    """Consecutive samples of a file, all finite."""

    samples: np.ndarray
    """[n], float32."""
    low: float
    """The lowest of them."""
    high: float
    """The highest of them."""

    @property
    def peak(self) -> float:
        """Their largest magnitude."""
        return max(self.high, -self.low)


def peak_of(samples: np.ndarray) -> float:
    """Return the largest magnitude in `samples`, which are contiguous, and at least one."""
    low, high = _native.sample_range(samples)
    return max(high, -low)


def decode_blocks(file: PathLike | ByteSource, sample_rate: int | None, *, path: PathLike = "") -> Decoding:
    """Decode a file to mono at `sample_rate`, in blocks.

    Channels are averaged. The result depends only on the file, so that features are reproducible.

    Parameters
    ----------
    file : path or ByteSource
        A file of any kind that one of the readers reads.
    sample_rate : int or None
        Sample rate of the result, Hz; None for that of the file, or of its first part.
    path : path, optional
        The name of a ByteSource, for messages.
    """
    return Decoding(file, sample_rate, path)


class Decoding:
    """The decoding of a file, which begins when it is iterated over. See `decode_blocks`.

    Attributes
    ----------
    sample_rate : int
        That of the result, Hz. If it is the file's, it is known with the first block.
    partial : Reason or None
        Why not all of the file could be decoded, once iteration has ended. What could be was yielded.
    channels : int
        The largest number of channels in the file, once iteration has ended.
    cancels : bool
        Whether the mix of the channels is silent, though a channel is not.

    Yields
    ------
    Block
        Of varying length. Samples are not scaled or clipped, so those of float files may exceed ±1.

    Raises
    ------
    AudioFileError
        If not a single frame can be decoded, or there are NaN or infinity.
    """

    sample_rate: int

    def __init__(self, file: PathLike | ByteSource, sample_rate: int | None, path: PathLike = "") -> None:
        self._file, self._requested_rate = file, sample_rate
        if sample_rate is not None:
            self.sample_rate = sample_rate
        self.path = os.fsdecode(path) if isinstance(file, ByteSource) else os.fsdecode(file)
        self.partial: Reason | None = None
        self.channels = 0
        self._mixed_peak = self._channel_peak = 0.0

    @property
    def cancels(self) -> bool:
        """See the class."""
        return self._mixed_peak < _CANCELLED_PEAK <= self._channel_peak

    def __iter__(self) -> Generator[Block, None, None]:
        self.partial, self.channels = None, 0
        self._mixed_peak = self._channel_peak = 0.0
        with opened_sound(self._file, self.path) as sound:
            if self._requested_rate is None:
                self.sample_rate = sound.sample_rate
            yield from self._resampled(sound)

    def _resampled(self, sound: Sound) -> Iterator[Block]:
        """Yield the samples at the new rate. A part at another rate is resampled on its own."""
        resampler, produced, previous = None, 0, np.empty(0, np.float32)
        for mono, rate, ends in self._mono_blocks(sound):
            if resampler is None and rate != self.sample_rate:
                resampler = soxr.ResampleStream(rate, self.sample_rate, 1, dtype="float32", quality="HQ")
            samples = mono if resampler is None else resampler.resample_chunk(mono, last=ends)
            produced += samples.size
            if ends:
                if produced == 0:
                    samples = mono[:1]  # shorter than one sample at the new rate
                resampler, produced = None, 0
            if samples.size:
                low, high = _native.sample_range(samples)
                # This also finds samples that were not finite before resampling: what comes out of the resampler is
                # then not finite either, in this block or in the next one.
                if not (math.isfinite(low) and math.isfinite(high)):
                    raise AudioFileError(self.path, _not_finite_reason(previous, mono))
                self._mixed_peak = max(self._mixed_peak, high, -low)
                yield Block(samples, low, high)
            previous = mono

    def _mono_blocks(self, sound: Sound) -> Iterator[tuple[np.ndarray, int, bool]]:
        """Yield blocks of mono samples, their rate, and whether a part of the file ends with them."""
        waiting: tuple[np.ndarray, int] | None = None
        for samples, rate in self._good_blocks(sound):
            if waiting is not None:
                yield *waiting, rate != waiting[1]
            with np.errstate(invalid="ignore"):  # samples that are not finite are reported later
                waiting = self._mixed(samples), rate
        if waiting is None:
            raise SoundError(Reason("holds no samples", "no-samples"))
        yield *waiting, True

    def _good_blocks(self, sound: Sound) -> Iterator[Pcm]:
        """Yield all blocks up to the last good frame, and set `partial`. The rule is the same for all kinds of files.

        What counts is how much was decoded: a promise that is exceeded is a wrong header, not a partial file.
        """
        decoded, duration_s = 0, 0.0
        try:
            for pcm in _blocks(sound):
                if not len(pcm.samples):
                    continue
                _check_limits(pcm.samples.shape[1], pcm.sample_rate)
                duration_s += len(pcm.samples) / pcm.sample_rate
                _check_duration(duration_s)
                decoded += len(pcm.samples)
                self.channels = max(self.channels, pcm.samples.shape[1])
                yield pcm
        except SoundError as error:
            if not decoded:
                raise
            self.partial = error.reason
        else:
            if decoded and sound.frames is not None and decoded < sound.frames:
                text = f"cut short: its header promises {sound.frames} frames, {decoded} can be decoded"
                self.partial = Reason(text, "cut-short")

    def _mixed(self, samples: np.ndarray) -> np.ndarray:
        """Return the mean over the channels of [n, channels], float32; finite if and only if all channels are."""
        count = samples.shape[1]
        if count == 1:
            return samples[:, 0]
        samples = np.ascontiguousarray(samples)
        if self._channel_peak < _CANCELLED_PEAK:
            self._channel_peak = peak_of(samples)
        if count == 2:
            return _native.mix_stereo(samples)
        mono: np.ndarray = samples.mean(axis=1, dtype=np.float64).astype(np.float32)
        return mono


@contextmanager
def opened_sound(file: PathLike | ByteSource, path: PathLike = "") -> Iterator[Sound]:
    """Open a file with the reader for its kind.

    Parameters
    ----------
    file : path or ByteSource
    path : path, optional
        The name of a ByteSource, for messages.

    Raises
    ------
    AudioFileError
        If it cannot be opened, or be decoded any further in the body.
    """
    name = os.fsdecode(path) if isinstance(file, ByteSource) else os.fsdecode(file)
    try:
        with _opened(file) as sound:
            yield sound
    except SoundError as error:
        raise AudioFileError(name, error.reason) from error
    except OSError as error:
        raise unreadable(name, error) from error


@contextmanager
def _opened(file: PathLike | ByteSource) -> Iterator[Sound]:
    with ExitStack() as stack:
        if not isinstance(file, ByteSource):
            file = ByteSource(file)
            stack.callback(file.close)
        sound = open_sound(file)
        stack.callback(sound.close)
        _check_limits(sound.channels, sound.sample_rate)
        yield sound


def _blocks(sound: Sound) -> Iterator[Pcm]:
    try:
        yield from sound.blocks()
    except UNFORESEEN as error:
        raise SoundError(Reason("cannot be decoded any further: it is damaged", "damaged")) from error


def _check_limits(channels: int, sample_rate: int) -> None:
    if not 1 <= channels <= MAX_CHANNELS:
        raise SoundError(Reason(f"has {channels} channels, outside 1 to {MAX_CHANNELS}", "out-of-range"))
    low, high = SAMPLE_RATES
    if not low <= sample_rate <= high:
        raise SoundError(Reason(f"has a sample rate of {sample_rate:.9g} Hz, outside {low} to {high}", "out-of-range"))


def _check_duration(duration_s: float) -> None:
    if duration_s > MAX_DURATION_S:
        raise SoundError(Reason(f"is longer than {MAX_DURATION_S // 3600} hours", "out-of-range"))


def unreadable(path: PathLike, error: OSError) -> AudioFileError:
    """Return the error for a file that the system does not read."""
    if isinstance(error, FileNotFoundError):
        words = "no such file"
    elif isinstance(error, IsADirectoryError):
        words = "is a folder"
    else:
        words = f"cannot be read: {str(error.strerror or error).lower()}"
    return AudioFileError(os.fsdecode(path), Reason(words, "unreadable"))


def _not_finite_reason(*decoded: np.ndarray) -> Reason:
    if all(np.isfinite(samples).all() for samples in decoded):
        return Reason("has samples too large to be resampled", "not-finite")
    return Reason("has samples that are NaN or infinite", "not-finite")


def estimated_duration_s(path: PathLike) -> float:
    """Return about how long a file is, seconds, from its header; 0 if it cannot be opened.

    It is bounded by what the bytes of the file can hold: nobody else checks what a header promises.
    """
    try:
        with closing(ByteSource(path)) as source, _opened(source) as sound:
            lowest, usual = _LOWEST_BYTES_PER_S, _USUAL_BYTES_PER_S
            if isinstance(sound, PcmSound):
                lowest = usual = sound.bytes_per_s
            promised = math.inf if sound.frames is None else sound.frames / sound.sample_rate
            return promised if promised <= source.size / lowest else source.size / usual
    except (SoundError, OSError):
        return 0.0


def warn_if_partial(path: PathLike, partial: Reason | None) -> None:
    """Log that only a part of a file is used, and why, if so."""
    if partial is not None:
        logger.warning("%s: used in part: %s", printable(os.fsdecode(path)), partial)
