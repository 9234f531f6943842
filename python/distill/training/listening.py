"""What a listener notices: pitch, envelope and level of sounds, compared with those of their recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_ENVELOPE_S = 0.01
# An envelope that varies by less about its mean is steady: there is nothing to correlate with.
_STEADY = 0.05
_PITCH_S = 0.1
_PITCH_HZ = (40.0, 4000.0)
# The normalised autocorrelation of white noise stays below 0.2, that of a steady note is nearly 1. In a copy, noise
# that was added to the note does not take its pitch away.
_CLEAR = 0.8
_CLEAR_IN_COPY = 0.5
# The first peak that is nearly as high as the highest one is that of the period; later ones are its multiples.
_NEARLY = 0.9
# Steps of the lag in a sample, so that the period of a high note is exact.
_STEPS = 4
_OCTAVE_CENTS = 1200.0
# Half of the sounds have another pitch.
_LOST_CENTS = 600.0
_LEAST_PITCHED = 3
_AUDIBLE_DB = -60.0
_TINY = 1e-20

FIGURES = ("pitch_cents", "envelope", "level_db")
"""The results of `compare`."""


def compare(recordings: Sequence[np.ndarray], sounds: Sequence[np.ndarray], rate: int) -> dict[str, float | None]:
    """Compare sounds with recordings [S] of which they are a copy. Recordings that are next to silent do not count.

    Parameters
    ----------
    recordings, sounds : sequence of ndarray [S]
        As many sounds as recordings, of the same length.
    rate : int
        Sample rate, Hz.

    Returns
    -------
    dict
        Medians over the recordings; None if there are none to take it from:
        pitch_cents: by how much the pitch of the loudest 0.1 s differs, at most an octave, which also counts if there
        is no pitch any more. Of recordings with a clear pitch there; None if fewer than three have one.
        envelope: correlation of the root mean squares over 20 ms, each 10 ms. Of recordings that are not steady.
        level_db: by how much the mean power differs, dB.
    """
    levels = [level_of(recording) for recording in recordings]
    is_audible = [level > max(levels) + _AUDIBLE_DB and level > 10 * np.log10(_TINY) for level in levels]
    found: dict[str, list[float]] = {name: [] for name in FIGURES}
    for recording, sound, is_used in zip(recordings, sounds, is_audible, strict=True):
        if not is_used:
            continue
        found["level_db"].append(abs(level_of(sound) - level_of(recording)))
        if (envelope := envelope_correlation(recording, sound, rate)) is not None:
            found["envelope"].append(envelope)
        if (cents := _pitch_error(recording, sound, rate)) is not None:
            found["pitch_cents"].append(cents)
    if len(found["pitch_cents"]) < _LEAST_PITCHED:
        found["pitch_cents"] = []
    return {name: float(np.median(values)) if values else None for name, values in found.items()}


def level_of(sound: np.ndarray) -> float:
    """Return the mean power of a sound [S], dB re full scale; -200 for silence."""
    return float(10 * np.log10(max(np.mean(np.square(sound, dtype=np.float64)), _TINY)))


def envelope_correlation(recording: np.ndarray, sound: np.ndarray, rate: int) -> float | None:
    """Return the correlation of two envelopes; 0 if that of `sound` is constant, None if the recording is steady."""
    wanted, found = (_envelope(samples, round(_ENVELOPE_S * rate)) for samples in (recording, sound))
    if not wanted.size or wanted.std() <= _STEADY * wanted.mean():
        return None
    wanted, found = wanted - wanted.mean(), found - found.mean()
    product = np.linalg.norm(wanted) * np.linalg.norm(found)
    return float(wanted @ found / product) if product > 1e-12 else 0.0


def _envelope(sound: np.ndarray, hop: int) -> np.ndarray:
    """Return the root mean square of each two hops, each hop."""
    count = len(sound) // hop
    powers = np.square(sound[: count * hop], dtype=np.float64).reshape(count, hop).mean(axis=1)
    envelope: np.ndarray = np.sqrt((powers[1:] + powers[:-1]) / 2)
    return envelope


def _pitch_error(recording: np.ndarray, sound: np.ndarray, rate: int) -> float | None:
    """Return by how many cents the pitch differs where the recording is loudest; None if that has no clear pitch."""
    if len(recording) < _PITCH_S * rate:
        return None
    loudest = _loudest(recording, round(_PITCH_S * rate))
    wanted = pitch_of(recording[loudest], rate)
    if wanted is None:
        return None
    found = pitch_of(sound[loudest], rate, _CLEAR_IN_COPY)
    return _OCTAVE_CENTS if found is None else min(abs(_OCTAVE_CENTS * np.log2(found / wanted)), _OCTAVE_CENTS)


def _loudest(sound: np.ndarray, length: int) -> slice:
    energy = np.cumsum(np.square(np.pad(sound, (1, 0)), dtype=np.float64))
    start = int((energy[length:] - energy[:-length]).argmax()) if len(sound) > length else 0
    return slice(start, start + length)


def pitch_of(sound: np.ndarray, rate: int, clear: float = _CLEAR) -> float | None:
    """Return the fundamental frequency of a sound [S], Hz, from 40 Hz to 4 kHz; None if it has no clear pitch.

    Its period is where the autocorrelation, normalised by the energy of the samples that overlap, has its first high
    peak (the NSDF of McLeod and Wyvill). The pitch is clear if that is at least `clear`.
    """
    samples = np.asarray(sound, np.float64)
    samples = samples - samples.mean()
    correlation = _autocorrelation(samples)[: _STEPS * min(len(samples) // 2, int(rate / _PITCH_HZ[0]) + 2)]
    # Up to the first zero, the correlation is that of neighbouring samples.
    start = (
        max(int((correlation < 0).argmax()), int(_STEPS * (rate / _PITCH_HZ[1] - 1)), 1)
        if (correlation < 0).any()
        else None
    )
    if start is None:
        return None
    inner = correlation[1:-1]
    is_peak = (inner > 0) & (inner >= correlation[:-2]) & (inner > correlation[2:])
    peaks = np.flatnonzero(is_peak) + 1
    peaks = peaks[peaks >= start]
    if not peaks.size or correlation[peaks].max() < clear:
        return None
    lag = int(peaks[correlation[peaks] >= _NEARLY * correlation[peaks].max()][0])
    before, at, after = correlation[lag - 1 : lag + 2]
    return float(_STEPS * rate / (lag + 0.5 * (before - after) / (before - 2 * at + after)))


def _autocorrelation(samples: np.ndarray) -> np.ndarray:
    """Return 2 Σ x[j] x[j + lag] / Σ (x[j]² + x[j + lag]²) for each quarter of a lag; 0 where there is no energy."""
    length = len(samples)
    spectrum = np.fft.rfft(samples, 2 * length)
    products = _STEPS * np.fft.irfft(np.abs(spectrum) ** 2, 2 * length * _STEPS)[: length * _STEPS]
    energy = np.r_[0.0, np.cumsum(samples**2)]
    overlap = energy[length:0:-1] + energy[length] - energy[:length]
    overlap = np.interp(np.arange(length * _STEPS) / _STEPS, np.arange(length), overlap)
    similarity: np.ndarray = np.zeros(length * _STEPS)
    np.divide(2 * products, overlap, out=similarity, where=overlap > _TINY * length)
    return similarity


def heard_in(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the figures of the last of the metrics `lines` that has some, with its epoch; None if none has."""
    names = [prefix + name for prefix in ("", "features_") for name in FIGURES]
    measured = (line for line in reversed(lines) if any(line.get(name) is not None for name in names))
    return next(({"epoch": line["epoch"]} | {name: line.get(name) for name in names} for line in measured), None)


