"""Three sets of sounds as folders: drums (one-shots), loops and field recordings.

Drums and loops come from packages of Debian, if they are installed (hydrogen-drumkits; sonic-pi-samples and
lmms-common), otherwise from a synthesiser. Field recordings are always synthesised.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile

from distill.demo_sounds import FAMILIES

RATE = 48_000
_KITS = Path("/usr/share/hydrogen/data/drumkits")
_SONIC_PI = Path("/usr/share/sonic-pi/samples")
_LMMS = Path("/usr/share/lmms/samples")
_DRUMS = 240
_STEPS = 16


def write_sets(
    folder: Path, names: Sequence[str] = ("drums", "loops", "field"), *, installed: bool = True, scale: float = 1.0
) -> dict[str, Path]:
    """Write sets to folders of their names in `folder`, and return these.

    Without `installed`, every set is synthesised. `scale` is the share of synthetic sound that is made.
    """
    found = {"drums": _installed_drums(), "loops": _installed_loops()} if installed else {}
    made = {"drums": _drums, "loops": _loops, "field": _field}
    for name in names:
        target = folder / name
        target.mkdir(parents=True)
        if files := found.get(name):
            for number, path in enumerate(files):
                title = re.sub("[^a-zA-Z0-9]+", "_", path.stem)
                shutil.copyfile(path, target / f"{number:03d}-{title}{path.suffix}")
            continue
        for title, sound in made[name](scale):
            peak = max(np.abs(sound).max(), 1e-9)
            soundfile.write(target / f"{title}.flac", 0.9 * sound / peak, RATE, subtype="PCM_16")
    return {name: folder / name for name in names}


def _installed_drums() -> list[Path]:
    kinds = {".wav", ".flac", ".aiff"}
    files = sorted(path for path in _KITS.rglob("*") if path.suffix.lower() in kinds)
    return [files[number * len(files) // _DRUMS] for number in range(_DRUMS)] if len(files) >= _DRUMS else []


def _installed_loops() -> list[Path]:
    places = ((_SONIC_PI, "loop_*.flac"), (_LMMS / "beats", "*.ogg"), (_LMMS / "bassloops", "*.ogg"))
    found = [sorted(folder.glob(pattern)) for folder, pattern in places]
    return [path for files in found for path in files] if all(found) else []


def _drums(scale: float) -> list[tuple[str, np.ndarray]]:
    sounds = []
    for family, (synth, shortest, longest) in enumerate(FAMILIES.values()):
        for number in range(round(20 * scale)):
            random = np.random.default_rng([21, family, number])
            time = np.arange(round(RATE * min(1.5, random.uniform(shortest, longest)))) / RATE
            sounds.append((f"{family}-{number:02d}", synth(time, random)))
    return sounds


def _loops(scale: float) -> list[tuple[str, np.ndarray]]:
    return [(f"loop-{number:02d}", _loop(np.random.default_rng([22, number]))) for number in range(round(40 * scale))]


def _loop(random: np.random.Generator) -> np.ndarray:
    """Return two bars of kick, snare and hi-hat, with a bass line."""
    step = round(RATE * 60 / random.uniform(80, 150) / 4)
    sound = np.zeros(2 * _STEPS * step + RATE)
    kick, snare, pluck = (FAMILIES[name][0] for name in ("drums/kick", "drums/snare", "strings/pluck"))
    seeds = random.integers(1 << 30, size=3)
    hits: list[tuple[Callable, float, int, float, float]] = [
        (kick, 0.3, int(seeds[0]), 1.0, 0.35),
        (snare, 0.25, int(seeds[1]), 0.7, 0.2),
    ]
    for synth, length, seed, level, share in hits:
        pattern = random.random(_STEPS) < share
        pattern[0 if synth is kick else 4] = True
        for place in np.flatnonzero(np.tile(pattern, 2)):
            hit = synth(np.arange(round(length * RATE)) / RATE, np.random.default_rng(seed))
            sound[place * step : place * step + hit.size] += level * hit
    for place in np.flatnonzero(np.tile(random.random(_STEPS) < 0.6, 2)):
        time = np.arange(round(0.05 * RATE)) / RATE
        hat = np.diff(random.standard_normal(time.size + 1)) * np.exp(-80 * time)
        sound[place * step : place * step + hat.size] += 0.15 * hat
    for place in np.flatnonzero(random.random(2 * _STEPS) < 0.3):
        note = pluck(np.arange(round(0.4 * RATE)) / RATE, random)
        sound[place * step : place * step + note.size] += 0.3 * note
    return sound[: 2 * _STEPS * step]


def _field(scale: float) -> list[tuple[str, np.ndarray]]:
    length = round(120 * RATE * scale)
    makers = {"rain": _rain, "birds": _birds, "steps": _steps, "traffic": _traffic, "machine": _machine}
    return [
        (f"{name}-{number}", make(length, np.random.default_rng([23, index, number])))
        for index, (name, make) in enumerate(makers.items())
        for number in range(2)
    ]


def _noise(length: int, random: np.random.Generator, exponent: float) -> np.ndarray:
    """Return noise whose power falls with frequency to the power of `exponent`, root mean square 1."""
    spectrum = np.fft.rfft(random.standard_normal(length))
    frequency = np.fft.rfftfreq(length, 1 / RATE)
    shaped = np.fft.irfft(spectrum * np.maximum(frequency, 20.0) ** (-exponent / 2), length)
    return shaped / shaped.std()


def _slow(length: int, random: np.random.Generator, seconds: float) -> np.ndarray:
    """Return a smooth random curve that changes within `seconds`, mean 0 and standard deviation about 1."""
    count = max(4, round(length / RATE / seconds) + 1)
    return np.interp(np.linspace(0, count - 1, length), np.arange(count), random.standard_normal(count))


def _rain(length: int, random: np.random.Generator) -> np.ndarray:
    sound = 0.2 * _noise(length, random, 0.7) * np.exp(0.6 * _slow(length, random, 4))
    for _ in range(round(15 * length / RATE)):
        place, pitch = random.integers(length), random.uniform(800, 5_000)
        time = np.arange(min(2_400, length - place)) / RATE
        sound[place : place + time.size] += (
            random.exponential(0.5) * np.exp(-150 * time) * np.sin(2 * np.pi * pitch * time)
        )
    return sound


def _birds(length: int, random: np.random.Generator) -> np.ndarray:
    sound = 0.03 * _noise(length, random, 1.0)
    for _ in range(round(0.6 * length / RATE)):
        pitch, glide, beats = random.uniform(2_000, 6_000), random.uniform(-0.3, 0.3), random.uniform(5, 25)
        time = np.arange(round(random.uniform(0.1, 0.8) * RATE)) / RATE
        place = random.integers(max(1, length - time.size))
        phase = np.cumsum(pitch * (1 + glide * time / time[-1] + 0.04 * np.sin(2 * np.pi * beats * time))) / RATE
        song = np.sin(2 * np.pi * phase) * np.sin(np.pi * time / time[-1]) ** 2
        song *= 0.5 + 0.5 * np.sin(2 * np.pi * beats * time)
        sound[place : place + time.size] += (random.uniform(0.2, 1) * song)[: length - place]
    return sound


def _steps(length: int, random: np.random.Generator) -> np.ndarray:
    sound, place = 0.02 * _noise(length, random, 1.5), 0
    while place < length:
        time = np.arange(min(9_600, length - place)) / RATE
        body = np.sin(2 * np.pi * random.uniform(70, 110) * time) * np.exp(-40 * time)
        scrape = (
            random.standard_normal(time.size) * np.exp(-30 * np.maximum(time - 0.05, 0)) * np.minimum(time / 0.05, 1)
        )
        sound[place : place + time.size] += random.uniform(0.6, 1) * body + 0.08 * scrape
        place += round(random.uniform(0.45, 0.65) * RATE)
    return sound


def _traffic(length: int, random: np.random.Generator) -> np.ndarray:
    sound = 0.05 * _noise(length, random, 2.0)
    time = np.arange(length) / RATE
    for _ in range(max(1, round(length / RATE / 12))):
        middle, width = random.uniform(0, time[-1]), random.uniform(1, 3)
        passing = np.exp(-(((time - middle) / width) ** 2))
        pitch = random.uniform(60, 120) * (1 - 0.06 * np.tanh((time - middle) / width))
        phase = 2 * np.pi * np.cumsum(pitch) / RATE
        engine = sum(np.sin(number * phase) / number for number in range(1, 6))
        sound += passing * (0.5 * _noise(length, random, 1.2) + 0.3 * engine)
    return sound


def _machine(length: int, random: np.random.Generator) -> np.ndarray:
    time = np.arange(length) / RATE
    hum = sum(np.sin(2 * np.pi * number * 50 * time + number) / number**0.8 for number in range(1, 12))
    rate = random.uniform(2, 6)
    clatter = np.maximum(0, np.sin(2 * np.pi * rate * time)) ** 20 * _noise(length, random, 0.3)
    return hum * (1 + 0.1 * _slow(length, random, 2)) + 0.8 * clatter + 0.05 * _noise(length, random, 1.0)
