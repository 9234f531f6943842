"""Seeded variants of a chunk: speed, pitch, time shift, gain, noise, in that order."""

from __future__ import annotations

import importlib.util

import numpy as np
import soxr

from distill.config import AugmentationConfig
from distill.errors import ConfigError

_NOISE_SPREAD_DB = 20.0


def check_available(config: AugmentationConfig) -> None:
    """Raise ConfigError if `config` needs a library that is not installed."""
    if config.pitch_semitones and importlib.util.find_spec("python_stretch") is None:
        raise ConfigError(
            [f"pitch_semitones={config.pitch_semitones} needs python-stretch, which is not installed"],
            "pip install 'distill[pitch]'",
        )


def variant(
    chunk: np.ndarray, config: AugmentationConfig, sample_rate: int, content_hash: bytes, chunk_index: int, number: int
) -> np.ndarray:
    """One augmented variant of a chunk.

    Every draw comes from the content hash, the chunk's index and the variant's number, so that a variant is the same
    in any run, whatever the order of files or the number of threads.

    Parameters
    ----------
    chunk : ndarray of shape [S], float32
    config : AugmentationConfig
        Ranges; each draw is even within its range.
    sample_rate : int
        Hz.
    content_hash : bytes
        Hash of the source file's content.
    chunk_index : int
        Which of the file's chunks this is.
    number : int
        Which variant, from 1.

    Returns
    -------
    ndarray of shape [S], float32
    """
    random = np.random.default_rng([int.from_bytes(content_hash, "little"), chunk_index, number])
    # All draws first: turning one augmentation off leaves the others as they were.
    speed, pitch, shift, gain, noise = random.uniform(-1, 1, 5)
    result = chunk
    if config.speed:
        factor = 1 + config.speed * speed
        # Fixed ratios keep the resampler's set-up short; 1/1000 is far below what one hears.
        result = soxr.resample(result, round(1000 * factor), 1000, quality="HQ")
    if config.pitch_semitones:
        result = _pitched(result, config.pitch_semitones * pitch, sample_rate)
    result = _placed(result, round(config.time_shift_s * sample_rate * shift), chunk.size)
    result *= np.float32(10 ** (config.gain_db * (gain - 1) / 40))
    if config.noise_db:
        below_db = config.noise_db + _NOISE_SPREAD_DB * (noise + 1) / 2
        squares = result.astype(np.float64)
        squares *= squares
        added = random.standard_normal(chunk.size, np.float32)
        added *= np.float32(float(np.sqrt(squares.mean())) * 10 ** (-below_db / 20))
        result += added
    return result


def _placed(samples: np.ndarray, shift: int, length: int) -> np.ndarray:
    """`samples` moved by `shift` into `length` zeros; a shift that would lose everything is limited to half."""
    shift = int(np.clip(shift, -length // 2, length // 2))
    result = np.zeros(length, np.float32)
    source = samples[max(0, -shift) : max(0, length - shift)]
    start = max(0, shift)
    result[start : start + source.size] = source[: length - start]
    return result


def _pitched(samples: np.ndarray, semitones: float, sample_rate: int) -> np.ndarray:
    import python_stretch  # noqa: PLC0415 - an extra, checked by check_available

    stretch = python_stretch.Signalsmith.Stretch()
    stretch.preset(1, sample_rate)
    stretch.setTransposeSemitones(semitones)
    return np.asarray(stretch.process(samples[None]), np.float32)[0]
