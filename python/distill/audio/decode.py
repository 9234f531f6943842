"""Decoding of audio files to mono float32 at a given sample rate, in blocks, so that long files need no more memory."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
import torch

from distill.errors import AudioFileError
from distill.types import Reason

BLOCK_FRAMES = 1 << 17
_RESAMPLED_FRAMES = 1 << 14
MAX_CHANNELS = 64
MAX_DURATION_S = 48 * 3600
SAMPLE_RATES = (1_000, 768_000)
DECODER_VERSION = f"libsndfile {soundfile.__libsndfile_version__}, soxr {soxr.__version__}"

# libsndfile reads a truncated file without an error, and only its log mentions it. The sizes of the data chunk are
# compared exactly, that of the container with a tolerance: many programs write a RIFF size that is a few bytes off.
_CUT = re.compile(r"^\s*(data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_CONTAINER_SLACK = 64
_LENGTH_UNKNOWN = 1 << 62
# The code with which libsndfile says that the system could not read the file.
_SYSTEM_ERROR = 2
# Programs that stream to a file write a size near the limit, because they do not know it yet.
_SIZE_UNKNOWN = 0x7FFF_FFFF - 0xFFFF


def open_audio(path: str | os.PathLike[str]) -> soundfile.SoundFile:
    """Open an audio file and check its header.

    Raises
    ------
    AudioFileError
        If it cannot be opened, is truncated, or exceeds the limits on channels, sample rate and length.
    """
    try:
        # As bytes, because a file name need not be valid UTF-8.
        sound = soundfile.SoundFile(os.fsencode(path))
    except soundfile.LibsndfileError as error:
        raise AudioFileError(os.fspath(path), Reason(f"cannot be decoded: {_reason(error)}", _code(error))) from error
    except OSError as error:
        raise AudioFileError(
            os.fspath(path), Reason(f"cannot be read: {error.strerror or error}", "unreadable")
        ) from error
    reason = _header_fault(sound)
    if reason:
        _close(sound)
        raise AudioFileError(os.fspath(path), reason)
    return sound


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[soundfile.SoundFile]:
    sound = open_audio(path)
    try:
        yield sound
    finally:
        _close(sound)


def _close(sound: soundfile.SoundFile) -> None:
    # On a disk that went away closing fails, too. What was read is complete, or its error is already on its way out.
    with suppress(soundfile.LibsndfileError):
        sound.close()


def _reason(error: soundfile.LibsndfileError) -> str:
    return error.error_string.strip().rstrip(".") or f"the decoder gave up (libsndfile error {error.code})"


def _code(error: soundfile.LibsndfileError) -> str:
    return "unreadable" if error.code == _SYSTEM_ERROR else "not-decodable"


def _header_fault(sound: soundfile.SoundFile) -> Reason | None:
    for kind, promised, actual in _CUT.findall(sound.extra_info):
        slack = _CONTAINER_SLACK if kind.lower().startswith("riff") else 0
        if int(actual) + slack < int(promised) < _SIZE_UNKNOWN:
            text = f"cut short: its header promises {promised} bytes of samples, the file holds {actual}"
            return Reason(text, "cut-short")
    if sound.frames == 0:
        return Reason("holds no samples", "no-samples")
    if sound.frames >= _LENGTH_UNKNOWN:
        text = "does not say how long it is, as a stream that was never finished: encode it again"
        return Reason(text, "length-unknown")
    if sound.channels > MAX_CHANNELS:
        return Reason(f"has {sound.channels} channels, more than {MAX_CHANNELS}", "out-of-range")
    low, high = SAMPLE_RATES
    if not low <= sound.samplerate <= high:
        return Reason(f"has a sample rate of {sound.samplerate} Hz, outside {low} to {high}", "out-of-range")
    if sound.frames / sound.samplerate > MAX_DURATION_S:
        return Reason(f"is longer than {MAX_DURATION_S // 3600} hours", "out-of-range")
    return None


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
    """Return the largest magnitude in `samples`, which is not empty."""
    return float(max(samples.max(), -samples.min()))


def decode_blocks(path: str | os.PathLike[str], sample_rate: int) -> Iterator[Block]:
    """Decode a file to mono at `sample_rate`, in blocks.

    Channels are averaged. The result depends only on the file, so that features are reproducible.

    Parameters
    ----------
    path : path
        A file in any format that libsndfile reads.
    sample_rate : int
        Sample rate of the result, Hz.

    Yields
    ------
    Block
        Of varying length. Samples are not scaled or clipped, so those of float files may exceed ±1.

    Raises
    ------
    AudioFileError
        If decoding fails, gives fewer frames than the header promises, or gives NaN or infinity.
    """
    with _opened(path) as sound:
        resampler = None
        if sound.samplerate != sample_rate:
            resampler = soxr.ResampleStream(sound.samplerate, sample_rate, 1, dtype="float32", quality="HQ")
        produced, previous = 0, np.empty(0, np.float32)
        for mono, last in _mono_blocks(sound, os.fspath(path)):
            block = mono if resampler is None else _resampled(resampler, mono, last=last)
            produced += block.size
            if last and produced == 0:
                block = mono[:1]  # shorter than one sample at the new rate
            if block.size:
                low, high = float(block.min()), float(block.max())
                # This also finds samples that were not finite before resampling: what comes out of the resampler is
                # then not finite either, in this block or in the next one.
                if not (math.isfinite(low) and math.isfinite(high)):
                    raise AudioFileError(os.fspath(path), _not_finite_reason(previous, mono))
                yield Block(block, low, high)
            previous = mono


def _resampled(resampler: soxr.ResampleStream, mono: np.ndarray, *, last: bool) -> np.ndarray:
    # In pieces that fit into the CPU's cache, which is faster. The result is the same to the bit.
    starts = range(0, mono.size, _RESAMPLED_FRAMES)
    pieces = [
        resampler.resample_chunk(mono[start : start + _RESAMPLED_FRAMES], last=last and start == starts[-1])
        for start in starts
    ]
    return np.concatenate(pieces)


def _not_finite_reason(*decoded: np.ndarray) -> Reason:
    if all(np.isfinite(samples).all() for samples in decoded):
        return Reason("has samples too large to be resampled", "not-finite")
    return Reason("has samples that are NaN or infinite", "not-finite")


def _mono_blocks(sound: soundfile.SoundFile, path: str) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield blocks of mono samples at the file's own rate, and whether each is the last one."""
    read = 0
    while read < sound.frames:
        try:
            block = sound.read(min(BLOCK_FRAMES, sound.frames - read), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioFileError(
                path, Reason(f"decoding fails after {read} frames: {_reason(error)}", _code(error))
            ) from error
        if len(block) == 0:
            text = f"cut short: its header promises {sound.frames} frames, decoding gives {read}"
            raise AudioFileError(path, Reason(text, "cut-short"))
        read += len(block)
        with np.errstate(invalid="ignore"):  # samples that are not finite are reported later
            mono = _mono(block)
        yield mono, read >= sound.frames


def _mono(block: np.ndarray) -> np.ndarray:
    """Return the mean over the channels of [n, channels], float32; finite if and only if all channels are."""
    if block.shape[1] == 1:
        return block[:, 0]
    if block.shape[1] == 2:
        # Halved before they are added, because the sum of two floats near the limit overflows. Halving is exact.
        block *= np.float32(0.5)
        return block[:, 0] + block[:, 1]
    return block.mean(axis=1, dtype=np.float64).astype(np.float32)


def duration_s(path: str | os.PathLike[str]) -> float:
    """Return the length that the header promises, seconds; 0 if the file cannot be opened."""
    try:
        with _opened(path) as sound:
            return float(sound.frames / sound.samplerate)
    except AudioFileError:
        return 0.0


def load_audio(path: str | os.PathLike[str], sample_rate: int = 48_000) -> torch.Tensor:
    """Load a whole file as a mono waveform.

    Parameters
    ----------
    path : path
        A file in any format that libsndfile reads: WAV, FLAC, OGG, Opus, MP3, AIFF, CAF, W64, RF64, AU.
    sample_rate : int
        Sample rate of the result, Hz; files of other rates are resampled. Default: 48000.

    Returns
    -------
    Tensor of shape [1, S], float32
        The mean of the channels, not normalised.

    Raises
    ------
    AudioFileError
        If the file cannot be used; the message gives the reason.
    """
    blocks = [block.samples for block in decode_blocks(path, sample_rate)]
    return torch.from_numpy(np.concatenate(blocks))[None]
