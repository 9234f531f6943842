"""The distribution that samples are drawn from: a smoothed bootstrap of the latents of training rows."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_WIDTH = 0.5
# Standard deviation that is added in every direction, so that even a single vector has others near it.
_FLOOR = 0.1


class LatentDensity:
    """A smoothed bootstrap of latent vectors, with their mean and covariance [1]_.

    A sample is a randomly chosen latent vector, shrunk towards their mean, plus normal noise with their covariance:
    ``mean + sqrt(1 - w²) (latent - mean) + w noise`` with w = 0.5. Samples of the standard normal distribution lie
    farther from the data if there is little of it (docs/notes/model.md has figures).

    Parameters
    ----------
    latents : Tensor [K, L, k]
        The L latent vectors of each of K rows, K at least 1. The density is that of whole rows, D = L·k values, so
        that samples follow the course of the data in time.

    Attributes
    ----------
    mean : ndarray [D]
    anchors : ndarray [K, D]
        ``sqrt(1 - w²) (latents - mean)``.
    shape : tuple of int
        (L, k).
    n_draws : int
        Standard normal numbers needed for the noise of one row.

    References
    ----------
    .. [1] B. W. Silverman, G. A. Young, "The bootstrap: to smooth or not to smooth?", Biometrika 74 (1987).
    """

    def __init__(self, latents: Tensor) -> None:
        values = latents.flatten(1).double().cpu().numpy()
        self.shape = tuple(latents.shape[1:])
        self.mean = values.mean(axis=0)
        centred = values - self.mean
        self.anchors = math.sqrt(1 - _WIDTH**2) * centred
        self._directions = centred / math.sqrt(len(centred))
        self.n_draws = len(centred) + centred.shape[1]

    def noise(self, draws: np.ndarray) -> np.ndarray:
        """Return noise [n, D] with the covariance of the latent vectors, from standard normal `draws` [n, n_draws]."""
        along_rows, everywhere = np.split(draws, [len(self._directions)], axis=1)
        noise: np.ndarray = along_rows @ self._directions + _FLOOR * everywhere
        return noise

    def near(self, anchors: np.ndarray, noise: np.ndarray, temperature: float = 1.0) -> Tensor:
        """Return samples [n, L, k], float32, near `anchors` [n, D] with `noise` [n, D].

        `temperature` scales their deviation from the mean; at 0, every sample is the mean.
        """
        return self._rows(self.mean + temperature * (anchors + _WIDTH * noise))

    def around(self, rows: Tensor, noise: np.ndarray, radius: float) -> Tensor:
        """Return variations [n, L, k], float32, of `rows` [n, L, k]: `radius` times `noise` [n, D] is added.

        The result is shrunk towards the mean by ``sqrt(1 + radius²)``, so that it has the covariance of the latent
        vectors at any radius. Otherwise variations with a large radius are far too loud.
        """
        moved = rows.flatten(1).double().cpu().numpy() - self.mean + radius * noise
        return self._rows(self.mean + moved / math.sqrt(1 + radius**2))

    def sample(self, count: int, random: np.random.Generator) -> Tensor:
        """Return `count` independent samples [count, L, k], float32."""
        anchors = self.anchors[random.integers(len(self.anchors), size=count)]
        return self.near(anchors, self.noise(random.standard_normal((count, self.n_draws))))

    def _rows(self, values: np.ndarray) -> Tensor:
        rows: Tensor = torch.from_numpy(values).float().unflatten(1, self.shape)
        return rows
