"""ConvVAE: a convolutional VAE around a linear path, the PCA of the training rows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.models.pca import PCA, gate_frequency

_LOGVAR_START = -3.0
# Wide enough never to bind in a healthy run; beyond it, exp() makes noise or a KL that ruins a step.
_LOGVAR_RANGE = (-10.0, 4.0)
_WIDTHS = (1, 2, 4, 6)
_GROUPS = 4
_LATENTS = 512


class LinearPath(nn.Module):
    """Whitened PCA and its inverse, fixed: trained along, they gained nothing and doubled the weights.

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
        """Whitened coordinates [B, k] of flattened rows [B, D]; 0 along axes without scale."""
        whiten = torch.where(self.scale > 0, 1 / self.scale, 0.0)
        return F.linear(rows - self.mean, self.components) * whiten

    def decode(self, z: Tensor) -> Tensor:
        """Flattened rows [B, D] of latent vectors [B, k]."""
        return (z * self.scale) @ self.components + self.mean


def _down(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride=2, padding=1),
        nn.GroupNorm(_GROUPS, n_out),
        nn.SiLU(),
    )


class _Up(nn.Module):
    """Twice the size: a transposed convolution, normalised."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(n_in, n_out, 4, stride=2, padding=1)
        self.norm = nn.GroupNorm(_GROUPS, n_out)

    def forward(self, h: Tensor, size: tuple[int, int]) -> Tensor:
        # Odd sizes were halved upwards on the way in, so one line is cut off.
        n_mels, n_frames = size
        return F.silu(self.norm(self.conv(h)[:, :, :n_mels, :n_frames]))


class _Residual(nn.Module):
    """A convolution, added to what it is given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(_GROUPS, width), nn.SiLU())

    def forward(self, h: Tensor) -> Tensor:
        return h + self.body(h)


class ConvDecoder(nn.Module):
    """Correction of the linear path's row, from the latent vector and that row; zero until trained.

    The latent vector alone tells too little from little data. The row is already close, and what the PCA blurs in it
    (a partial between two bands, noise around an attack) looks alike everywhere: a filter learns that from few rows. It
    sees the row at a half and at a quarter of its size, and works at the quarter, where a filter reaches farther and
    costs less.

    Parameters
    ----------
    latent_dim : int
        Size k of the latent vector.
    widths : list of int
        Channels of the row and of each stage, from the row inwards.
    sizes : list of tuple of int
        Mel bands and frames of the row and of each stage, from the row inwards.
    dropout : float
        Share of the innermost activations that a training step leaves out.
    """

    def __init__(self, latent_dim: int, widths: list[int], sizes: list[tuple[int, int]], dropout: float) -> None:
        super().__init__()
        self.sizes = sizes
        channels, half, quarter = widths[:3]
        self.start = nn.Linear(latent_dim, widths[-1] * sizes[-1][0] * sizes[-1][1])
        self.dropout = nn.Dropout(dropout)
        self.inner = nn.ModuleList(_Up(a, b) for a, b in pairwise(widths[:1:-1]))
        self.look_at_quarter = nn.Conv2d(channels, quarter, 8, stride=4, padding=2)
        self.refine = nn.Sequential(_Residual(quarter), _Residual(quarter))
        self.outer = _Up(quarter, half)
        self.look_at_half = nn.Conv2d(channels, half, 4, stride=2, padding=1)
        self.norm = nn.Sequential(nn.GroupNorm(_GROUPS, half), nn.SiLU())
        self.out = nn.ConvTranspose2d(half, channels, 4, stride=2, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, z: Tensor, linear: Tensor) -> Tensor:
        """Correction [B, C, M, T] of `linear` [B, C, M, T], decoded from latent vectors `z` [B, k]."""
        h = self.dropout(self.start(z)).unflatten(1, (-1, *self.sizes[-1]))
        for stage, size in zip(self.inner, self.sizes[-2:1:-1], strict=True):
            h = stage(h, size)
        # The gradient through so large a filter took a tenth of a step, and gained less than seeds differ.
        h = self.refine(h + self.look_at_quarter(_pad_to_multiple(linear.detach(), 4)))
        h = self.outer(h, self.sizes[1])
        h = self.norm(h + self.look_at_half(_pad_to_multiple(linear, 2)))
        n_mels, n_frames = self.sizes[0]
        return self.out(h)[:, :, :n_mels, :n_frames]


