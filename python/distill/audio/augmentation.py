"""Augmentation: seeded variants of a chunk. Applies speed, pitch, time shift, gain and noise, in this order.

A new augmentation goes into `variant`, and its range into `AugmentationConfig`. Its random draw comes after all others,
so that the values drawn by the others do not change.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import soxr

from distill.config import AugmentationConfig
from distill.errors import ConfigError

_NOISE_SPREAD_DB = 20.0


def check_available(config: AugmentationConfig) -> None:
    """Raise ConfigError if an augmentation needs a library that is not installed."""
    if config.pitch_semitones and importlib.util.find_spec("python_stretch") is None:
        raise ConfigError(
            [f"pitch_semitones={config.pitch_semitones} needs python-stretch, which is not installed"],
            "pip install 'distill[pitch]'",
        )


def variant(
    chunk: np.ndarray, config: AugmentationConfig, sample_rate: int, content_hash: bytes, chunk_index: int, number: int
) -> np.ndarray:
    """Return an augmented variant of a chunk.

    The random generator is seeded with content hash, chunk index and variant number. A variant is therefore the same in
    every run, and depends neither on the order of files nor on the number of threads.

    Parameters
    ----------
    chunk : ndarray of shape [S], float32
        The chunk; not modified.
    config : AugmentationConfig
        Ranges of the parameters, each drawn uniformly from its range.
    sample_rate : int
        Hz.
    content_hash : bytes
        Hash of the source file's content.
    chunk_index : int
        Index of the chunk in its file.
    number : int
        Number of the variant, from 1.

    Returns
    -------
    ndarray of shape [S], float32
    """
    random = np.random.default_rng([int.from_bytes(content_hash, "little"), chunk_index, number])
    # All parameters are drawn, also of augmentations that are off, so that turning one off does not change the others.
    speed, pitch, shift, gain, noise = random.uniform(-1, 1, 5)
    result = chunk
    if config.speed:
        factor = 1 + config.speed * speed
        # A ratio of small integers keeps the set-up of the resampler short; steps of 1/1000 are inaudible.
        result = soxr.resample(result, round(1000 * factor), 1000, quality="HQ")
    if config.pitch_semitones:
        result = _pitched(result, config.pitch_semitones * pitch, sample_rate)
    result = _shifted(result, round(config.time_shift_s * sample_rate * shift), chunk.size)
    result *= np.float32(10 ** (config.gain_db * (gain - 1) / 40))
    if config.noise_db:
        below_db = config.noise_db + _NOISE_SPREAD_DB * (noise + 1) / 2
        squares = result.astype(np.float64)
        squares *= squares
        added = random.standard_normal(chunk.size, np.float32)
        added *= np.float32(float(np.sqrt(squares.mean())) * 10 ** (-below_db / 20))
        result += added
    return result


def _shifted(samples: np.ndarray, shift: int, length: int) -> np.ndarray:
    """Return `length` samples: `samples` moved by `shift`, at most by half of `length`, and zeros elsewhere."""
    shift = int(np.clip(shift, -length // 2, length // 2))
    result = np.zeros(length, np.float32)
    source = samples[max(0, -shift) : max(0, length - shift)]
    start = max(0, shift)
    result[start : start + source.size] = source[: length - start]
    return result


def _pitched(samples: np.ndarray, semitones: float, sample_rate: int) -> np.ndarray:
    import python_stretch  # noqa: PLC0415 - optional; `check_available` was called before

    stretch = python_stretch.Signalsmith.Stretch()
    stretch.preset(1, sample_rate)
    stretch.setTransposeSemitones(semitones)
    pitched: np.ndarray = np.asarray(stretch.process(samples[None]), np.float32)[0]
    return pitched
