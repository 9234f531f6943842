"""Writing of sound files: block by block, without clipping, and atomically."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr

from distill.audio.limiter import Limiter
from distill.audio.ogg_serial import fix_serial_number
from distill.audio.peaks import Peaks
from distill.audio.sound_format import SoundFormat
from distill.storage import replacing, storage_error
from distill.types import SampleFormat

_SUBTYPES: dict[SampleFormat, tuple[str, int]] = {
    "pcm16": ("PCM_16", 2),
    "pcm24": ("PCM_24", 3),
    "float": ("FLOAT", 4),
}
# -1 dBFS, because a waveform rises above its samples in between.
_HEADROOM = 10 ** (-1 / 20)
# Of 16-bit samples.
_STEP = 2**-15
# Of Vorbis, quality 8 of 10; of MP3, the highest quality with a variable rate.
_LOSSY: dict[str, dict[str, Any]] = {
    "ogg": {"format": "OGG", "subtype": "VORBIS", "compression_level": 0.2},
    "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III", "compression_level": 0.0, "bitrate_mode": "VARIABLE"},
}
# What is decoded from a lossy file may be louder than what was encoded; then it is encoded again, this much quieter.
_LOSSY_PEAK = 0.99
_LOSSY_TRIES = 5
# Sizes in a WAV file have 32 bits; RF64 is the same format with 64 bits.
_LARGEST_WAV = 0xFFFF_0000
_BLOCK_BYTES = 1 << 18


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


def write_sound(
    path: Path,
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    sound_format: SoundFormat | None = None,
    *,
    keeps_level: bool = False,
) -> Written:
    """Write a mono sound file, or replace it.

    Nothing clips: peaks above -1 dBFS (0 dBFS for "float") are limited. If they are very high, or many, the whole sound
    is made quieter first, see `Peaks.gain`; and so it is if it would clip once it is decoded from a lossy format. Equal
    samples give equal bytes, whatever the length of the blocks.

    Parameters
    ----------
    path : Path
        The file; its folder must exist.
    blocks : iterable of ndarray [n], float32
        The samples, all finite. They are kept in a temporary file until the peak is known, so that memory does not
        grow with their number.
    sample_rate : int
        Sample rate of the blocks, Hz.
    sound_format : SoundFormat, optional
        The form of the file. Default: 24-bit WAV at `sample_rate`.
    keeps_level : bool
        Limit only what is above 0 dBFS, for recordings, which often have their peak there. Default: False.

    Returns
    -------
    Written

    Raises
    ------
    StorageError
        If it cannot be written. The old file is then still in place, as it is after an exception from `blocks`.
    """
    return write_sounds([path], [blocks], sample_rate, sound_format, keeps_level=keeps_level)[0]


def write_sounds(
    paths: Sequence[Path],
    sounds: Iterable[Iterable[np.ndarray]],
    sample_rate: int,
    sound_format: SoundFormat | None = None,
    *,
    keeps_level: bool = False,
) -> list[Written]:
    """Write the sounds of a set, each as `write_sound` does, with one gain for all: that of the one which needs most.

    Their levels then compare as those of `sounds` do. No file is written before the last sound is complete.

    Parameters
    ----------
    paths : sequence of Path
        The files, at least one, all in one folder, which must exist.
    sounds : iterable of iterable of ndarray [n], float32
        The samples of each file.
    sample_rate, sound_format, keeps_level
        As for `write_sound`.

    Returns
    -------
    list of Written

    Raises
    ------
    StorageError
        If a file cannot be written. The old files that have not been replaced are then still in place.
    """
    sound_format = sound_format or SoundFormat()
    rate = sound_format.sample_rate or sample_rate
    ceiling = _ceiling(sound_format, keeps_level=keeps_level)
    path = paths[0]
    try:
        with tempfile.TemporaryFile(dir=path.parent) as samples:
            stored = [_store(samples, _resampled(blocks, sample_rate, rate)) for blocks in sounds]
            gain = min(peaks.gain(ceiling) for peaks in stored)
            for _ in range(_LOSSY_TRIES):
                samples.seek(0)
                written = []
                for path, peaks in zip(paths, stored, strict=True):
                    with replacing(path) as file:
                        limiter = Limiter(ceiling, rate)
                        blocks = limiter.process(_scaled(samples, peaks.samples, gain))
                        peak = _write(file, blocks, peaks.samples, rate, sound_format)
                        written.append(_written(peaks, peak, gain, limiter))
                highest = max(sound.peak for sound in written)
                if highest <= 1.0:
                    break
                ceiling, gain = ceiling * _LOSSY_PEAK / highest, gain * _LOSSY_PEAK / highest
    except OSError as error:
        raise storage_error(path, error, _TIP, tip_if_full=_TIP) from error
    except soundfile.LibsndfileError as error:
        raise storage_error(path, OSError(str(error)), _TIP) from error
    return written


def levelled(
    samples: np.ndarray, sample_rate: int, sound_format: SoundFormat | None = None
) -> tuple[np.ndarray, Written]:
    """Return what `write_sound` writes, in memory: what is heard is then what is saved.

    Parameters
    ----------
    samples : ndarray [S], float32
        A sound, S at least 1.
    sample_rate, sound_format
        As for `write_sound`.

    Returns
    -------
    levelled : ndarray [S], float32
        The samples of the file before they are rounded to integers; those of a "float" file. Of a lossy format, what is
        encoded first: `write_sound` may encode it again, quieter.
    written : Written
        What was done to the level.
    """
    sound_format = sound_format or SoundFormat()
    rate, ceiling = sound_format.sample_rate or sample_rate, _ceiling(sound_format)
    stored = io.BytesIO()
    peaks = _store(stored, _resampled([samples], sample_rate, rate))
    stored.seek(0)
    gain, limiter = peaks.gain(ceiling), Limiter(ceiling, rate)
    sound = np.concatenate(list(limiter.process(_scaled(stored, peaks.samples, gain))))
    return sound, _written(peaks, float(np.abs(sound).max()), gain, limiter)


def _ceiling(sound_format: SoundFormat, *, keeps_level: bool = False) -> float:
    """Return the largest magnitude that a file may hold."""
    # What integers are rounded to is not above the ceiling either. Float files can hold more than 1; players clip it.
    headroom = 1.0 if keeps_level else _HEADROOM
    return 1.0 if sound_format.sample_format == "float" else headroom - _STEP


def _written(peaks: Peaks, peak: float, gain: float, limiter: Limiter) -> Written:
    return Written(peaks.samples, peak, gain, limiter.share, limiter.reduction_db)


def _resampled(blocks: Iterable[np.ndarray], rate: int, new_rate: int) -> Iterator[np.ndarray]:
    if rate == new_rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(rate, new_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield resampler.resample_chunk(np.ascontiguousarray(block, np.float32))
    yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def _store(file: IO[bytes], blocks: Iterable[np.ndarray]) -> Peaks:
    """Append blocks to a file as raw float32; return their peaks."""
    peaks = Peaks()
    for block in blocks:
        peaks.add(block)
        file.write(np.ascontiguousarray(block, np.float32).data)
    return peaks


def _write(
    file: BinaryIO, blocks: Iterable[np.ndarray], count: int, sample_rate: int, sound_format: SoundFormat
) -> float:
    """Write a file of `count` samples; return the largest magnitude of what is decoded from it."""
    options = _file_options(sound_format, count)
    peak = _encode(file, blocks, sample_rate, options)
    if sound_format.is_lossy:
        peak = _decoded_peak(file)
    if options["format"] == "OGG":
        fix_serial_number(file)
    elif options["format"] in ("WAV", "RF64"):
        _clear_timestamp(file)
    return peak


def _file_options(sound_format: SoundFormat, count: int) -> dict[str, Any]:
    """Return the arguments of `SoundFile` for a file of `count` samples."""
    if sound_format.is_lossy:
        return _LOSSY[sound_format.file_format]
    subtype, width = _SUBTYPES[sound_format.sample_format or "pcm24"]
    wav = "WAV" if count * width < _LARGEST_WAV else "RF64"
    return {"format": wav if sound_format.file_format == "wav" else "FLAC", "subtype": subtype}


def _scaled(samples: IO[bytes], count: int, gain: float) -> Iterator[np.ndarray]:
    """Read the next `count` samples, with a gain."""
    left = count * np.dtype(np.float32).itemsize
    while block := samples.read(min(left, _BLOCK_BYTES)):
        yield np.frombuffer(block, np.float32) * np.float32(gain)
        left -= len(block)


def _encode(file: BinaryIO, blocks: Iterable[np.ndarray], sample_rate: int, options: dict[str, Any]) -> float:
    """Write the file; return the largest magnitude of the samples."""
    peak = 0.0
    with soundfile.SoundFile(file.fileno(), "w", sample_rate, 1, closefd=False, **options) as sound:
        for block in blocks:
            peak = max(peak, float(np.abs(block).max(initial=0.0)))
            sound.write(block)
    return peak


def _decoded_peak(file: BinaryIO) -> float:
    file.seek(0)
    with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
        blocks = sound.blocks(_BLOCK_BYTES // 4, dtype="float32")
        return max((float(np.abs(block).max(initial=0.0)) for block in blocks), default=0.0)


def _clear_timestamp(file: IO[bytes]) -> None:
    """Set the time of writing to zero, which libsndfile stores in the PEAK chunk of float files."""
    file.seek(0)
    start = file.read(256)
    place = start.find(b"PEAK", 12)
    if 0 <= place < start.find(b"data", 12):
        file.seek(place + 12)
        file.write(bytes(4))
