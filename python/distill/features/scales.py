"""Mel scales, of single frequencies. Imports no numpy, so that a configuration can be looked at without it."""

from __future__ import annotations

import math

from distill.config import MelScale, SpectrogramConfig

# Slaney's scale: linear up to 1 kHz, then 27 mels for a factor of 6.4 [1]_.
SLANEY_HZ, SLANEY_CORNER = 200.0 / 3.0, 1000.0
SLANEY_STEP = math.log(6.4) / 27.0


def hertz_to_mel(frequency: float, scale: MelScale = "htk") -> float:
    """Return a frequency in Hz as mels."""
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + frequency / 700.0)
    if frequency < SLANEY_CORNER:
        return frequency / SLANEY_HZ
    return SLANEY_CORNER / SLANEY_HZ + math.log(frequency / SLANEY_CORNER) / SLANEY_STEP


def mel_to_hertz(mels: float, scale: MelScale = "htk") -> float:
    """Return mels as a frequency in Hz."""
    if scale == "htk":
        return 700.0 * (math.pow(10.0, mels / 2595.0) - 1.0)
    above = max(mels - SLANEY_CORNER / SLANEY_HZ, 0.0)
    return min(mels * SLANEY_HZ, SLANEY_CORNER) * math.exp(SLANEY_STEP * above)


def has_wide_bands(config: SpectrogramConfig) -> bool:
    """Whether each mel band is so wide that at least one bin of the DFT lies in it; False if that is not sure."""
    top = config.sample_rate / 2 if config.f_max is None else config.f_max
    low, high = (hertz_to_mel(frequency, config.mel_scale) for frequency in (config.f_min, top))
    # In Hz, the lowest band is the narrowest; it begins at f_min.
    width = mel_to_hertz(low + 2 * (high - low) / (config.n_mels + 1), config.mel_scale) - config.f_min
    # With room for the rounding errors of band edges.
    return width > 1.01 * config.sample_rate / config.n_fft
