"""Latent paths: the latent vectors of a sound, from random draws or between two encoded sounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill.runs.instrument import Instrument

# Time in which the correlation of the noise falls to 1/e, in chunks. The figures are in docs/notes/sound.md.
_NOISE_CHUNKS = 2.0
# Time between two anchors, in chunks.
_ANCHOR_CHUNKS = 4.0
# Rows from which the next anchor of a sequence is drawn: those that continue the present one best.
_CONTINUATIONS = 8
# Sine of the angle below which two directions count as parallel.
_PARALLEL = 1e-4


@dataclass(frozen=True)
class RandomPaths:
    """Random latent paths [S, k], float32: the latent vectors of sounds of a number of windows.

    They are drawn for each window and cross-faded where windows share latent vectors. The draws of a sound depend on
    the seed and the number of the sound only; a longer path begins like a shorter one.
    """

    instrument: Instrument
    n_windows: int
    seed: int

    def sample(self, number: int, temperature: float) -> Tensor:
        """Return the path of sample `number`; the temperature scales its distance from the mean."""
        rows = self.instrument.density.near(self._anchors(number), self._noise(number), temperature)
        return self.instrument.join_latents(rows)

    def variation(self, number: int, latents: Tensor, radius: float) -> Tensor:
        """Return the path of variation `number` of a sound with the given latent vectors [S, k]."""
        windows = self.instrument.split_latents(latents)
        return self.instrument.join_latents(self.instrument.density.around(windows, self._noise(number), radius))

    @property
    def _step_chunks(self) -> float:
        """Time from the start of a window to the start of the next one, in chunks."""
        return self.instrument.step_samples / self.instrument.config.chunk_samples

    def _noise(self, number: int) -> np.ndarray:
        """Return Ornstein-Uhlenbeck noise [N, L·k] with the covariance of the density at every window."""
        correlation = math.exp(-self._step_chunks / _NOISE_CHUNKS)
        density = self.instrument.density
        draws = np.random.default_rng([self.seed, number]).standard_normal((self.n_windows, density.n_draws))
        noise = density.noise(draws)
        noise[1:] *= math.sqrt(1 - correlation * correlation)
        for window in range(1, self.n_windows):
            noise[window] += correlation * noise[window - 1]
        return noise

    def _anchors(self, number: int) -> np.ndarray:
        """Return the centres of a sample [N, L·k]: an interpolation through randomly chosen anchors of the density."""
        previous, following, fraction = self._between(number)
        known = torch.from_numpy(self.instrument.density.anchors)
        return interpolate(known[previous], known[following], fraction[:, None]).numpy()

    def anchor_levels(self, number: int, levels: Tensor) -> Tensor:
        """Return the levels [N] between the anchors of sample `number`; `levels` [K] are those of all anchors."""
        previous, following, fraction = self._between(number)
        return torch.lerp(levels[previous], levels[following], fraction.to(levels))

    def _between(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return for each window of a sample the anchors around it and the position between them, [N] each."""
        random = np.random.default_rng([self.seed, number, 1])
        if self.instrument.model.n_latents > 1:
            chosen = self._continued(random)
            return chosen, chosen, torch.zeros(self.n_windows, dtype=torch.float64)
        position = torch.arange(self.n_windows, dtype=torch.float64) * (self._step_chunks / _ANCHOR_CHUNKS)
        previous = position.long()
        count = len(self.instrument.density.anchors)
        choice = torch.from_numpy(random.integers(count, size=self.n_windows + 1))
        return choice[previous], choice[previous + 1], position - previous

    def _continued(self, random: np.random.Generator) -> Tensor:
        """Choose an anchor for each window, [N]: each continues the one before.

        It is drawn among those that begin most like the one before ends, over the latent vectors that windows share.
        """
        density, model = self.instrument.density, self.instrument.model
        rows = density.anchors.reshape(-1, *density.shape)
        shared = model.n_latents - self.instrument.step_latents
        chosen = [int(random.integers(len(rows)))]
        while len(chosen) < self.n_windows:
            gap = rows[:, :shared] - rows[chosen[-1], -shared:]
            nearest = np.square(gap).sum(axis=(1, 2)).argsort(kind="stable")[:_CONTINUATIONS]
            chosen.append(int(random.choice(nearest)))
        return torch.tensor(chosen)


def path_positions(sounds: int, steps: int) -> list[float]:
    """Return the positions of steps on a path through sounds at 0, 1, 2 ...: as even as each sound being a step allows.

    Parameters
    ----------
    sounds : int
        At least 2.
    steps : int
        At least as many.
    """
    at = np.round(np.linspace(0, steps - 1, sounds))
    return np.interp(np.arange(steps), at, np.arange(sounds)).tolist()


def interpolate(start: Tensor, end: Tensor, fraction: float | Tensor) -> Tensor:
    """Interpolate spherically between latent vectors: direction and length change at constant rates.

    Linear interpolation would be shorter halfway than both ends, and so closer to the average sound than either.

    Parameters
    ----------
    start, end : Tensor [N, k]
        Latent vectors. If one is zero, or they are parallel or opposite, the interpolation is linear.
    fraction : float or Tensor [N, 1]
        Position between `start` (0) and `end` (1).

    Returns
    -------
    Tensor [N, k]
    """
    linear = torch.lerp(start, end, fraction)
    lengths = torch.linalg.vector_norm(torch.stack([start, end]), dim=-1, keepdim=True)
    cosine = (start * end).sum(-1, keepdim=True) / lengths.prod(dim=0).clamp(min=torch.finfo(start.dtype).tiny)
    angle = torch.acos(cosine.clamp(-1.0, 1.0))
    has_angle = (lengths.amin(dim=0) > 0) & (torch.sin(angle) > _PARALLEL)
    from_start, from_end = torch.sin((1 - fraction) * angle), torch.sin(fraction * angle)
    direction = (from_start * start / lengths[0] + from_end * end / lengths[1]) / torch.sin(angle)
    return torch.where(has_angle, direction * torch.lerp(lengths[0], lengths[1], fraction), linear)
