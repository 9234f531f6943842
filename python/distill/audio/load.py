"""Loading of a whole file, or a part of it, as a tensor."""

from __future__ import annotations

import io
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import BinaryIO, NamedTuple

import numpy as np
import torch

from distill.audio.decode import SAMPLE_RATES, Decoding, decode_blocks, opened_sound, warn_if_partial
from distill.audio.readers.protocol import ByteSource
from distill.errors import AudioFileError
from distill.types import PathLike


class AudioInfo(NamedTuple):
    """What a file's header says.

    Examples
    --------
    >>> from distill.audio import AudioInfo
    >>> info = AudioInfo(sample_rate=44_100, channels=2, duration_s=1.5)  # as `audio_info` returns it
    >>> round(info.duration_s * info.sample_rate)
    66150
    """

    sample_rate: int
    """Hz."""
    channels: int
    """Number of channels."""
    duration_s: float | None
    """Length in seconds; None if the header does not say."""


def load_audio(
    file: PathLike | BinaryIO, sample_rate: int | None = 48_000, *, offset: float = 0.0, duration: float | None = None
) -> torch.Tensor:
    """Load a file, or a part of it, as a mono waveform.

    Parameters
    ----------
    file : path or binary file object
        A file of any kind that one of the readers reads: see docs/formats.md. Of a file object, all that is left to
        read; it need not be seekable.
    sample_rate : int or None
        Sample rate of the result, Hz; files of other rates are resampled. None: the file's own, which `audio_info`
        tells. Default: 48000.
    offset : float
        Where to begin, seconds. What comes before is decoded and left out, so the samples are those of the whole file.
        Default: 0.
    duration : float, optional
        How much to load, seconds; less if the file ends before. Default: up to the end.

    Returns
    -------
    Tensor of shape [1, S], float32
        The mean of the channels, not normalised. If only a part of the file can be decoded, that part, and a warning
        is logged.

    Raises
    ------
    AudioFileError
        If the file cannot be used, or ends before `offset`; the message gives the reason.
    ValueError
        If `sample_rate`, `offset` or `duration` is out of range.
    TypeError
        If `file` is neither a path nor a binary file object.

    Examples
    --------
    >>> from distill.audio import load_audio
    >>> waveform = load_audio("recordings/bell.wav", sample_rate=16_000, offset=0.5, duration=1.0)
    >>> waveform.shape
    torch.Size([1, 16000])
    """
    low, high = SAMPLE_RATES
    if sample_rate is not None and not (isinstance(sample_rate, int) and low <= sample_rate <= high):
        raise ValueError(f"sample_rate={sample_rate} must be from {low} to {high} Hz, or None for that of the file")
    if not 0 <= offset < math.inf:
        raise ValueError(f"offset={offset} must be a number of seconds from 0")
    if duration is not None and not 0 < duration < math.inf:
        raise ValueError(f"duration={duration} must be a number of seconds above 0, or None for all of the file")
    with _opened(file) as (source, name):
        decoding = decode_blocks(source, sample_rate, path=name)
        waveform = _part(decoding, offset, duration)
    warn_if_partial(name, decoding.partial)
    return torch.from_numpy(waveform)[None]


def audio_info(file: PathLike | BinaryIO) -> AudioInfo:
    """Return sample rate, channels and length of a file, without decoding it.

    Parameters
    ----------
    file : path or binary file object
        As for `load_audio`. A file object that is seekable is left at its position.

    Returns
    -------
    AudioInfo

    Raises
    ------
    AudioFileError
        If the file cannot be used.

    Examples
    --------
    >>> from distill.audio import audio_info
    >>> audio_info("recordings/bell.wav")
    AudioInfo(sample_rate=44100, channels=2, duration_s=...)
    """
    begin = file.tell() if isinstance(file, io.IOBase) and file.seekable() else None
    with _opened(file) as (source, name), opened_sound(source, name) as sound:
        duration_s = None if sound.frames is None else sound.frames / sound.sample_rate
        info = AudioInfo(sound.sample_rate, sound.channels, duration_s)
    if begin is not None:
        file.seek(begin)
    return info


@contextmanager
def _opened(file: PathLike | BinaryIO) -> Iterator[tuple[PathLike | ByteSource, str]]:
    """Yield what can be decoded, and its name for messages."""
    if isinstance(file, (str, os.PathLike)):
        yield file, os.fsdecode(file)
        return
    if isinstance(file, io.TextIOBase) or not hasattr(file, "read"):
        expected = "a path or a file object that is opened in binary mode, as by open(path, 'rb')"
        raise TypeError(f"file must be {expected}, not {type(file).__name__}")
    name = getattr(file, "name", None)
    # Readers need to seek, several of them in parallel: a file that can be opened is the one thing that fits them all.
    with tempfile.NamedTemporaryFile(prefix="distill-") as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        with closing(ByteSource(copy.name)) as source:
            yield source, name if isinstance(name, str) else "file object"


def _part(decoding: Decoding, offset: float, duration: float | None) -> np.ndarray:
    """Return the samples [S] of a part of a file."""
    blocks: list[np.ndarray] = []
    decoded, first, stop = 0, 0, math.inf
    with closing(iter(decoding)) as decoded_blocks:
        for block in decoded_blocks:
            # The sample rate is that of the file, and known once a block is.
            first = round(offset * decoding.sample_rate)
            stop = math.inf if duration is None else first + max(1, round(duration * decoding.sample_rate))
            start, decoded = decoded, decoded + block.samples.size
            end = min(stop - start, block.samples.size)
            if decoded > first:
                blocks.append(block.samples[max(0, first - start) : int(end)])
            if decoded >= stop:
                break
    if not blocks:
        length_s = decoded / decoding.sample_rate
        raise AudioFileError(decoding.path, f"ends at {length_s:.3f} s, before the offset of {offset:g} s")
    return np.concatenate(blocks)
