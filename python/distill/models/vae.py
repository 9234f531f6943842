"""ConvVAE: a convolutional VAE of a sequence of latent vectors, with a linear path, a PCA of the training rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.models.part import Part
from distill.models.pca import PCA, gate_frequency

_LOGVAR_START = -3.0
# Not reached in a healthy run; beyond it, exp() gives noise, or a KL term that ruins a step.
_LOGVAR_RANGE = (-10.0, 4.0)
_WIDTHS = (1, 2, 4, 6)
# Stages that halve frames, for each size of a patch; the others halve mel bands only. 0: one vector for the whole row.
_HALVINGS = {0: 4, 4: 2, 8: 3, 16: 4}
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
    """Whitened PCA of patches and its inverse. They are buffers: training does not change them (docs/notes/model.md).

    Parameters
    ----------
    latent_dim : int
        Size k of a latent vector.
    patch_size : int
        Size D = C·M·P of a flattened patch.
    """

    def __init__(self, latent_dim: int, patch_size: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.components: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(patch_size))
        self.register_buffer("components", torch.zeros(latent_dim, patch_size))
        self.register_buffer("scale", torch.zeros(latent_dim))

    def encode(self, patches: Tensor) -> Tensor:
        """Return the whitened coordinates [B, L, k] of flattened patches [B, L, D]; 0 along axes without variance."""
        whiten = torch.where(self.scale > 0, 1 / self.scale, 0.0)
        return F.linear(patches - self.mean, self.components) * whiten

    def decode(self, z: Tensor) -> Tensor:
        """Return the flattened patches [B, L, D] of latent vectors [B, L, k]."""
        return (z * self.scale) @ self.components + self.mean


def to_patches(rows: Tensor, frames: int) -> Tensor:
    """Cut rows [B, C, M, T] into patches [B, L, C, M, frames]; the last frame is repeated to fill the last patch."""
    missing = -rows.shape[3] % frames
    if missing:
        rows = torch.cat([rows, rows[..., -1:].expand(*rows.shape[:3], missing)], dim=3)
    patches: Tensor = rows.unflatten(3, (-1, frames)).permute(0, 3, 1, 2, 4)
    return patches


class _Dropout(nn.Dropout):
    """Dropout of a batch, or of the part of one that this process computes."""

    part: Part | None = None

    def forward(self, h: Tensor) -> Tensor:
        if self.part is None or not self.training:
            # Numbers are drawn in the order of the memory, which must not depend on how `h` came about.
            return super().forward(h.contiguous())
        return h * self.part.of(F.dropout(h.new_ones(self.part.total, *h.shape[1:]), self.p))


def _down_block(n_in: int, n_out: int, *, halves_frames: bool) -> nn.Sequential:
    """Return a layer that halves mel bands, and frames if `halves_frames`, rounded up."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride=(2, 2 if halves_frames else 1), padding=1),
        nn.GroupNorm(_GROUPS, n_out),
        nn.SiLU(),
    )


class _UpBlock(nn.Module):
    """A layer that doubles mel bands, and frames if `doubles_frames`, cropped to a given size."""

    def __init__(self, n_in: int, n_out: int, *, doubles_frames: bool = True) -> None:
        super().__init__()
        width, step = (4, 2) if doubles_frames else (3, 1)
        self.conv = nn.ConvTranspose2d(n_in, n_out, (4, width), stride=(2, step), padding=1)
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
        return h.add(self.body(h))


