"""The range of valid features: what can be inverted, and what of a model's output is kept."""

from __future__ import annotations

import warnings

import torch

from distill.errors import ConfigError
from distill.features.compression import expand
from distill.features.mel import MelSpec, band_scale
from distill.features.reference import IF_LIMIT, is_transformed

# Channel 0 above which the power overflows float32; sound within ±1 and frames of 65 536 samples reach 22.
_HIGHEST = 80.0
# It is exceeded by 90 % of normalised rows of real sound, where the median is 80 %. What a model gives may be a little
# below 0 where there is silence.
_LOWEST = -0.1
_NEGATIVE_SHARE = 0.25
# The limit for a model's channel 0: far above all sound, and still invertible.
_LOUDEST = 30.0
# Magnitude of hiss, in standard deviations of channel 0; docs/notes/inversion.md says how it was chosen.
_HISS = 0.2


def plain_features(features: torch.Tensor, spec: MelSpec) -> tuple[torch.Tensor, MelSpec]:
    """Return features with channel 0 as log1p of the power of bands without a norm, and their spec.

    Parameters
    ----------
    features : torch.Tensor
        Shape (B, C, M, T), as :func:`check_features` wants them.
    spec : MelSpec
        The feature.

    Raises
    ------
    ConfigError
        If the feature has an option that the inverse does not undo.
    """
    options = {"win_length": spec.win_length is not None, "center": not spec.center, "power": spec.power != 2}
    faults = [
        f"{name}={getattr(spec, name)} cannot be inverted: the inverse is that of centred frames, of a window as long "
        "as the frame, and of power=2"
        for name, is_other in options.items()
        if is_other
    ]
    if faults:
        raise ConfigError(faults)
    plain = spec._replace(norm=None, compression="log1p", floor=MelSpec._field_defaults["floor"])
    if plain == spec:
        return features, spec
    scale = torch.tensor(band_scale(spec), dtype=torch.float32).to(features.device)
    power = expand(features[:, :1].float(), spec) / scale[:, None]
    return torch.cat([power.log1p(), features[:, 1:].float()], dim=1), plain


def check_features(features: torch.Tensor, spec: MelSpec) -> None:
    """Raise ValueError unless `features` have the shape and type of `spec`'s, at least one frame and valid values."""
    if is_transformed(features):
        raise ValueError(
            "the inverse has no forward-mode derivative and cannot be transformed by torch.func: "
            "pass detached features, and for vmap a batch [batch, channels, n_mels, frames]"
        )
    expected = (spec.channels, spec.n_mels)
    if features.ndim != 4 or features.shape[1:3] != expected or not features.shape[3]:
        wanted = f"[batch, {spec.channels}, n_mels={spec.n_mels}, frames]"
        raise ValueError(f"features of shape {list(features.shape)} must be {wanted}, at least one frame")
    if not features.is_floating_point():
        raise ValueError(f"features of type {features.dtype} must be of a floating type, before normalisation")
    wrong = (~features.isfinite()).nonzero()
    if len(wrong):
        place = dict(zip(("clip", "channel", "mel", "frame"), wrong[0].tolist(), strict=True))
        value = features[tuple(wrong[0])].item()
        where = ", ".join(f"{name} {index}" for name, index in place.items())
        raise ValueError(f"features hold {value} at {where}: all must be finite")


def check_power(features: torch.Tensor) -> None:
    """Check channel 0, log1p of a power: ValueError if it is higher than any sound's, a warning if often negative."""
    if not features.numel():
        return
    power = features[:, 0]
    if (highest := power.max().item()) > _HIGHEST:
        raise ValueError(f"features hold a log power of {highest:g}, above {_HIGHEST:g}: undo the normalisation first")
    negative = (power < _LOWEST).float().mean().item()
    if negative > _NEGATIVE_SHARE:
        # Not an error: a model may give anything.
        warnings.warn(
            f"{negative:.0%} of the log powers are negative, which those of sound never are: denormalise rows of a "
            "dataset first, by its denormalize(rows) or distill.audio.denormalize(rows, stats)",
            stacklevel=4,
        )


@torch.no_grad()
def limit_features(features: torch.Tensor, deviation: float) -> torch.Tensor:
    """Clamp a model's output to valid features and attenuate its hiss.

    Parameters
    ----------
    features : torch.Tensor
        Shape (B, 1 or 2, M, T), before normalisation, finite; changed in place.
    deviation : float
        Standard deviation of channel 0 in the data, above 0. The hiss is proportional to it.

    Returns
    -------
    torch.Tensor
        `features`. A log power p of channel 0 becomes ``p³ / (p² + h²)`` with h a fifth of `deviation`; below 0, 0.
    """
    power = features[:, :1].clamp_(0.0, _LOUDEST)
    power *= power.square() / (power.square() + (_HISS * deviation) ** 2)
    features[:, 1:].clamp_(-IF_LIMIT, IF_LIMIT)
    return features
