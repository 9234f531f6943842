"""Writing of WAV files: block by block, without clipping, and atomically."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

import numpy as np
import soundfile

from distill.storage import replacing, storage_error
from distill.types import WavFormat

_SUBTYPES: dict[WavFormat, tuple[str, int]] = {"pcm16": ("PCM_16", 2), "pcm24": ("PCM_24", 3), "float": ("FLOAT", 4)}
# -1 dBFS for integers, because a waveform rises above its samples in between. Float files can hold more than 1, but
# players clip it.
_CEILING = {"pcm16": 10 ** (-1 / 20), "pcm24": 10 ** (-1 / 20), "float": 1.0}
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
    """The factor that the samples were multiplied by; at most 1."""


def write_wav(path: Path, blocks: Iterable[np.ndarray], sample_rate: int, wav_format: WavFormat) -> Written:
    """Write a mono WAV file, or replace it.

    If the peak is above -1 dBFS (0 dBFS for "float"), the whole sound is scaled down to that, so that nothing clips.
    Equal samples give equal bytes.

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
    return write_set([path], [blocks], sample_rate, wav_format)[0]


def write_set(
    paths: Sequence[Path], sounds: Iterable[Iterable[np.ndarray]], sample_rate: int, wav_format: WavFormat
) -> list[Written]:
    """Write the sounds of a set, each as `write_wav` does, with one gain for all: that of the loudest.

    Their levels then compare as those of `sounds` do. No file is written before the last sound is complete.

    Parameters
    ----------
    paths : sequence of Path
        The files, all in one folder, which must exist.
    sounds : iterable of iterable of ndarray [n], float32
        The samples of each file.
    sample_rate, wav_format
        As for `write_wav`.

    Returns
    -------
    list of Written

    Raises
    ------
    StorageError
        If a file cannot be written. The old files that have not been replaced are then still in place.
    """
    path = paths[0]
    try:
        with tempfile.TemporaryFile(dir=path.parent) as samples:
            stored = [_store(samples, blocks) for blocks in sounds]
            samples.seek(0)
            ceiling = _CEILING[wav_format]
            gain = ceiling / max(ceiling, *(peak for _, peak in stored))
            for path, (count, _) in zip(paths, stored, strict=True):
                with replacing(path) as file:
                    _encode(file, samples, count, np.float32(gain), sample_rate, wav_format)
    except OSError as error:
        raise storage_error(path, error, _TIP, tip_if_full=_TIP) from error
    except soundfile.LibsndfileError as error:
        raise storage_error(path, OSError(str(error)), _TIP) from error
    return [Written(count, gain * peak, gain) for count, peak in stored]


def _store(file: IO[bytes], blocks: Iterable[np.ndarray]) -> tuple[int, float]:
    """Append blocks to a file as raw float32; return the number of samples and their peak."""
    count, peak = 0, 0.0
    for block in blocks:
        count += block.size
        peak = max(peak, float(np.abs(block).max(initial=0.0)))
        file.write(np.ascontiguousarray(block, np.float32).data)
    return count, peak


def _encode(
    file: BinaryIO, samples: IO[bytes], count: int, gain: np.float32, sample_rate: int, wav_format: WavFormat
) -> None:
    subtype, width = _SUBTYPES[wav_format]
    kind = "WAV" if count * width < _LARGEST_WAV else "RF64"
    left = count * np.dtype(np.float32).itemsize
    with soundfile.SoundFile(file.fileno(), "w", sample_rate, 1, subtype, format=kind, closefd=False) as sound:
        while block := samples.read(min(left, _BLOCK_BYTES)):
            sound.write(np.frombuffer(block, np.float32) * gain)
            left -= len(block)
    file.seek(0)
    _clear_timestamp(file)


def _clear_timestamp(file: IO[bytes]) -> None:
    """Set the time of writing to zero, which libsndfile stores in the PEAK chunk of float files."""
    start = file.read(256)
    place = start.find(b"PEAK", 12)
    if 0 <= place < start.find(b"data", 12):
        file.seek(place + 12)
        file.write(bytes(4))
