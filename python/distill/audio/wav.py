"""Sound to a WAV file: a block at a time, never clipped, and there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import soundfile

from distill.errors import StorageError
from distill.types import WavFormat

_SUBTYPES: dict[WavFormat, tuple[str, int]] = {"pcm16": ("PCM_16", 2), "pcm24": ("PCM_24", 3), "float": ("FLOAT", 4)}
# -1 dBFS: between samples, a sound rises above the loudest of them. Floats do not clip, but what plays them does.
_CEILING = {"pcm16": 10 ** (-1 / 20), "pcm24": 10 ** (-1 / 20), "float": 1.0}
# A size in a WAV file has 32 bits; RF64 is the same with 64.
_LARGEST_WAV = 0xFFFF_0000
_BLOCK_BYTES = 1 << 20


class Written(NamedTuple):
    """What a file was given."""

    samples: int
    peak: float
    """Largest magnitude in the file."""
    gain: float
    """What the sound was multiplied by."""


def write_wav(path: Path, blocks: Iterable[np.ndarray], sample_rate: int, wav_format: WavFormat) -> Written:
    """Write a mono WAV file, replacing what is there.

    Nothing clips: a sound that would rise above -1 dBFS (0 dBFS in floats) is made quieter as a whole. The same samples
    give the same bytes.

    Parameters
    ----------
    path : Path
        The file; its folder must exist.
    blocks : iterable of ndarray [n], float32
        The samples, all finite. They are kept in a file without a name until the loudest is known, so that memory does
        not grow with the sound.
    sample_rate : int
        Hz.
    wav_format : {"pcm16", "pcm24", "float"}
        How a sample is kept.

    Returns
    -------
    Written

    Raises
    ------
    StorageError
        If it cannot be written; an old file is then still in place. What `blocks` raises leaves no file either.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with tempfile.TemporaryFile(dir=path.parent) as samples:
            count, loudest = _keep(samples, blocks)
            ceiling = _CEILING[wav_format]
            gain = ceiling / max(loudest, ceiling)
            _encode(partial, samples, count, np.float32(gain), sample_rate, wav_format)
        partial.replace(path)
    except (OSError, soundfile.LibsndfileError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        tip = "make room there, or choose another --out"
        raise StorageError(f"{path}: cannot be written: {reason or error}", tip) from error
    finally:
        partial.unlink(missing_ok=True)
    return Written(count, gain * loudest, gain)


def _keep(file: IO[bytes], blocks: Iterable[np.ndarray]) -> tuple[int, float]:
    """Number of samples, and the largest magnitude."""
    count, loudest = 0, 0.0
    for block in blocks:
        count += block.size
        loudest = max(loudest, float(np.abs(block).max(initial=0.0)))
        file.write(np.ascontiguousarray(block, np.float32).data)
    return count, loudest


def _encode(
    path: Path, samples: IO[bytes], count: int, gain: np.float32, sample_rate: int, wav_format: WavFormat
) -> None:
    subtype, width = _SUBTYPES[wav_format]
    kind = "WAV" if count * width < _LARGEST_WAV else "RF64"
    # As bytes, because a name need not be valid UTF-8.
    with soundfile.SoundFile(os.fsencode(path), "w", sample_rate, 1, subtype, format=kind) as sound:
        for block in _blocks(samples):
            sound.write(block * gain)
    with path.open("r+b") as file:
        _forget_the_time(file)
        os.fsync(file.fileno())


def _blocks(samples: IO[bytes]) -> Iterator[np.ndarray]:
    samples.seek(0)
    while block := samples.read(_BLOCK_BYTES):
        yield np.frombuffer(block, np.float32)


def _forget_the_time(file: IO[bytes]) -> None:
    """Zero the time of writing, which libsndfile puts beside the peak of floats."""
    start = file.read(256)
    place = start.find(b"PEAK", 12)
    if 0 <= place < start.find(b"data", 12):
        file.seek(place + 12)
        file.write(bytes(4))
