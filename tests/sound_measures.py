"""What a listener notices, measured between waveforms by librosa and float64 numpy: level, envelope, onsets, pitch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from distill.features.distance import distances

_ENVELOPE_S = 0.01
# As far apart as two onsets may be that count as the same.
_ONSET_S = 0.05
# Root mean square below which a clip counts as silent.
_FAINT = 1e-3


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


class Heard(NamedTuple):
    """Figures of sounds that came back, over clips that are not silent."""

    spectral_convergence: float
    """Median of `distill.features.distance`; 0 for the same magnitudes, 1 for silence."""
    envelope: float
    """Median of `envelope_correlation`."""
    onsets: float
    """Mean of `onset_score` over clips that have onsets."""
    level_db: float
    """Median of `level_db`."""
    within_2_db: float
    """Share of clips whose level is within 2 dB."""


def heard(references: np.ndarray, estimates: np.ndarray, rate: int) -> Heard:
    """Measure clips [n, S] that came back, against the original ones."""
    is_audible = np.sqrt(np.mean(np.square(references, dtype=np.float64), axis=1)) > _FAINT
    pairs = list(zip(references[is_audible], estimates[is_audible], strict=True))
    both = (torch.from_numpy(np.ascontiguousarray(clips[is_audible]))[:, None] for clips in (references, estimates))
    levels = np.array([level_db(*pair) for pair in pairs])
    return Heard(
        float(distances(*both).spectral_convergence.median()),
        float(np.median([envelope_correlation(*pair, rate) for pair in pairs])),
        float(np.nanmean([onset_score(*pair, rate) for pair in pairs])),
        float(np.median(levels)),
        float(np.mean(np.abs(levels) <= 2)),
    )
