"""Writing of WAV files: block by block, without clipping, and atomically."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

import numpy as np
import soundfile

from distill.audio.limiter import Limiter
from distill.audio.peaks import Peaks
from distill.storage import replacing, storage_error
from distill.types import WavFormat

_SUBTYPES: dict[WavFormat, tuple[str, int]] = {"pcm16": ("PCM_16", 2), "pcm24": ("PCM_24", 3), "float": ("FLOAT", 4)}
# -1 dBFS for integers, because a waveform rises above its samples in between, less the step that rounding may add.
# Float files can hold more than 1, but players clip it.
_CEILING = {"pcm16": 10 ** (-1 / 20) - 2**-15, "pcm24": 10 ** (-1 / 20) - 2**-23, "float": 1.0}
# Sizes in a WAV file have 32 bits; RF64 is the same format with 64 bits.
_LARGEST_WAV = 0xFFFF_0000
_BLOCK_BYTES = 1 << 20


_TIP = "make room there, or choose another --out"


class Written(NamedTuple):
    """What was written to a file."""

    samples: int
    peak: float
    """Largest magnitude in the file."""
    gain: float
    """The factor that all samples were multiplied by before the limiter; at most 1."""
    limited: float
    """Share of the samples that the limiter turned down."""
    limited_db: float
    """Greatest reduction by the limiter, dB; 0 if there was none."""


def write_wav(path: Path, blocks: Iterable[np.ndarray], sample_rate: int, wav_format: WavFormat) -> Written:
    """Write a mono WAV file, or replace it.

    Nothing clips: peaks above -1 dBFS (0 dBFS for "float") are limited. If they are very high, or many, the whole sound
    is made quieter first, see `Peaks.gain`. Equal samples give equal bytes, whatever the length of the blocks.

    Parameters
    ----------
    path : Path
        The file; its folder must exist.
    blocks : iterable of ndarray [n], float32
        The samples, all finite. They are kept in a temporary file until the peak is known, so that memory does not
        grow with their number.
    sample_rate : int
        Hz.
    wav_format : {"pcm16", "pcm24", "float"}
        Sample format.

    Returns
    -------
    Written

    Raises
    ------
    StorageError
        If it cannot be written. The old file is then still in place, as it is after an exception from `blocks`.
    """
    try:
        with tempfile.TemporaryFile(dir=path.parent) as samples, replacing(path) as file:
            peaks = _store(samples, blocks)
            ceiling = _CEILING[wav_format]
            gain = peaks.gain(ceiling)
            limiter = Limiter(ceiling, sample_rate)
            peak = _encode(file, limiter.process(_scaled(samples, gain)), peaks.samples, sample_rate, wav_format)
    except OSError as error:
        raise storage_error(path, error, _TIP, tip_if_full=_TIP) from error
    except soundfile.LibsndfileError as error:
        raise storage_error(path, OSError(str(error)), _TIP) from error
    return Written(peaks.samples, peak, gain, limiter.share, limiter.reduction_db)


def _store(file: IO[bytes], blocks: Iterable[np.ndarray]) -> Peaks:
    """Write blocks to a file as raw float32; return their peaks."""
    peaks = Peaks()
    for block in blocks:
        peaks.add(block)
        file.write(np.ascontiguousarray(block, np.float32).data)
    return peaks


def _scaled(samples: IO[bytes], gain: float) -> Iterator[np.ndarray]:
    samples.seek(0)
    while block := samples.read(_BLOCK_BYTES):
        yield np.frombuffer(block, np.float32) * np.float32(gain)


def _encode(file: BinaryIO, blocks: Iterable[np.ndarray], count: int, sample_rate: int, wav_format: WavFormat) -> float:
    """Write `count` samples; return the largest magnitude."""
    subtype, width = _SUBTYPES[wav_format]
    kind = "WAV" if count * width < _LARGEST_WAV else "RF64"
    peak = 0.0
    with soundfile.SoundFile(file.fileno(), "w", sample_rate, 1, subtype, format=kind, closefd=False) as sound:
        for block in blocks:
            peak = max(peak, float(np.abs(block).max(initial=0.0)))
            sound.write(block)
    file.seek(0)
    _clear_timestamp(file)
    return peak


def _clear_timestamp(file: IO[bytes]) -> None:
    """Set the time of writing to zero, which libsndfile stores in the PEAK chunk of float files."""
    start = file.read(256)
    place = start.find(b"PEAK", 12)
    if 0 <= place < start.find(b"data", 12):
        file.seek(place + 12)
        file.write(bytes(4))
