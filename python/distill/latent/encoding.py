"""What the model makes of a dataset: latent vectors, measures of the rows, and the effect of each latent unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.cache.places import Provenance
from distill.errors import CacheError
from distill.features.mel import MelSpec
from distill.features.normalization import denormalize
from distill.features.spectrogram import ComplexSpectrogram
from distill.latent.measures import measure
from distill.latent.rows import Rows
from distill.models import ConvVAE
from distill.models.losses import kl_of_units
from distill.runs.trained import TrainedRun
from distill.types import ProgressCallback

# Enough latent vectors to measure effects at; the figures are in docs/notes/sound.md.
_EFFECT_ROWS = 4
_EFFECT_STEP = 0.5
_EFFECT_UNITS = 16


@dataclass(frozen=True)
class Encoded:
    """An encoded dataset of N rows."""

    latents: Tensor
    """Posterior means, [N, L, k], float32."""
    features: Tensor
    """The measures of each row, [N, F], float64."""
    kl: Tensor
    """KL divergence of each latent unit, mean over rows and time, nats, [k]."""
    places: list[Provenance]
    """Where each row comes from."""


@torch.no_grad()
def encode(run: TrainedRun, rows: Rows, progress: ProgressCallback) -> Encoded:
    """Encode and measure all rows.

    Raises
    ------
    CacheError
        If the rows do not fit the model.
    """
    model, config = run.model, run.config
    device = next(model.parameters()).device
    spectrogram = ComplexSpectrogram(config.complex_spectrogram)
    centres = torch.from_numpy(MelSpec.of(config.features).centres_hz())
    latents, features = [], []
    places: list[Provenance] = []
    kl = torch.zeros(model.latent_dim, dtype=torch.float64)
    for batch in rows.batches(progress):
        shape = tuple(batch.features.shape[1:])
        if shape != model.row_shape:
            raise CacheError(
                f"{rows.dataset.path}: rows {list(shape)} do not fit the model's {list(model.row_shape)}",
                "put back the config.toml that the run was trained with",
            )
        mu, logvar = model.encode(batch.features.to(device))
        kl += kl_of_units(mu, logvar).cpu().double().mean(dim=1).sum(dim=0)
        latents.append(mu.cpu())
        raw = denormalize(batch.features, run.stats)
        hertz = spectrogram.to_hertz(raw) if raw.shape[1] == 2 else None
        features.append(measure(raw, centres, hertz, n_fft=config.features.n_fft))
        places += batch.places
    return Encoded(torch.cat(latents), torch.cat(features), kl / len(places), places)


@torch.no_grad()
def unit_effects(model: ConvVAE, latents: Tensor, progress: ProgressCallback) -> Tensor:
    """Measure how much each latent unit, changed throughout a row, changes the decoded magnitude.

    Parameters
    ----------
    model : ConvVAE
        The model.
    latents : Tensor [N, L, k]
        Latent vectors. Finite differences are taken at a few of them.
    progress : callable
        Called with ("effect", units done, k).

    Returns
    -------
    Tensor [k]
        Root mean square change of the magnitude for a change of the unit by 1.
    """
    device = next(model.parameters()).device
    z = latents[:: max(1, len(latents) // _EFFECT_ROWS)][:_EFFECT_ROWS].to(device)
    before = model.decode(z)[:, 0]
    effects = []
    for units in torch.arange(model.latent_dim, device=device).split(_EFFECT_UNITS):
        step = _EFFECT_STEP * F.one_hot(units, model.latent_dim).to(z.dtype)
        after = model.decode((z + step[:, None, None]).flatten(0, 1))[:, 0].unflatten(0, (len(units), len(z)))
        effects.append((after - before).square().mean(dim=(1, 2, 3)).sqrt().cpu() / _EFFECT_STEP)
        progress("effect", int(units[-1]) + 1, model.latent_dim)
    return torch.cat(effects)
