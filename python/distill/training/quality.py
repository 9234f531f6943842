"""How good a model is beyond its loss: what it makes of held-out chunks, and of its prior."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from distill.models.prior import prior_figures, summarize
from distill.models.vae import ConvVAE
from distill.training.material import Material

_TRAINING_ROWS = 2048
_HELD_OUT_ROWS = 256
_SAMPLES = 256
_BATCH = 32


class Quality:
    """Measures models against the same rows of a run, which are reduced once.

    Parameters
    ----------
    material : Material
        The run's training and held-out rows; at most 2048 and 256 of them count.
    seed : int
        Decides which training rows, and the latent vectors of the samples.
    """

    def __init__(self, material: Material, seed: int) -> None:
        self._seed = seed
        # The first epoch's order, whatever the epoch in hand is: the caller sets it for its next one anyway.
        material.batches.epoch = material.batches.first_step = 0
        self._training = summarize(material.features(material.train), _TRAINING_ROWS)
        self._held_out = summarize(material.features(material.val), _HELD_OUT_ROWS)

    def measure(self, model: ConvVAE) -> dict[str, float | None]:
        """Figures of a model in eval mode, as `prior_figures` gives them for 256 samples from its prior."""
        samples = summarize(self._samples(model), _SAMPLES)
        return prior_figures(samples, self._training, self._held_out)

    @torch.no_grad()
    def _samples(self, model: ConvVAE) -> Iterator[Tensor]:
        # A generator of its own: measuring must not change what is trained next.
        generator = torch.Generator().manual_seed(self._seed)
        for z in torch.randn(_SAMPLES, model.latent_dim, generator=generator).split(_BATCH):
            yield model.decode(z.to(model.linear.scale.device))
