"""What a run starts from: band means and a PCA of patches of the rows that are drawn first."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch
from torch import Tensor

from distill.config import TrainingConfig
from distill.features.normalization import energy_of, silence_of
from distill.models import fit_pca
from distill.models.pca import PCA
from distill.models.r2 import BandMeans
from distill.models.vae import to_patches
from distill.text import counted
from distill.training.data import TrainingData
from distill.training.shifts import shift_rows
from distill.types import ProgressCallback

logger = logging.getLogger(__name__)

START_ROWS = 3072
"""Training rows that the band means and the PCA are computed from; all rows, if there are fewer."""

_POLL_S = 0.05
_Result = TypeVar("_Result")


def starting_point(data: TrainingData, config: TrainingConfig, progress: ProgressCallback) -> tuple[Tensor, PCA]:
    """Compute what a run starts from, from at most `START_ROWS` training rows.

    If training shifts rows, the PCA is of as many rows, of which half are shifted; of all rows and their shifted
    copies, if that is less.

    Parameters
    ----------
    data : TrainingData
    config : TrainingConfig
        Size of the latent space, share of shifted rows, and the seed that rows and shifts are drawn with.
    progress : callable
        Called with ("draw", rows read, rows to read), then every 50 ms with ("axes", seconds, 0). An exception that it
        raises ends the computation.

    Returns
    -------
    band_means : Tensor [C, M]
        Mean of the normalised features in each mel band, the baseline of R². The cache's sums cannot give it: they are
        not of bands, and not weighted by energy.
    pca : PCA
    """
    length = len(data.train.dataset)  # type: ignore[arg-type]
    count = min(length, START_ROWS)
    if count < length:
        logger.info("starting from %s of %d, drawn at random", counted(count, "training row"), length)
    blocks = deque(data.training_rows(count, progress))
    *size, n_frames = blocks[0].shape[1:]
    means = BandMeans(*size)
    for rows in blocks:
        means.update(rows, energy_of(rows, data.stats))
    # The normalised magnitude of a band without energy.
    silence = -data.stats["mag_mean"] / data.stats["mag_std"]
    pca_rows = _rows_of_pca(blocks, count, data.stats, shifted=config.shifted_share > 0, seed=config.seed)
    frames = config.latent_frames or n_frames
    patches = (to_patches(rows, frames).flatten(0, 1) for rows in pca_rows)
    most = START_ROWS * -(-n_frames // frames)
    pca = _polled(lambda: fit_pca(patches, config.latent_dim, max_rows=most, silence=silence), progress)
    return means.result().float(), pca


def _rows_of_pca(
    blocks: deque[Tensor], count: int, stats: dict[str, float], *, shifted: bool, seed: int
) -> Iterator[Tensor]:
    """Yield `count` rows, or at most `START_ROWS` of them and of their shifted copies. Empties `blocks`.

    If not all are used, the rows that are shifted are the last ones, others than those that are not.
    """
    generator = torch.Generator().manual_seed(seed)
    share = START_ROWS // 2 if shifted else START_ROWS
    first = 0
    while blocks:
        # Each block is freed once it is used, so that the rows are never in memory twice.
        rows = blocks.popleft()
        yield rows[: max(share - first, 0)]
        if shifted:
            moved = rows[max(count - share - first, 0) :]
            yield shift_rows(moved, 1.0, silence_of(moved, stats), generator)
        first += len(rows)


def _polled(work: Callable[[], _Result], progress: ProgressCallback) -> _Result:
    """Return the result of `work`, which runs in a thread, because one call of LAPACK takes seconds.

    If `progress` raises an exception, the thread ends by itself when its work is done.
    """
    started = time.monotonic()
    pool = ThreadPoolExecutor(1, "distill-axes")
    try:
        future = pool.submit(work)
        while not wait([future], _POLL_S).done:
            progress("axes", int(time.monotonic() - started), 0)
        return future.result()
    finally:
        pool.shutdown(wait=False)