def sentence(figures: Mapping[str, Any]) -> str:
    """Return the figures of the model, and those of features alone, in plain words; empty if there are none.

    Parameters
    ----------
    figures : mapping
        The results of `compare` for the model, and those for features alone with "features_" before their names;
        None, or left out, where undefined.
    """
    model, alone = (
        {name: figures[key] for name in FIGURES if figures.get(key := prefix + name) is not None}
        for prefix in ("", "features_")
    )
    words = {"pitch_cents": "its pitch within {}", "envelope": "its envelope at {}", "level_db": "its level within {}"}
    loses = ""
    if model.get("pitch_cents", 0.0) >= _LOST_CENTS:
        loses = " loses its pitch" + (", and" if len(model) > 1 else "")
        del model["pitch_cents"]
    clauses = [words[name].format(_shown(name, value)) for name, value in model.items()]
    keeps = f" keeps {', '.join(clauses)}" if clauses else ""
    if not loses + keeps:
        return ""
    features = ", ".join(_shown(name, value) for name, value in alone.items())
    return f"a validation sound{loses}{keeps}" + (f" (features alone: {features})" if features else "")


def _shown(name: str, value: float) -> str:
    """Return a figure with its unit."""
    if name == "envelope":
        return f"{value:.2f}"
    if name == "level_db":
        return f"{value:.1f} dB"
    return "no pitch" if value >= _LOST_CENTS else f"{value:.0f} cent{'s' * (round(value) != 1)}"
