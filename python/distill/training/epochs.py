"""One pass over the data, for training or for validation; the same functions serve both paths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from distill.features.normalization import energy_of, normalize, silence_of
from distill.models.losses import vae_loss
from distill.models.r2 import ReconstructionR2
from distill.models.vae import ConvVAE
from distill.training.shifts import shift_rows


@dataclass
class Means:
    """Running means of named figures, weighted by rows."""

    rows: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, figures: dict[str, Tensor], rows: int) -> None:
        """Add a batch's means."""
        # The one point where training waits for the device: the figures are wanted on the host.
        values = torch.stack([value.detach() for value in figures.values()]).tolist()
        for name, value in zip(figures, values, strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value * rows
        self.rows += rows

    def result(self) -> dict[str, float]:
        """The means so far."""
        return {name: total / self.rows for name, total in self.sums.items()}


def _features(
    batch: Tensor,
    spectrogram: nn.Module | None,
    stats: dict[str, float] | None,
    device: torch.device,
    *,
    cached: bool,
) -> Tensor:
    """Normalised features [B, C, M, T]."""
    shape = list(batch.shape)
    if cached:
        if batch.ndim != 4 or batch.shape[1] != 2:
            raise ValueError(f"a batch of cached spectrograms must be [B, 2, n_mels, T], this one is {shape}")
        features = batch.to(device)
    else:
        if batch.ndim != 3 or batch.shape[1] != 1:
            raise ValueError(f"a batch of waveforms must be [B, 1, samples], this one is {shape}")
        if spectrogram is None:
            raise ValueError("waveforms need a spectrogram: pass spectrogram=AudioSpectrogram(...)")
        with torch.no_grad():
            features = normalize(spectrogram(batch.to(device)), stats)
    return features


def train_epoch(
    model: ConvVAE,
    loader: Iterable[Tensor],
    optimizer: torch.optim.Optimizer,
    spectrogram: nn.Module | None = None,
    *,
    use_cached_spectrograms: bool = False,
    normalization_stats: dict[str, float] | None = None,
    if_weight: float = 0.5,
    kl_weight: float = 2e-3,
    free_bits: float = 0.05,
    gradient_clip: float = 1.0,
    shifted_share: float = 0.0,
    means: Means | None = None,
    before_step: Callable[[], bool] | None = None,
) -> dict[str, float]:
    """Train for one pass over `loader`.

    Parameters
    ----------
    model : ConvVAE
        On the device to train on.
    loader : iterable of Tensor
        Waveforms [B, 1, S], or normalised features [B, 2, n_mels, T] if `use_cached_spectrograms`.
    optimizer : torch.optim.Optimizer
        Over the model's parameters.
    spectrogram : nn.Module, optional
        Waveforms to features; needed for waveforms.
    use_cached_spectrograms : bool
        What the loader gives. Default: False.
    normalization_stats : dict, optional
        mag_mean, mag_std, and if_mean, if_std for two channels: applied to features of waveforms, and used to weigh
        the instantaneous frequency by channel 0 before normalisation.
    if_weight, kl_weight, free_bits : float
        See `distill.models.vae_loss`.
    gradient_clip : float
        Largest gradient norm. Default: 1.
    shifted_share : float
        Share of the rows that `distill.training.shifts.shift_rows` moves. Default: 0.
    means : Means, optional
        Figures of an epoch's earlier steps, which the result then covers too.
    before_step : callable, optional
        Called before each step; False ends the pass.

    Returns
    -------
    dict
        Means over rows: loss, magnitude, instantaneous_frequency, kl.

    Raises
    ------
    ValueError
        If a batch has the wrong shape.
    """
    model.train()
    device = next(model.parameters()).device
    means = Means() if means is None else means
    for batch in loader:
        if before_step is not None and not before_step():
            break
        target = _features(batch, spectrogram, normalization_stats, device, cached=use_cached_spectrograms)
        target = shift_rows(target, shifted_share, silence_of(target, normalization_stats))
        energy = energy_of(target, normalization_stats)
        reconstruction, mu, logvar = model(target)
        figures = vae_loss(
            reconstruction, target, mu, logvar, energy, if_weight=if_weight, kl_weight=kl_weight, free_bits=free_bits
        )
        optimizer.zero_grad(set_to_none=True)
        figures["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), gradient_clip)
        optimizer.step()
        means.add(figures, len(target))
    return means.result()


@torch.no_grad()
def validate_epoch(
    model: ConvVAE,
    loader: Iterable[Tensor],
    spectrogram: nn.Module | None = None,
    *,
    use_cached_spectrograms: bool = False,
    normalization_stats: dict[str, float] | None = None,
    band_means: Tensor | None = None,
    if_weight: float = 0.5,
    kl_weight: float = 2e-3,
    free_bits: float = 0.05,
) -> dict[str, float]:
    """Measure a model over `loader`, without sampling or dropout.

    Parameters
    ----------
    model, loader, spectrogram, use_cached_spectrograms, normalization_stats, if_weight, kl_weight, free_bits
        As for `train_epoch`.
    band_means : Tensor of shape [C, n_mels], optional
        Mean of the normalised training features per mel band, that of the IF weighted by energy: what R² compares
        with. Default: zeros, the mean over all bands.

    Returns
    -------
    dict
        Means over rows: loss, magnitude, instantaneous_frequency, kl; and magnitude_r2, if_r2 over all of them
        (NaN where there is no such channel).

    Raises
    ------
    ValueError
        If a batch has the wrong shape.
    """
    model.eval()
    device = next(model.parameters()).device
    means, r2 = Means(), None
    for batch in loader:
        target = _features(batch, spectrogram, normalization_stats, device, cached=use_cached_spectrograms)
        energy = energy_of(target, normalization_stats)
        if r2 is None:
            r2 = ReconstructionR2(target.new_zeros(target.shape[1:3]) if band_means is None else band_means.to(device))
        reconstruction, mu, logvar = model(target)
        figures = vae_loss(
            reconstruction, target, mu, logvar, energy, if_weight=if_weight, kl_weight=kl_weight, free_bits=free_bits
        )
        means.add(figures, len(target))
        r2.update(reconstruction, target, energy)
    unknown = {"magnitude_r2": math.nan, "if_r2": math.nan}
    return means.result() | unknown | (r2.result() if r2 is not None else {})
