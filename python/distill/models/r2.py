"""R² of reconstructions, accumulated over batches in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class BandMeans:
    """Means of each mel band over rows: of the magnitude, and of the frequency weighted by energy.

    Those of the training rows are the baseline of `ReconstructionR2`.

    Parameters
    ----------
    in_channels : int
        Channels C, 1 or 2.
    n_mels : int
        Mel bands M.
    """

    def __init__(self, in_channels: int, n_mels: int) -> None:
        self._sum = torch.zeros(in_channels, n_mels, dtype=torch.float64)
        self._weight = torch.zeros(in_channels, n_mels, dtype=torch.float64)

    def update(self, rows: Tensor, energy: Tensor | None = None) -> None:
        """Add a batch of rows.

        Parameters
        ----------
        rows : Tensor [B, C, M, T]
            Normalised features.
        energy : Tensor [B, M, T], optional
            Channel 0 before normalisation, at least 0. Default: equal weights.
        """
        weights = _weights(rows, energy)
        self._sum += _band_sums(weights * rows)
        self._weight += _band_sums(weights)

    def result(self) -> Tensor:
        """Return the means [C, M], float64; 0, the mean of normalised features, for a band without any weight."""
        return torch.where(self._weight > 0, self._sum / self._weight.clamp(min=1e-300), 0.0)


class ReconstructionR2:
    """R² of reconstructions, relative to predicting the mean of each mel band over the training rows.

    ``1 - Σ w (target - reconstruction)² / Σ w (target - band mean)²`` with w = 1 for the magnitude and w = energy for
    the instantaneous frequency. 1 is perfect, 0 is as good as the band means, below 0 is worse.

    Parameters
    ----------
    band_means : Tensor [C, M]
        Means of the training rows, as `BandMeans` returns them.

    Examples
    --------
    >>> import torch
    >>> from distill.models import ReconstructionR2
    >>> rows = torch.randn(4, 2, 128, 94)
    >>> r2 = ReconstructionR2(band_means=rows.mean(dim=(0, 3)))
    >>> r2.update(reconstruction=rows, target=rows)
    >>> r2.result()
    {'magnitude_r2': 1.0, 'if_r2': 1.0}
    """

    def __init__(self, band_means: Tensor) -> None:
        self._means = band_means.detach().to("cpu", torch.float64)
        self._residual = torch.zeros(len(band_means), dtype=torch.float64)
        self._total = torch.zeros(len(band_means), dtype=torch.float64)

    def update(self, reconstruction: Tensor, target: Tensor, energy: Tensor | None = None) -> None:
        """Add a batch.

        Parameters
        ----------
        reconstruction, target : Tensor [B, C, M, T]
            Normalised features.
        energy : Tensor [B, M, T], optional
            Channel 0 of the target before normalisation, at least 0. Default: equal weights.
        """
        weights = _weights(target, energy)
        target = target.detach()
        means = self._means.to(target.dtype).to(target.device)[:, :, None]
        residual = (reconstruction.detach() - target).square() * weights
        total = (target - means).square() * weights
        self._residual += _band_sums(residual).sum(dim=1)
        self._total += _band_sums(total).sum(dim=1)

    def add_up(self, over_processes: Callable[[Tensor], Tensor]) -> None:
        """Replace the sums by those of all processes; `over_processes` returns the sum of a tensor over them."""
        self._residual, self._total = over_processes(torch.stack([self._residual, self._total])).unbind()

    def result(self) -> dict[str, float]:
        """Return `magnitude_r2` and, for two channels, `if_r2`.

        They are 0.0 if the targets do not deviate from the band means, or no batch was added.
        """
        names = ("magnitude_r2", "if_r2")[: len(self._total)]
        scores = zip(names, self._residual.tolist(), self._total.tolist(), strict=True)
        return {name: 1.0 - residual / total if total > 0 else 0.0 for name, residual, total in scores}


def _weights(rows: Tensor, energy: Tensor | None) -> Tensor:
    """Return weights [B, C, M, T]: 1 for the magnitude, energy for the frequency."""
    weights = torch.ones_like(rows)
    if rows.shape[1] > 1 and energy is not None:
        weights[:, 1] = energy
    return weights


def _band_sums(values: Tensor) -> Tensor:
    """Return sums [C, M], float64, of values [B, C, M, T]; waits for the device."""
    # Frames are summed on the device, rows on the CPU, because not every device has float64.
    return values.sum(dim=3).cpu().sum(dim=0, dtype=torch.float64)
