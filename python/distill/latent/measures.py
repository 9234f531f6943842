"""What a row sounds like, in five numbers, measured from the row itself."""

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
"""The features, in the order of their columns, and what each is measured in."""

# The power below which a band counts as empty, as in librosa's flatness.
_LEAST_POWER = 1e-10
_LEAST_HZ = 1.0
# Of power below the loudest: 50 dB.
_RANGE = 1e-5


def measure(rows: Tensor, centres: Tensor, band_hertz: Tensor | None, *, n_fft: int) -> Tensor:
    """All features of rows, a column each.

    Parameters
    ----------
    rows : Tensor [B, C, M, T]
        Features before normalisation, C 1 or 2.
    centres : Tensor [M]
        Centres of the mel bands, Hz.
    band_hertz : Tensor [B, M, T], optional
        What `ComplexSpectrogram.to_hertz` makes of `rows`; None for one channel.
    n_fft : int
        Length of a frame, samples.

    Returns
    -------
    Tensor [B, 5], float64
        In the order and the units of `UNITS`.
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
    """Root mean square of the sound, dB re full scale (a sine of amplitude 1 has -3 dB).

    By Parseval's theorem, for a periodic Hann window (mean square 3/8): the mean over frames of
    ``2 Σ_m P_m / (3/8 n_fft²)``. It holds for the sum over bands as for that over bins, because the triangles add up to
    1 between the first and the last peak; below and above, sound is missed.

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
    """Mean frequency, weighted by power over all bands and frames: log2 of Hz, so that 1 is an octave.

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
    """How much like noise: geometric over arithmetic mean of the bands' power, dB; 0 is flat, a sine far below.

    Each frame's, averaged with the frame's power as weight, so that the silence after a sound does not count. A band's
    power grows with its width, which white noise therefore does not have flat, but pink noise nearly has.

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
    """The strongest attack: the mean over bands of the rise in dB from a frame to the next, at its largest.

    What is more than 50 dB below the row's loudest band is raised to there: the value is the same however loud the row
    is, and what a sine spills into far bands at the row's ends does not count. What is there in the first frame does
    not count either: a row does not know whether it began there.

    Parameters
    ----------
    power : Tensor [B, M, T]
        Mel power, not negative.

    Returns
    -------
    Tensor [B]
        0 for a row of one frame.
    """
    least = (power.amax(dim=(1, 2), keepdim=True) * _RANGE).clamp(min=_LEAST_POWER)
    rise_db = 10 * power.maximum(least).log10().diff(dim=2).clamp(min=0).mean(dim=1)
    return rise_db.amax(dim=1) if rise_db.shape[1] else power.new_zeros(len(power))


def pitch(power: Tensor, centres: Tensor, band_hertz: Tensor | None) -> Tensor:
    """Frequency of the strongest partial: log2 of Hz, so that 1/12 is a semitone.

    In each frame that of the band with most power: its instantaneous frequency or, without one, the mean of its centre
    and those of its two neighbours weighted by their power. Of all frames the median, each weighted by that band's
    power. It is the fundamental where that is the strongest partial, and says little of noise.

    Parameters
    ----------
    power : Tensor [B, M, T]
        Mel power, not negative.
    centres : Tensor [M]
        Centres of the bands, Hz.
    band_hertz : Tensor [B, M, T], optional
        Frequency of each band and frame, Hz.

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
    """Of each row [B, T] the smallest value that, with those below it, has half of the weight."""
    ordered, order = values.sort(dim=1)
    share = weights.gather(1, order).cumsum(dim=1)
    return ordered.gather(1, (share >= share[:, -1:] / 2).int().argmax(dim=1, keepdim=True))[:, 0]


def _octaves(hertz: Tensor) -> Tensor:
    return hertz.clamp(min=_LEAST_HZ).log() / math.log(2)
