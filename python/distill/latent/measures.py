"""Five perceptual features of a row, computed from the row itself: level, brightness, noisiness, attack and pitch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

UNITS = {
    "rms": "dB re full scale",
    "spectral_centroid": "log2 Hz",
    "flatness": "dB",
    "onset_strength": "dB a frame",
    "pitch": "log2 Hz",
}
"""The unit of each feature, in the order of the columns of `measure`."""

# Floor of the power, as in librosa.feature.spectral_flatness.
_LEAST_POWER = 1e-10
_LEAST_HZ = 1.0
# Floor of the power relative to the loudest band: -50 dB.
_ONSET_FLOOR = 1e-5


def measure(rows: Tensor, centres: Tensor, band_hertz: Tensor | None, *, n_fft: int) -> Tensor:
    """Compute all features of rows.

    Parameters
    ----------
    rows : Tensor [B, C, M, T]
        Features before normalisation, C 1 or 2.
    centres : Tensor [M]
        Centres of the mel bands, Hz.
    band_hertz : Tensor [B, M, T], optional
        Instantaneous frequency of each band, from `ComplexSpectrogram.to_hertz`; None for one channel.
    n_fft : int
        Length of a frame, samples.

    Returns
    -------
    Tensor [B, 5], float64
        A column for each feature, in the order and the units of `UNITS`.
    """
    power = rows[:, 0].double().clamp(min=0).expm1()
    centres = centres.double()
    columns = {
        "rms": rms(power, n_fft),
        "spectral_centroid": spectral_centroid(power, centres),
        "flatness": flatness(power),
        "onset_strength": onset_strength(power),
        "pitch": pitch(power, centres, band_hertz),
    }
    return torch.stack([columns[name] for name in UNITS], dim=1)


def rms(power: Tensor, n_fft: int) -> Tensor:
    """Compute the root mean square of the sound in dB re full scale; a sine of amplitude 1 has -3 dB.

    By Parseval's theorem, for a periodic Hann window (mean square 3/8): the mean over frames of
    ``2 Σ_m P_m / (3/8 n_fft²)``. The sum over bands equals that over bins between the first and the last peak of the
    mel filters, where the triangles add up to 1. Sound below and above is missed.

    Parameters
    ----------
    power : Tensor [B, M, T]
        Mel power, not negative.
    n_fft : int
        Length of a frame, samples.

    Returns
    -------
    Tensor [B]
    """
    mean_square = power.sum(dim=1).mean(dim=1) * 2 / (0.375 * n_fft**2)
    return 10 * mean_square.clamp(min=_LEAST_POWER).log10()


def spectral_centroid(power: Tensor, centres: Tensor) -> Tensor:
    """Compute the mean frequency, weighted by power over all bands and frames, in log2 of Hz, so that 1 is an octave.

    Parameters
    ----------
    power : Tensor [B, M, T]
        Mel power, not negative.
    centres : Tensor [M]
        Centres of the bands, Hz.

    Returns
    -------
    Tensor [B]
    """
    spectrum = power.sum(dim=2) + _LEAST_POWER
    return _octaves((spectrum @ centres) / spectrum.sum(dim=1))


def flatness(power: Tensor) -> Tensor:
    """Compute the spectral flatness, dB: geometric over arithmetic mean of the bands' power. A sine is far below 0.

    It is averaged over frames, weighted by their power, so that the silence after a sound does not count. The power of
    a band grows with its bandwidth, so white noise is not flat on the mel scale, and pink noise nearly is.

    Parameters
    ----------
    power : Tensor [B, M, T]
        Mel power, not negative.

    Returns
    -------
    Tensor [B]
    """
    floored = power.clamp(min=_LEAST_POWER)
    ratio_db = 10 * (floored.log10().mean(dim=1) - floored.mean(dim=1).log10())
    weight = floored.sum(dim=1)
    return (ratio_db * weight).sum(dim=1) / weight.sum(dim=1)


def onset_strength(power: Tensor) -> Tensor:
    """Compute the strongest attack: the maximum over time of the mean over bands of the rise in dB between frames.

    Power more than 50 dB below the loudest band is raised to that level. The result therefore does not depend on the
    level of the row, or on the leakage of a sine into distant bands at the ends of the row. Sound in the first frame
    does not count, because it may have begun earlier.

    Parameters
    ----------
    power : Tensor [B, M, T]
        Mel power, not negative.

    Returns
    -------
    Tensor [B]
        0 for a row of one frame.
    """
    least = (power.amax(dim=(1, 2), keepdim=True) * _ONSET_FLOOR).clamp(min=_LEAST_POWER)
    rise_db = 10 * power.maximum(least).log10().diff(dim=2).clamp(min=0).mean(dim=1)
    return rise_db.amax(dim=1) if rise_db.shape[1] else power.new_zeros(len(power))


def pitch(power: Tensor, centres: Tensor, band_hertz: Tensor | None) -> Tensor:
    """Estimate the frequency of the strongest partial in log2 of Hz, so that 1/12 is a semitone.

    In each frame, the band with the most power gives the frequency: its instantaneous frequency or, for one channel,
    the mean of its centre and those of its two neighbours, weighted by their power. The result is the median over
    frames, weighted by the power of that band. It is the fundamental if that is the strongest partial, and is not
    meaningful for noise.

    Parameters
    ----------
    power : Tensor [B, M, T]
        Mel power, not negative.
    centres : Tensor [M]
        Centres of the bands, Hz.
    band_hertz : Tensor [B, M, T], optional
        Instantaneous frequency of each band and frame, Hz.

    Returns
    -------
    Tensor [B]
    """
    loudest = power.argmax(dim=1, keepdim=True)
    weight = power.gather(1, loudest)[:, 0] + _LEAST_POWER
    if band_hertz is not None:
        hertz = band_hertz.double().gather(1, loudest)[:, 0]
    else:
        around = torch.cat([(loudest + step).clamp(0, len(centres) - 1) for step in (-1, 0, 1)], dim=1)
        shares = power.gather(1, around) + _LEAST_POWER
        hertz = (shares * centres[around]).sum(dim=1) / shares.sum(dim=1)
    return _octaves(_weighted_median(hertz, weight))


def _weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted median of each row [B, T]: the smallest value at which half of the weight is reached."""
    ordered, order = values.sort(dim=1)
    share = weights.gather(1, order).cumsum(dim=1)
    return ordered.gather(1, (share >= share[:, -1:] / 2).int().argmax(dim=1, keepdim=True))[:, 0]


def _octaves(hertz: Tensor) -> Tensor:
    return hertz.clamp(min=_LEAST_HZ).log() / math.log(2)