def _pad_to_multiple(rows: Tensor, step: int) -> Tensor:
    """Zeros at the upper edges, so that mel bands and frames are multiples of `step`."""
    n_mels, n_frames = rows.shape[2:]
    return F.pad(rows, (0, -n_frames % step, 0, -n_mels % step))


class ConvVAE(nn.Module):
    """Variational autoencoder of feature rows, useful from the first step through its linear path.

    ``mu = whitened PCA(x) + conv encoder(x)`` and ``output = linear + conv decoder(z, linear)`` with
    ``linear = inverse PCA(z)``. The convolutions' last layers start at zero, so after `init_linear_path` the model is
    the PCA, and without it, a plain VAE. Features are z-scored, so heads and output are linear.

    Parameters
    ----------
    in_channels : int
        1 (magnitude) or 2 (magnitude and instantaneous frequency).
    latent_dim : int
        Size k of the latent vector, at least 1.
    n_mels : int
        Mel bands M, at least 1.
    n_frames : int
        Frames T, at least 1.
    base_channels : int
        Channels of the first stage, a multiple of 8; the others have 2, 4 and 6 times as many.
    dropout : float
        Share of the innermost activations of encoder and decoder that a training step leaves out, from 0 to below 1.

    Raises
    ------
    ValueError
        A parameter outside its range.
    """

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
        # Silence and width of the frequency's gate; a width of 0 passes everything until the PCA sets it.
        self.register_buffer("silence", torch.zeros(()))
        self.register_buffer("gate_width", torch.zeros(()))
        self.linear = LinearPath(latent_dim, in_channels * n_mels * n_frames)
        stages = [_down(a, b) for a, b in pairwise(widths)]
        self.encoder = nn.Sequential(*stages, nn.Flatten(), nn.Dropout(dropout))
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
        """Say where samples are drawn from, instead of the standard normal distribution.

        Parameters
        ----------
        latents : Tensor [N, k]
            Latent vectors of data, N at least 1; the first 512 are kept, fewer are repeated.
        """
        self.latents.copy_(latents[torch.arange(_LATENTS, device=latents.device) % len(latents)])

    @torch.no_grad()
    def init_linear_path(self, pca: PCA) -> None:
        """Make `pca` the linear path; axes that it lacks stay zero, axes beyond `latent_dim` are left out.

        Parameters
        ----------
        pca : PCA
            Fitted to rows of this model's shape.

        Raises
        ------
        ValueError
            The PCA is of rows of another size.
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
        """Mean and log variance of the latent vector.

        Parameters
        ----------
        x : Tensor [B, C, M, T]
            Z-scored features.

        Returns
        -------
        mu, logvar : Tensor [B, k]

        Raises
        ------
        ValueError
            `x` has another shape.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.row_shape:
            expected = ", ".join(map(str, self.row_shape))
            raise ValueError(f"x has shape {tuple(x.shape)}, must be (B, {expected})")
        x = gate_frequency(x, self.silence, self.gate_width)
        h = self.encoder(x)
        return self.linear.encode(x.flatten(1)) + self.mu(h), self.logvar(h).clamp(*_LOGVAR_RANGE)

    def decode(self, z: Tensor) -> Tensor:
        """Features [B, C, M, T], z-scored, of latent vectors `z` [B, k].

        Raises
        ------
        ValueError
            `z` has another shape.
        """
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"z has shape {tuple(z.shape)}, must be (B, {self.latent_dim})")
        linear = self.linear.decode(z).unflatten(1, self.row_shape)
        return linear + self.decoder(z, linear)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct `x` [B, C, M, T], from a sample of the latent vector in training mode, else from its mean.

        Returns
        -------
        reconstruction : Tensor [B, C, M, T]
        mu, logvar : Tensor [B, k]
        """
        mu, logvar = self.encode(x)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar) if self.training else mu
        return self.decode(z), mu, logvar


def _check(config: dict[str, Any]) -> None:
    if config["in_channels"] not in (1, 2):
        raise ValueError(f"in_channels={config['in_channels']} must be 1 or 2")
    for name in ("latent_dim", "n_mels", "n_frames"):
        if config[name] < 1:
            raise ValueError(f"{name}={config[name]} must be at least 1")
    # A group of one channel and one point would be normalised to nothing.
    if config["base_channels"] < 1 or config["base_channels"] % (2 * _GROUPS):
        raise ValueError(f"base_channels={config['base_channels']} must be a multiple of {2 * _GROUPS}")
    if not 0 <= config["dropout"] < 1:
        raise ValueError(f"dropout={config['dropout']} must be at least 0 and below 1")
