"""ConvVAE: a convolutional VAE with a linear path, the PCA of the training rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.models.part import Part
from distill.models.pca import PCA, gate_frequency

_LOGVAR_START = -3.0
# Not reached in a healthy run; beyond it, exp() gives noise, or a KL term that ruins a step.
_LOGVAR_RANGE = (-10.0, 4.0)
_WIDTHS = (1, 2, 4, 6)
_GROUPS = 4
_LATENTS = 512


@contextmanager
def _float32_by_default() -> Iterator[None]:
    """Make weights float32 whatever the caller's default type is, as those of a run are."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class LinearPath(nn.Module):
    """Whitened PCA and its inverse. They are buffers: training does not change them (docs/notes/model.md).

    Parameters
    ----------
    latent_dim : int
        Size k of the latent vector.
    row_size : int
        Size D = C·M·T of a flattened row.
    """

    def __init__(self, latent_dim: int, row_size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(row_size))
        self.register_buffer("components", torch.zeros(latent_dim, row_size))
        self.register_buffer("scale", torch.zeros(latent_dim))

    def encode(self, rows: Tensor) -> Tensor:
        """Return the whitened coordinates [B, k] of flattened rows [B, D]; 0 along axes without variance."""
        whiten = torch.where(self.scale > 0, 1 / self.scale, 0.0)
        return F.linear(rows - self.mean, self.components) * whiten

    def decode(self, z: Tensor) -> Tensor:
        """Return the flattened rows [B, D] of latent vectors [B, k]."""
        return (z * self.scale) @ self.components + self.mean


class _Dropout(nn.Dropout):
    """Dropout of a batch, or of the part of one that this process computes."""

    part: Part | None = None

    def forward(self, h: Tensor) -> Tensor:
        if self.part is None or not self.training:
            return super().forward(h)
        return h * self.part.of(F.dropout(h.new_ones(self.part.total, *h.shape[1:]), self.p))


def _down_block(n_in: int, n_out: int) -> nn.Sequential:
    """Return a layer that halves mel bands and frames, rounded up."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride=2, padding=1),
        nn.GroupNorm(_GROUPS, n_out),
        nn.SiLU(),
    )


class _UpBlock(nn.Module):
    """A layer that doubles mel bands and frames, cropped to a given size."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(n_in, n_out, 4, stride=2, padding=1)
        self.norm = nn.GroupNorm(_GROUPS, n_out)

    def forward(self, h: Tensor, size: tuple[int, int]) -> Tensor:
        # Halving rounds odd sizes up, so doubling may give one band or frame too many.
        n_mels, n_frames = size
        return F.silu(self.norm(self.conv(h)[:, :, :n_mels, :n_frames]))


