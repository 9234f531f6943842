"""Where samples of a model come from: near the latent vectors of what it was trained on."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_WIDTH = 0.5
# About what an encoder is unsure of; so that even one vector has others near it.
_FLOOR = 0.1


class LatentDensity:
    """A density that vectors are drawn from: one of `latents`, drawn to their mean, and noise of their covariance.

    A smoothed bootstrap [1]_: mean and covariance are those of `latents`. A VAE of little data, with a weak KL term,
    leaves the standard normal distribution mostly to sounds that there are not. Its samples, 256 of a model of
    sonic-pi-samples and of one of the demo's sounds, had a Fréchet distance to the data of 0.106 and 0.135, these
    have 0.053 and 0.038; and they were 1.6 and 2.7 times as far from the nearest training row as held-out rows are,
    these 1.0 and 1.3 times. With a width of 0.3 they are copies, 0.7 times as far; a normal distribution with the
    covariance of `latents` gains little.

    Parameters
    ----------
    latents : Tensor [K, L]
        K at least 1.

    Attributes
    ----------
    mean : ndarray [L]
    anchors : ndarray [K, L]
        `latents` less their mean, as far as a sample follows them.
    n_draws : int
        Normal draws for a vector of noise.

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
        """Noise [n, L] with the covariance of the latent vectors, of standard normal draws [n, n_draws]."""
        return draws @ self._directions

    def near(self, anchors: np.ndarray, noise: np.ndarray, temperature: float = 1.0) -> Tensor:
        """Samples [n, L], float32, near anchors [n, L], with `noise` [n, L]; at a temperature of 0, their mean."""
        return torch.from_numpy(self.mean + temperature * (anchors + _WIDTH * noise)).float()

    def around(self, vectors: Tensor, noise: np.ndarray, radius: float) -> Tensor:
        """Variations [n, L], float32, of vectors [n, L]: moved by `radius` times `noise`, and drawn to the mean.

        So that they vary as the latent vectors do, however far they go: otherwise, with a radius of 1, one in ten of
        the demo's sounds was 16 dB above full scale.
        """
        moved = vectors.double().cpu().numpy() - self.mean + radius * noise
        return torch.from_numpy(self.mean + moved / math.sqrt(1 + radius**2)).float()

    def sample(self, count: int, random: np.random.Generator) -> Tensor:
        """`count` independent samples [count, L], float32."""
        anchors = self.anchors[random.integers(len(self.anchors), size=count)]
        return self.near(anchors, self.noise(random.standard_normal((count, self.n_draws))))
