"""The training step, and one pass over the data for training or validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import takewhile

import torch
from torch import Tensor, nn

from distill.models.losses import vae_loss
from distill.models.part import Part
from distill.models.r2 import ReconstructionR2
from distill.models.vae import ConvVAE
from distill.training.data import model_batches


@dataclass
class Means:
    """Running means of losses, weighted by rows.

    Attributes
    ----------
    rows : int
        Rows so far.
    sums : dict
        Sum over rows of each loss.
    """

    rows: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, losses: dict[str, Tensor], rows: int) -> None:
        """Add the mean losses of a batch of `rows` rows."""
        # One transfer for all losses: it is the only point at which a step waits for the device.
        values = torch.stack([value.detach() for value in losses.values()]).tolist()
        for name, value in zip(losses, values, strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value * rows
        self.rows += rows

    def result(self) -> dict[str, float]:
        """Return the means so far."""
        return {name: total / self.rows for name, total in self.sums.items()}


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    target: Tensor,
    energy: Tensor | None,
    *,
    if_weight: float,
    kl_weight: float,
    free_bits: float,
    loud_share: float,
    gradient_clip: float,
    part: Part | None = None,
) -> dict[str, Tensor]:
    """Update the model on one batch, and return the losses as `distill.models.vae_loss` does.

    Parameters
    ----------
    model : ConvVAE
        In training mode; as `World.wrap` returns it, if it is trained by several processes.
    optimizer : torch.optim.Optimizer
        Over the model's parameters.
    target : Tensor [B, C, M, T]
        Normalised features, on the model's device.
    energy : Tensor [B, M, T] or None
        Weights of the instantaneous frequency.
    if_weight, kl_weight, free_bits, loud_share : float
        See `distill.models.vae_loss`.
    gradient_clip : float
        Largest gradient norm.
    part : Part, optional
        Which rows of a batch these are, if other processes compute the others.
    """
    reconstruction, mu, logvar = model(target) if part is None else model(target, part)
    weights = {"if_weight": if_weight, "kl_weight": kl_weight, "free_bits": free_bits, "loud_share": loud_share}
    losses = vae_loss(reconstruction, target, mu, logvar, energy, **weights, part=part)
    optimizer.zero_grad(set_to_none=True)
    losses["loss"].backward()
    nn.utils.clip_grad_norm_(model.parameters(), gradient_clip)
    optimizer.step()
    return losses


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
    loud_share: float = 0.5,
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
        Turns waveforms into features; required for waveforms.
    use_cached_spectrograms : bool
        Whether the loader yields features, not waveforms. Default: False.
    normalization_stats : dict, optional
        mag_mean, mag_std, and if_mean, if_std for two channels. They normalise the features of waveforms, and give
        channel 0 before normalisation, by which the instantaneous frequency is weighted. Required for features.
    if_weight, kl_weight, free_bits, loud_share : float
        See `distill.models.vae_loss`.
    gradient_clip : float
        Largest gradient norm. Default: 1.
    shifted_share : float
        Share of the rows that `distill.training.shifts.shift_rows` moves. Default: 0.
    means : Means, optional
        Running means of the epoch's earlier steps, which the result then includes.
    before_step : callable, optional
        Called before each step; the pass ends when it returns False.

    Returns
    -------
    dict
        Means over rows: loss, magnitude, instantaneous_frequency, kl.

    Raises
    ------
    ValueError
        If a batch has the wrong shape, or features come without statistics.

    Examples
    --------
    >>> import torch
    >>> from distill.audio import ComplexSpectrogramConfig, preprocess_complex_spectrograms
    >>> from distill.models import ConvVAE
    >>> from distill.training import TrainingConfig, create_complex_data_loaders, train_epoch
    >>> cache_dir, stats = preprocess_complex_spectrograms(None, "recordings", ComplexSpectrogramConfig())
    >>> train_loader, val_loader = create_complex_data_loaders(cache_dir, TrainingConfig(batch_size=2))
    >>> model = ConvVAE(in_channels=2, latent_dim=16)
    >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    >>> losses = train_epoch(
    ...     model, train_loader, optimizer, use_cached_spectrograms=True, normalization_stats=stats
    ... )
    >>> list(losses)
    ['loss', 'magnitude', 'instantaneous_frequency', 'kl']
    """
    model.train()
    device = next(model.parameters()).device
    means = Means() if means is None else means
    loaded = loader if before_step is None else takewhile(lambda _: before_step(), loader)
    for target, energy, _ in model_batches(
        loaded,
        spectrogram,
        normalization_stats,
        device,
        cached=use_cached_spectrograms,
        shifted_share=shifted_share,
    ):
        losses = train_step(
            model,
            optimizer,
            target,
            energy,
            if_weight=if_weight,
            kl_weight=kl_weight,
            free_bits=free_bits,
            loud_share=loud_share,
            gradient_clip=gradient_clip,
        )
        means.add(losses, len(target))
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
    loud_share: float = 0.5,
    parts: Iterable[Part | None] | None = None,
) -> dict[str, float]:
    """Compute the losses and R² of a model over `loader`, without sampling or dropout.

    Parameters
    ----------
    model, loader, spectrogram, use_cached_spectrograms, normalization_stats
        As for `train_epoch`.
    band_means : Tensor of shape [C, n_mels], optional
        Mean of the normalised training features in each mel band, weighted by energy for the instantaneous frequency;
        the baseline of R². Default: zeros, the mean over all bands.
    if_weight, kl_weight, free_bits, loud_share
        As for `train_epoch`.
    parts : iterable of Part, optional
        Which rows of its batch each batch of `loader` is, if other processes compute the others; see `World.parts`.

    Returns
    -------
    dict
        Means over rows: loss, magnitude, instantaneous_frequency, kl. Over the whole pass: magnitude_r2, if_r2, NaN
        for a channel that the features do not have.

    Raises
    ------
    ValueError
        If a batch has the wrong shape, or features come without statistics.

    Examples
    --------
    >>> from distill.audio import ComplexSpectrogramConfig, preprocess_complex_spectrograms
    >>> from distill.models import ConvVAE
    >>> from distill.training import TrainingConfig, create_complex_data_loaders, validate_epoch
    >>> cache_dir, stats = preprocess_complex_spectrograms(None, "recordings", ComplexSpectrogramConfig())
    >>> train_loader, val_loader = create_complex_data_loaders(cache_dir, TrainingConfig(batch_size=2))
    >>> model = ConvVAE(in_channels=2, latent_dim=16)
    >>> figures = validate_epoch(model, val_loader, use_cached_spectrograms=True, normalization_stats=stats)
    >>> list(figures)
    ['loss', 'magnitude', 'instantaneous_frequency', 'kl', 'magnitude_r2', 'if_r2']
    """
    model.eval()
    device = next(model.parameters()).device
    means, r2, part = Means(), None, None
    weights = {"if_weight": if_weight, "kl_weight": kl_weight, "free_bits": free_bits, "loud_share": loud_share}
    for target, energy, part in model_batches(
        loader, spectrogram, normalization_stats, device, cached=use_cached_spectrograms, parts=parts
    ):
        if r2 is None:
            r2 = ReconstructionR2(target.new_zeros(target.shape[1:3]) if band_means is None else band_means.to(device))
        reconstruction, mu, logvar = model(target)
        losses = vae_loss(reconstruction, target, mu, logvar, energy, **weights, part=part)
        means.add(losses, len(target) if part is None else part.total)
        r2.update(reconstruction, target, energy)
    if r2 is not None and part is not None:
        r2.add_up(part.add_up)
    undefined = {"magnitude_r2": math.nan, "if_r2": math.nan}
    return means.result() | undefined | (r2.result() if r2 is not None else {})