class _ResidualBlock(nn.Module):
    """A convolution that is added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(_GROUPS, width), nn.SiLU())

    def forward(self, h: Tensor) -> Tensor:
        return h + self.body(h)


class ConvDecoder(nn.Module):
    """Convolutional correction of the row that the linear path decoded; zero until trained.

    Its inputs are the latent vector and that row. The row is already close to the target, and a filter over it learns
    from few rows what the PCA blurs. The row enters at a half and at a quarter of its size; most filters work at the
    quarter, where they reach farther and cost less. docs/notes/model.md says more.

    Parameters
    ----------
    latent_dim : int
        Size k of the latent vector.
    widths : list of int
        Channels of the row and of each stage, from the outermost to the innermost.
    sizes : list of tuple of int
        Mel bands and frames of the row and of each stage, from the outermost to the innermost.
    dropout : float
        Share of the innermost activations that training drops.
    """

    def __init__(self, latent_dim: int, widths: list[int], sizes: list[tuple[int, int]], dropout: float) -> None:
        super().__init__()
        self.sizes = sizes
        channels, half, quarter = widths[:3]
        self.start = nn.Linear(latent_dim, widths[-1] * sizes[-1][0] * sizes[-1][1])
        self.dropout = _Dropout(dropout)
        self.inner = nn.ModuleList(_UpBlock(a, b) for a, b in pairwise(widths[:1:-1]))
        self.look_at_quarter = nn.Conv2d(channels, quarter, 8, stride=4, padding=2)
        self.refine = nn.Sequential(_ResidualBlock(quarter), _ResidualBlock(quarter))
        self.outer = _UpBlock(quarter, half)
        self.look_at_half = nn.Conv2d(channels, half, 4, stride=2, padding=1)
        self.norm = nn.Sequential(nn.GroupNorm(_GROUPS, half), nn.SiLU())
        self.out = nn.ConvTranspose2d(half, channels, 4, stride=2, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, z: Tensor, linear: Tensor) -> Tensor:
        """Return the correction [B, C, M, T] of rows `linear` [B, C, M, T], decoded from latent vectors `z` [B, k]."""
        h = self.dropout(self.start(z)).unflatten(1, (-1, *self.sizes[-1]))
        for stage, size in zip(self.inner, self.sizes[-2:1:-1], strict=True):
            h = stage(h, size)
        # Without gradient: it would take a tenth of a step and gain next to nothing.
        h = self.refine(h + self.look_at_quarter(_pad_to_multiple(linear.detach(), 4)))
        h = self.outer(h, self.sizes[1])
        h = self.norm(h + self.look_at_half(_pad_to_multiple(linear, 2)))
        n_mels, n_frames = self.sizes[0]
        return self.out(h)[:, :, :n_mels, :n_frames]


def _pad_to_multiple(rows: Tensor, step: int) -> Tensor:
    """Append zeros so that mel bands and frames are multiples of `step`."""
    n_mels, n_frames = rows.shape[2:]
    return F.pad(rows, (0, -n_frames % step, 0, -n_mels % step))


class ConvVAE(nn.Module):
    """Variational autoencoder of feature rows, with a linear path that makes it usable before the first step.

    ``mu = whitened PCA(x) + conv encoder(x)`` and ``output = linear + conv decoder(z, linear)`` with
    ``linear = inverse PCA(z)``. The last layers of both convolutional paths start at zero, so after `init_linear_path`
    the model is the PCA; without it, the model is a plain VAE. Features are normalised, so heads and output are linear.

    Parameters
    ----------
    in_channels : int
        1 (magnitude) or 2 (magnitude and instantaneous frequency). Default: 2.
    latent_dim : int
        Size k of the latent vector, at least 1. Default: 128.
    n_mels : int
        Mel bands M, at least 1. Default: 128.
    n_frames : int
        Frames T, at least 1. Default: 94.
    base_channels : int
        Channels of the first stage, a multiple of 8; the others have 2, 4 and 6 times as many. Default: 16.
    dropout : float
        Share of the innermost activations of encoder and decoder that training drops, from 0 to below 1. Default: 0.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    @_float32_by_default()
    def __init__(
        self,
        in_channels: int = 2,
        latent_dim: int = 128,
        *,
        n_mels: int = 128,
        n_frames: int = 94,
        base_channels: int = 16,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "in_channels": in_channels,
            "latent_dim": latent_dim,
            "n_mels": n_mels,
            "n_frames": n_frames,
            "base_channels": base_channels,
            "dropout": dropout,
        }
        _check(self.config)
        self.row_shape = (in_channels, n_mels, n_frames)
        self.latent_dim = latent_dim
        widths = [in_channels, *(base_channels * factor for factor in _WIDTHS)]
        sizes = [(n_mels, n_frames)]
        for _ in _WIDTHS:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        # Arguments of gate_frequency; with a width of 0 it changes nothing until the PCA sets it.
        self.register_buffer("silence", torch.zeros(()))
        self.register_buffer("gate_width", torch.zeros(()))
        self.linear = LinearPath(latent_dim, in_channels * n_mels * n_frames)
        stages = [_down_block(a, b) for a, b in pairwise(widths)]
        self.encoder = nn.Sequential(*stages, nn.Flatten(), _Dropout(dropout))
        flat = widths[-1] * sizes[-1][0] * sizes[-1][1]
        self.mu = nn.Linear(flat, latent_dim)
        self.logvar = nn.Linear(flat, latent_dim)
        for head, start in ((self.mu, 0.0), (self.logvar, _LOGVAR_START)):
            nn.init.zeros_(head.weight)
            nn.init.constant_(head.bias, start)
        self.decoder = ConvDecoder(latent_dim, widths, sizes, dropout)
        standard_normal = torch.randn(_LATENTS, latent_dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("latents", standard_normal)

    @torch.no_grad()
    def set_latents(self, latents: Tensor) -> None:
        """Set the latent vectors that samples are drawn near, by default draws from the standard normal distribution.

        Parameters
        ----------
        latents : Tensor [N, k]
            Latent vectors of training rows, N at least 1. The first 512 are kept; fewer are repeated.
        """
        self.latents.copy_(latents[torch.arange(_LATENTS, device=latents.device) % len(latents)])

    @torch.no_grad()
    def init_linear_path(self, pca: PCA) -> None:
        """Set the linear path to a PCA. Missing axes are zero, axes beyond `latent_dim` are ignored.

        Parameters
        ----------
        pca : PCA
            Fitted to rows of this model's shape.

        Raises
        ------
        ValueError
            If the PCA is of rows of another size.
        """
        if pca.mean.shape != self.linear.mean.shape:
            size = self.linear.mean.numel()
            raise ValueError(f"PCA of rows of {pca.mean.numel()} values; the model's rows {self.row_shape} have {size}")
        count = min(len(pca.components), self.latent_dim)
        self.linear.mean.copy_(pca.mean)
        self.linear.components.zero_()[:count] = pca.components[:count]
        self.linear.scale.zero_()[:count] = pca.scale[:count]
        self.silence.fill_(pca.silence)
        self.gate_width.fill_(pca.gate_width)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute mean and log variance of the posterior of the latent vector.

        Parameters
        ----------
        x : Tensor [B, C, M, T]
            Normalised features.

        Returns
        -------
        mu, logvar : Tensor [B, k]

        Raises
        ------
        ValueError
            If `x` has another shape.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.row_shape:
            expected = ", ".join(map(str, self.row_shape))
            raise ValueError(f"x has shape {tuple(x.shape)}, must be (B, {expected})")
        # The results of a convolution depend on the memory layout of its input, in the last bits.
        x = x.clone(memory_format=torch.contiguous_format)
        x = gate_frequency(x, self.silence, self.gate_width)
        h = self.encoder(x)
        return self.linear.encode(x.flatten(1)) + self.mu(h), self.logvar(h).clamp(*_LOGVAR_RANGE)

    def decode(self, z: Tensor) -> Tensor:
        """Return the normalised features [B, C, M, T] of latent vectors `z` [B, k].

        Raises
        ------
        ValueError
            If `z` has another shape.
        """
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"z has shape {tuple(z.shape)}, must be (B, {self.latent_dim})")
        z = z.clone(memory_format=torch.contiguous_format)
        linear = self.linear.decode(z).unflatten(1, self.row_shape)
        return linear + self.decoder(z, linear)

    def forward(self, x: Tensor, part: Part | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct `x` [B, C, M, T] from a sample of the posterior in training mode, otherwise from its mean.

        Parameters
        ----------
        x : Tensor [B, C, M, T]
            Normalised features.
        part : Part, optional
            Which rows of a batch these are, if other processes compute the others. Default: they are the whole batch.

        Returns
        -------
        reconstruction : Tensor [B, C, M, T]
        mu, logvar : Tensor [B, k]
        """
        self.encoder[-1].part = self.decoder.dropout.part = part
        mu, logvar = self.encode(x)
        if not self.training:
            return self.decode(mu), mu, logvar
        noise = torch.randn_like(mu) if part is None else part.randn_like(mu)
        return self.decode(mu + noise * torch.exp(0.5 * logvar)), mu, logvar


def _check(config: dict[str, Any]) -> None:
    if config["in_channels"] not in (1, 2):
        raise ValueError(f"in_channels={config['in_channels']} must be 1 or 2")
    for name in ("latent_dim", "n_mels", "n_frames"):
        if config[name] < 1:
            raise ValueError(f"{name}={config[name]} must be at least 1")
    # At least two channels in a group: the normalisation of a single value is zero.
    if config["base_channels"] < 1 or config["base_channels"] % (2 * _GROUPS):
        raise ValueError(f"base_channels={config['base_channels']} must be a multiple of {2 * _GROUPS}")
    if not 0 <= config["dropout"] < 1:
        raise ValueError(f"dropout={config['dropout']} must be at least 0 and below 1")
