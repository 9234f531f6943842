"""What a listener notices, measured between waveforms by librosa and float64 numpy: level, envelope, onsets, pitch."""

from __future__ import annotations

import numpy as np

_ENVELOPE_S = 0.01
# As far apart as two onsets may be that count as the same.
_ONSET_S = 0.05


def level_db(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Return by how much the mean power of `estimate` is above that of `reference`, dB."""
    powers = [np.mean(np.square(sound, dtype=np.float64)) for sound in (reference, estimate)]
    return float(10 * np.log10(max(powers[1], 1e-20) / max(powers[0], 1e-20)))


def envelope_correlation(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Return the correlation of the root mean squares over 20 ms, each 10 ms; 0 if one of them is constant."""
    envelopes = [_envelope(sound, round(_ENVELOPE_S * rate)) for sound in (reference, estimate)]
    first, second = (envelope - envelope.mean() for envelope in envelopes)
    product = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / product) if product > 1e-12 else 0.0


def _envelope(sound: np.ndarray, hop: int) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(sound.astype(np.float64), 2 * hop)[::hop]
    return np.sqrt(np.mean(windows**2, axis=1))


def onsets(sound: np.ndarray, rate: int) -> np.ndarray:
    """Return the times of the onsets that librosa finds, seconds."""
    import librosa

    return librosa.onset.onset_detect(y=sound.astype(np.float32), sr=rate, units="time")


def onset_score(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Return the F-measure of the onsets of `estimate`; NaN if the reference has none."""
    wanted, found = onsets(reference, rate), onsets(estimate, rate)
    if not wanted.size:
        return float("nan")
    left, hits = list(found), 0
    for time in wanted:
        near = min(left, key=lambda other: abs(other - time), default=None)
        if near is not None and abs(near - time) <= _ONSET_S:
            left.remove(near)
            hits += 1
    return 2 * hits / (wanted.size + found.size)
