"""A sound as overlapping windows of one length, for resynthesis window by window.

file     |------------------------------|
window 0 |------------|
window 1          |------------|
window 2                   |------------|
"""

from __future__ import annotations

import copy
import itertools
import math
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill import _native
from distill.audio.decode import Block, decode_blocks, peak_of, warn_if_partial
from distill.audio.levels import CANCELLED, NO_SIGNAL_PEAK, SILENCE_PEAK, Levels, level_of
from distill.config import Normalize
from distill.errors import AudioFileError

_FORMATS_TIP = "give an intact audio file, such as WAV, FLAC, MP3, M4A or OGG"
_SILENT_TIP = "give a sound that can be heard"
_OFFSET_TIP = "give a smaller offset"


class Windows(NamedTuple):
    """Consecutive windows of a sound."""

    waveforms: np.ndarray
    """[n, 1, S], float32, normalised like the chunks of a dataset."""
    levels: np.ndarray
    """Peak of each window before normalisation per chunk, relative to that of the file: [n], float32. 1 for other
    normalisations, 0 for a silent window."""


class _Windowed:
    """Sound that is cut into windows; a subclass gives its blocks, which are read twice."""

    samples: int
    peak: float
    offset: float

    def __init__(self, window_samples: int, step_samples: int, normalize: Normalize) -> None:
        self._normalize = normalize
        self._size, self._step = window_samples, step_samples

    def _samples(self) -> Iterator[np.ndarray]:
        """Yield blocks [n] of the sound."""
        raise NotImplementedError

    def _measure(self, blocks: Iterable[Block]) -> Levels:
        levels = Levels()
        for block in blocks:
            levels.add(block)
        self.samples, self.peak, self.offset = levels.samples, levels.peak, levels.offset
        return levels

    @property
    def _is_silent(self) -> bool:
        return self.peak < (SILENCE_PEAK if self._normalize == "none" else NO_SIGNAL_PEAK)

    def batches(self, count: int, size: int) -> Iterator[Windows]:
        """Yield the first `count` windows, at most `size` at a time. Beyond the end of the file there are zeros.

        Raises
        ------
        AudioFileError
            If decoding fails.
        """
        windows = self._windows()
        for start in range(0, count, size):
            found = list(itertools.islice(windows, min(size, count - start)))
            yield Windows(np.stack([window for window, _ in found])[:, None], np.array([level for _, level in found]))

    def _windows(self) -> Iterator[tuple[np.ndarray, np.float32]]:
        """Yield windows with their levels, without end."""
        held = np.empty(0, np.float32)
        needed = max(self._size, self._step)
        for block in self._samples():
            samples = block - np.float32(self.offset) if self.offset else block
            held = np.concatenate([held, samples])
            while held.size >= needed:
                yield self._scaled(held[: self._size])
                held = held[self._step :]
        while True:
            yield self._scaled(np.pad(held[: self._size], (0, max(0, self._size - held.size))))
            held = held[self._step :]

    def _scaled(self, window: np.ndarray) -> tuple[np.ndarray, np.float32]:
        """Return a normalised window and its level."""
        peak = peak_of(window)
        if level_of(window) < max(SILENCE_PEAK * self.peak, NO_SIGNAL_PEAK if self._normalize == "chunk" else 0.0):
            return np.zeros_like(window), np.float32(0)
        scale = {"file": self.peak, "chunk": peak, "none": 1.0}[self._normalize]
        level = peak / self.peak if self._normalize == "chunk" else 1.0
        return window * np.float32(1 / scale), np.float32(level)


class WindowedFile(_Windowed):
    """A file that is read window by window, after it was decoded once to find its length and levels.

    Parameters
    ----------
    path : path
        A file of any kind that one of the readers reads. If only a part of it can be decoded, a warning is logged.
    sample_rate : int
        Sample rate of the windows, Hz.
    window_samples : int
        Length S of a window, samples.
    step_samples : int
        Step between the starts of windows, samples.
    normalize : {"file", "chunk", "none"}
        Scale the file, each window, or nothing to a peak of 1.

    Attributes
    ----------
    samples : int
        Length of the file at `sample_rate`, from where the first window begins.
    peak : float
        Largest magnitude in the file, without the offset.
    offset : float
        Constant offset (DC) of the file, which windows are without.
    partial : Reason or None
        Why only a part of the file can be decoded, if so.

    Raises
    ------
    AudioFileError
        If the file is missing, cannot be decoded, or has no chunk that `Chunks` would yield; with a tip.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        window_samples: int,
        step_samples: int,
        normalize: Normalize,
    ) -> None:
        super().__init__(window_samples, step_samples, normalize)
        self._path, self._rate, self._start = path, sample_rate, 0
        _check_file(Path(path))
        decoding = decode_blocks(path, sample_rate)
        try:
            levels = self._measure(decoding)
        except AudioFileError as error:
            error.tip = _FORMATS_TIP
            raise
        self.partial = decoding.partial
        if self._is_silent:
            reason = CANCELLED if decoding.cancels else levels.silence
            raise AudioFileError(os.fspath(path), reason, _SILENT_TIP)
        warn_if_partial(path, self.partial)

    def starting_at(self, offset_s: float) -> WindowedFile:
        """Return the same file, whose first window begins later. Its levels and offset (DC) remain those of the file.

        Parameters
        ----------
        offset_s : float
            Seconds from the start of the file, from 0.

        Raises
        ------
        AudioFileError
            If the file ends before.
        """
        later = copy.copy(self)
        later._start = round(offset_s * self._rate)
        length = self._start + self.samples
        if later._start >= length:
            reason = f"is {length / self._rate:.3f} s long: nothing is left of it at the offset of {offset_s:g} s"
            raise AudioFileError(os.fspath(self._path), reason, _OFFSET_TIP)
        later.samples = length - later._start
        return later

    def _samples(self) -> Iterator[np.ndarray]:
        left_out = self._start
        for block in decode_blocks(self._path, self._rate):
            yield block.samples[left_out:]
            left_out = max(0, left_out - block.samples.size)


class WindowedWaveform(_Windowed):
    """A waveform in memory, cut and normalised like a file.

    Parameters
    ----------
    waveform : ndarray of shape [S], float32
        S at least 1.
    window_samples, step_samples, normalize
        As for `WindowedFile`.

    Attributes
    ----------
    samples, peak, offset
        As of `WindowedFile`.

    Raises
    ------
    ValueError
        If it is empty, not finite, or silent.
    """

    def __init__(self, waveform: np.ndarray, window_samples: int, step_samples: int, normalize: Normalize) -> None:
        super().__init__(window_samples, step_samples, normalize)
        if not waveform.size:
            raise ValueError("the waveform has no samples")
        low, high = _native.sample_range(waveform)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("the waveform has samples that are NaN or infinite")
        self._waveform = waveform
        levels = self._measure([Block(waveform, low, high)])
        if self._is_silent:
            raise ValueError(f"the waveform is {levels.silence}")

    def _samples(self) -> Iterator[np.ndarray]:
        yield self._waveform


def _check_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudioFileError(os.fspath(path), "no such file", "check its name") from error
    except OSError as error:
        raise AudioFileError(os.fspath(path), f"cannot be read: {error.strerror}", "make it readable") from error
    if stat.S_ISDIR(mode):
        raise AudioFileError(os.fspath(path), "a folder", f"name the files in it, as in {path / '*.wav'}")
    if not stat.S_ISREG(mode):
        raise AudioFileError(os.fspath(path), "not a file", _FORMATS_TIP)
