"""The distribution that samples are drawn from: a smoothed bootstrap of the latent vectors of training rows."""

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
    latents : Tensor [K, L]
        Latent vectors, K at least 1.

    Attributes
    ----------
    mean : ndarray [L]
    anchors : ndarray [K, L]
        ``sqrt(1 - w²) (latents - mean)``.
    n_draws : int
        Standard normal numbers needed for one vector of noise.

    References
    ----------
    .. [1] B. W. Silverman, G. A. Young, "The bootstrap: to smooth or not to smooth?", Biometrika 74 (1987).
    """

    def __init__(self, latents: Tensor) -> None:
        values = latents.double().cpu().numpy()
        self.mean = values.mean(axis=0)
        centred = values - self.mean
        self.anchors = math.sqrt(1 - _WIDTH**2) * centred
        floor = _FLOOR * np.eye(values.shape[1])
        self._directions = np.concatenate([centred / math.sqrt(len(centred)), floor])
        self.n_draws = len(self._directions)

    def noise(self, draws: np.ndarray) -> np.ndarray:
        """Return noise [n, L] with the covariance of the latent vectors, from standard normal `draws` [n, n_draws]."""
        return draws @ self._directions

    def near(self, anchors: np.ndarray, noise: np.ndarray, temperature: float = 1.0) -> Tensor:
        """Return samples [n, L], float32, near `anchors` [n, L] with `noise` [n, L].

        `temperature` scales their deviation from the mean; at 0, every sample is the mean.
        """
        return torch.from_numpy(self.mean + temperature * (anchors + _WIDTH * noise)).float()

    def around(self, vectors: Tensor, noise: np.ndarray, radius: float) -> Tensor:
        """Return variations [n, L], float32, of `vectors` [n, L]: `radius` times `noise` is added.

        The result is shrunk towards the mean by ``sqrt(1 + radius²)``, so that it has the covariance of the latent
        vectors at any radius. Otherwise variations with a large radius are far too loud.
        """
        moved = vectors.double().cpu().numpy() - self.mean + radius * noise
        return torch.from_numpy(self.mean + moved / math.sqrt(1 + radius**2)).float()

    def sample(self, count: int, random: np.random.Generator) -> Tensor:
        """Return `count` independent samples [count, L], float32."""
        anchors = self.anchors[random.integers(len(self.anchors), size=count)]
        return self.near(anchors, self.noise(random.standard_normal((count, self.n_draws))))
