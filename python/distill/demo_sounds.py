"""The sounds of the demo: six families of short sounds, made in code, as files of the kinds that users have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from distill.demo_m4a import write_m4a

SOUNDS_PER_FAMILY = 10

_RATES = (44_100, 48_000, 22_050)
_FORMATS = (("wav", "PCM_16"), ("flac", "PCM_24"), ("wav", "PCM_24"), ("ogg", "VORBIS"), ("wav", "FLOAT"))
# Formats of the last sounds of each family, which are not among those to listen to.
_LAST_FORMATS = {8: ("opus", "OPUS"), 9: ("m4a", "ALAC")}
_OPUS_RATE = 48_000

Random = np.random.Generator
Synth = Callable[[np.ndarray, Random], np.ndarray]


def _harmonics(t: np.ndarray, pitch: float, amplitudes: np.ndarray, decay: np.ndarray, stretch: float) -> np.ndarray:
    """Return a sum of decaying partials; those above 9 kHz are left out, so that all sample rates sound alike."""
    sound = np.zeros_like(t)
    for number, (amplitude, rate) in enumerate(zip(amplitudes, decay, strict=True), 1):
        frequency = pitch * number * np.sqrt(1 + stretch * number**2)
        if frequency < 9_000:
            sound += amplitude * np.exp(-rate * t) * np.sin(2 * np.pi * frequency * t)
    return sound


def _pitch(random: Random, low: int, high: int) -> float:
    """Return the frequency in Hz of a random note of the pentatonic scale, from MIDI note `low` to `high`."""
    scale = np.array([0, 3, 5, 7, 10])
    notes = (np.arange(low // 12, high // 12 + 1)[:, None] * 12 + scale).reshape(-1)
    return float(440 * 2 ** ((random.choice(notes[(notes >= low) & (notes <= high)]) - 69) / 12))


def _pluck(t: np.ndarray, random: Random) -> np.ndarray:
    number = np.arange(1, 25)
    return _harmonics(t, _pitch(random, 40, 72), 1 / number, 1.5 + 0.35 * number, 1e-4)


def _bell(t: np.ndarray, random: Random) -> np.ndarray:
    pitch, ratio = _pitch(random, 60, 84), random.choice([1.4, 2.76, 3.5])
    index = random.uniform(2, 5) * np.exp(-2.5 * t)
    sound: np.ndarray = np.exp(-2 * t) * np.sin(2 * np.pi * pitch * t + index * np.sin(2 * np.pi * ratio * pitch * t))
    return sound


def _kick(t: np.ndarray, random: Random) -> np.ndarray:
    low, sweep, speed = random.uniform(42, 60), random.uniform(120, 260), random.uniform(18, 40)
    phase = low * t + sweep / speed * (1 - np.exp(-speed * t))
    click = np.exp(-400 * t) * random.standard_normal(t.size)
    sound: np.ndarray = np.exp(-random.uniform(4, 9) * t) * np.sin(2 * np.pi * phase) + 0.3 * click
    return sound


def _snare(t: np.ndarray, random: Random) -> np.ndarray:
    noise = np.diff(random.standard_normal(t.size + 1))
    body = np.sin(2 * np.pi * random.uniform(160, 230) * t)
    sound: np.ndarray = np.exp(-random.uniform(9, 20) * t) * 0.4 * noise + 0.6 * np.exp(-18 * t) * body
    return sound


def _pad(t: np.ndarray, random: Random) -> np.ndarray:
    root = _pitch(random, 45, 60)
    number = np.arange(1, 17)
    sound: np.ndarray = np.zeros_like(t)
    for interval in (1.0, 1.5, 2 ** (random.choice([3, 4]) / 12)):
        detune = 1 + random.uniform(-0.003, 0.003)
        sound += _harmonics(t, root * interval * detune, number**-1.4, np.zeros(16), 0.0)
    swell = np.minimum(1, t / 0.3) * np.minimum(1, (t[-1] - t) / 0.3)
    swelling: np.ndarray = swell * sound * (1 + 0.2 * np.sin(2 * np.pi * random.uniform(3, 6) * t))
    return swelling


def _sweep(t: np.ndarray, random: Random) -> np.ndarray:
    start, end = sorted(random.uniform(np.log(100), np.log(6_000), 2))
    frequency = np.exp(start + (end - start) * t / t[-1])
    phase = np.cumsum(frequency) * (t[1] - t[0])
    sound: np.ndarray = np.sin(2 * np.pi * phase) * np.minimum(1, (t[-1] - t) / 0.05)
    return sound


FAMILIES: dict[str, tuple[Synth, float, float]] = {
    "strings/pluck": (_pluck, 1.2, 2.5),
    "metal/bell": (_bell, 1.2, 2.5),
    "drums/kick": (_kick, 0.4, 0.9),
    "drums/snare": (_snare, 0.3, 0.8),
    "pads/pad": (_pad, 2.0, 3.5),
    "effects/sweep": (_sweep, 1.0, 2.5),
}
"""For each folder and name: the function that makes a sound, and the shortest and longest duration in seconds."""


def write_dataset(folder: Path, seed: int = 7, per_family: int = SOUNDS_PER_FAMILY) -> list[Path]:
    """Write sounds of six families, in several formats and sample rates, mono and stereo, in nested folders.

    Parameters
    ----------
    folder : Path
        Created if missing.
    seed : int
        The same seed gives the same samples; the bytes of the files may differ. Default: 7.
    per_family : int
        Number of sounds in each family. Default: 10.

    Returns
    -------
    list of Path
        The files, family by family, in the order of `FAMILIES`.
    """
    written = []
    for family, (name, (synth, shortest, longest)) in enumerate(FAMILIES.items()):
        for number in range(per_family):
            random = np.random.default_rng([seed, family, number])
            extension, subtype = _LAST_FORMATS.get(number) or _FORMATS[(family + 2 * number) % len(_FORMATS)]
            rate = _OPUS_RATE if subtype == "OPUS" else _RATES[(family + number) % len(_RATES)]
            t = np.arange(round(rate * random.uniform(shortest, longest))) / rate
            sound = synth(t, random)
            sound *= random.uniform(0.3, 0.9) / np.abs(sound).max()
            if number % 3 == 2:
                balance = random.uniform(0.3, 0.7)
                sound = np.stack([sound * balance, sound * (1 - balance)], axis=1)
            path = folder / f"{name}{number:02d}.{extension}"
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, sound, rate, subtype)
            written.append(path)
    return written


def _write(path: Path, sound: np.ndarray, rate: int, subtype: str) -> None:
    if subtype == "ALAC":
        write_m4a(path, sound, rate)
    else:
        container = "OGG" if subtype in {"OPUS", "VORBIS"} else None
        soundfile.write(path, sound, rate, subtype=subtype, format=container)