class ConvDecoder(nn.Module):
    """Convolutional correction of the row that the linear path decoded; zero until trained.

    Its inputs are the latent vectors and that row. The row is already close to the target, and a filter over it learns
    from few rows what the PCA blurs. The row enters at a half and at a quarter of its size; most filters work at the
    quarter, where they reach farther and cost less. docs/notes/model.md says more.

    Parameters
    ----------
    latent_dim : int
        Size k of a latent vector.
    widths : list of int
        Channels of the row and of each stage, from the outermost to the innermost.
    sizes : list of tuple of int
        Mel bands and frames of the row and of each stage, from the outermost to the innermost.
    n_latents : int
        Latent vectors L of a row.
    dropout : float
        Share of the innermost activations that training drops.
    """

    def __init__(
        self, latent_dim: int, widths: list[int], sizes: list[tuple[int, int]], n_latents: int, dropout: float
    ) -> None:
        super().__init__()
        self.sizes = sizes
        channels, half, quarter = widths[:3]
        n_mels, n_frames = sizes[-1]
        self.grid = (widths[-1], n_mels, n_frames // n_latents)
        self.start = nn.Linear(latent_dim, math.prod(self.grid))
        self.dropout = _Dropout(dropout)
        self.inner = nn.ModuleList(
            _UpBlock(a, b, doubles_frames=here[1] != there[1])
            for (a, b), (here, there) in zip(pairwise(widths[:1:-1]), pairwise(sizes[:1:-1]), strict=True)
        )
        self.look_at_quarter = nn.Conv2d(channels, quarter, 8, stride=4, padding=2)
        self.refine = nn.Sequential(_ResidualBlock(quarter), _ResidualBlock(quarter))
        self.outer = _UpBlock(quarter, half)
        self.look_at_half = nn.Conv2d(channels, half, 4, stride=2, padding=1)
        self.norm = nn.Sequential(nn.GroupNorm(_GROUPS, half), nn.SiLU())
        self.out = nn.ConvTranspose2d(half, channels, 4, stride=2, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, z: Tensor, linear: Tensor) -> Tensor:
        """Return the correction [B, C, M, T] of rows `linear` [B, C, M, T], decoded from latents `z` [B, L, k]."""
        h = self.dropout(self.start(z)).unflatten(2, self.grid).permute(0, 2, 3, 1, 4).flatten(3)
        for stage, size in zip(self.inner, self.sizes[-2:1:-1], strict=True):
            h = stage(h, size)
        # Without gradient: it would take a tenth of a step and gain next to nothing.
        h = self.refine(h + self.look_at_quarter(_pad_to_multiple(linear.detach(), 4)))
        h = self.outer(h, self.sizes[1])
        h = self.norm(h + self.look_at_half(_pad_to_multiple(linear, 2)))
        n_mels, n_frames = self.sizes[0]
        correction: Tensor = self.out(h)[:, :, :n_mels, :n_frames]
        return correction


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
        Size k of a latent vector, at least 1. Default: 128.
    n_mels : int
        Mel bands M, at least 1. Default: 128.
    n_frames : int
        Frames T, at least 1. Default: 94.
    base_channels : int
        Channels of the first stage, a multiple of 8; the others have 2, 4 and 6 times as many. Default: 16.
    dropout : float
        Share of the innermost activations of encoder and decoder that training drops, from 0 to below 1. Default: 0.
    latent_frames : int
        Frames P that a latent vector stands for: 4, 8 or 16, so that a row has L = ceil(T / P) of them; or 0 for one
        vector, L = 1, that stands for the whole row. Default: 8.

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
        latent_frames: int = 8,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "in_channels": in_channels,
            "latent_dim": latent_dim,
            "n_mels": n_mels,
            "n_frames": n_frames,
            "base_channels": base_channels,
            "dropout": dropout,
            "latent_frames": latent_frames,
        }
        _check(self.config)
        self.row_shape = (in_channels, n_mels, n_frames)
        self.latent_dim = latent_dim
        widths = [in_channels, *(base_channels * factor for factor in _WIDTHS)]
        halves = [stage < _HALVINGS[latent_frames] for stage in range(len(_WIDTHS))]
        sizes = [(n_mels, n_frames)]
        for halves_frames in halves:
            mels, frames = sizes[-1]
            sizes.append(((mels + 1) // 2, (frames + 1) // 2 if halves_frames else frames))
        self.patch_frames = latent_frames or n_frames
        self.n_latents = sizes[-1][1] if latent_frames else 1
        # Arguments of gate_frequency; with a width of 0 it changes nothing until the PCA sets it.
        self.silence: Tensor
        self.gate_width: Tensor
        self.register_buffer("silence", torch.zeros(()))
        self.register_buffer("gate_width", torch.zeros(()))
        self.linear = LinearPath(latent_dim, in_channels * n_mels * self.patch_frames)
        self.encoder = nn.Sequential(
            *(_down_block(a, b, halves_frames=h) for (a, b), h in zip(pairwise(widths), halves, strict=True))
        )
        self.dropout = _Dropout(dropout)
        flat = widths[-1] * sizes[-1][0] * sizes[-1][1] // self.n_latents
        self.mu = nn.Linear(flat, latent_dim)
        self.logvar = nn.Linear(flat, latent_dim)
        for head, start in ((self.mu, 0.0), (self.logvar, _LOGVAR_START)):
            nn.init.zeros_(head.weight)
            nn.init.constant_(head.bias, start)
        self.decoder = ConvDecoder(latent_dim, widths, sizes, self.n_latents, dropout)
        seeded = torch.Generator().manual_seed(0)
        self.latents: Tensor
        self.register_buffer("latents", torch.randn(_LATENTS, self.n_latents, latent_dim, generator=seeded))
        self.register_load_state_dict_pre_hook(_before_loading)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def set_latents(self, latents: Tensor) -> None:
        """Set the latents that samples are drawn near, by default draws from the standard normal distribution.

        Parameters
        ----------
        latents : Tensor [N, L, k]
            Latents of training rows, N at least 1. The first 512 are kept; fewer are repeated.
        """
        self.latents.copy_(latents[torch.arange(_LATENTS, device=latents.device) % len(latents)])

    @torch.no_grad()
    def init_linear_path(self, pca: PCA) -> None:
        """Set the linear path to a PCA. Missing axes are zero, axes beyond `latent_dim` are ignored.

        Parameters
        ----------
        pca : PCA
            Fitted to patches of this model's rows, as `to_patches` cuts them.

        Raises
        ------
        ValueError
            If the PCA is of patches of another size.
        """
        if pca.mean.shape != self.linear.mean.shape:
            shape = (*self.row_shape[:2], self.patch_frames)
            size = self.linear.mean.numel()
            raise ValueError(f"PCA of patches of {pca.mean.numel()} values; the model's patches {shape} have {size}")
        count = min(len(pca.components), self.latent_dim)
        self.linear.mean.copy_(pca.mean)
        self.linear.components.zero_()[:count] = pca.components[:count]
        self.linear.scale.zero_()[:count] = pca.scale[:count]
        self.silence.fill_(pca.silence)
        self.gate_width.fill_(pca.gate_width)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute mean and log variance of the posterior of the latent vectors.

        Parameters
        ----------
        x : Tensor [B, C, M, T]
            Normalised features.

        Returns
        -------
        mu, logvar : Tensor [B, L, k]

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
        # The innermost frames of each latent vector.
        h = self.dropout(h.unflatten(3, (self.n_latents, -1)).permute(0, 3, 1, 2, 4).flatten(2))
        linear = self.linear.encode(to_patches(x, self.patch_frames).flatten(2))
        return linear + self.mu(h), self.logvar(h).clamp(*_LOGVAR_RANGE)

    def decode(self, z: Tensor) -> Tensor:
        """Return the normalised features [B, C, M, T] of latent vectors `z` [B, L, k].

        Raises
        ------
        ValueError
            If `z` has another shape.
        """
        if z.ndim != 3 or tuple(z.shape[1:]) != (self.n_latents, self.latent_dim):
            raise ValueError(f"z has shape {tuple(z.shape)}, must be (B, {self.n_latents}, {self.latent_dim})")
        z = z.clone(memory_format=torch.contiguous_format)
        patches = self.linear.decode(z).unflatten(2, (*self.row_shape[:2], self.patch_frames))
        linear: Tensor = patches.permute(0, 2, 3, 1, 4).flatten(3)[..., : self.row_shape[2]].contiguous()
        return linear.add(self.decoder(z, linear))

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
        mu, logvar : Tensor [B, L, k]
        """
        self.dropout.part = self.decoder.dropout.part = part
        mu, logvar = self.encode(x)
        if not self.training:
            return self.decode(mu), mu, logvar
        noise = torch.randn_like(mu) if part is None else part.randn_like(mu)
        return self.decode(mu + noise * torch.exp(0.5 * logvar)), mu, logvar

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, part: Part | None = None) -> tuple[Tensor, Tensor, Tensor]:
            """See `forward`."""


# No lambda, which could not be pickled with the model.
def _before_loading(module: nn.Module, state: dict[str, Tensor], prefix: str, *others: object) -> None:
    add_time_axis(state, prefix)


def add_time_axis(state: dict[str, Tensor], prefix: str = "") -> None:
    """Read the latents of versions in which a row had one latent vector, [N, k], as [N, 1, k]."""
    latents = state.get(prefix + "latents")
    if latents is not None and latents.ndim == 2:
        state[prefix + "latents"] = latents[:, None]


def _check(config: dict[str, Any]) -> None:
    if config["latent_frames"] not in _HALVINGS:
        raise ValueError(f"latent_frames={config['latent_frames']} must be 0, 4, 8 or 16")
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
