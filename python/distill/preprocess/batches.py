"""Features of batches of chunks. Each batch is returned one batch later, so that a GPU computes while the CPU decodes.

::

    CPU       decode 0 │ copy 0 to pinned, decode 1             │ copy 1 to pinned, decode 2 ...
    stream             │ 0: to device, features, back to pinned │ 1: the same ...
    yielded                                                     │ rows 0
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from distill.features.spectrogram import ComplexSpectrogram


def feature_rows(
    batches: Iterable[np.ndarray], spectrogram: ComplexSpectrogram, device: torch.device
) -> Iterator[np.ndarray]:
    """Compute the features of batches of chunks, in order.

    Parameters
    ----------
    batches : iterable of np.ndarray
        Shape (B, S), float32. The next batch is requested before the features of one are returned, and may overwrite
        its memory.
    spectrogram : ComplexSpectrogram
        The feature.
    device : torch.device
        Where it is computed. On CUDA each call has a separate stream, and copies go through pinned memory.

    Yields
    ------
    np.ndarray
        Shape (B, 2, M, T), float32.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    previous: _PendingRows | None = None
    for batch in batches:
        pending = _PendingRows(batch, spectrogram, device, stream)
        if previous is not None:
            yield previous.rows()
        previous = pending
    if previous is not None:
        yield previous.rows()


class _PendingRows:
    """The features of a batch; on CUDA they may still be computing."""

    def __init__(
        self,
        batch: np.ndarray,
        spectrogram: ComplexSpectrogram,
        device: torch.device,
        stream: torch.cuda.Stream | None,
    ) -> None:
        waveforms = torch.from_numpy(batch)[:, None]
        if stream is None:
            with torch.inference_mode():
                self._rows, self._done = spectrogram(waveforms.to(device)).cpu(), None
            return
        # Torch does not reuse freed pinned memory before the copies that use it are done.
        pinned = torch.empty(waveforms.shape, dtype=torch.float32, pin_memory=True).copy_(waveforms)
        with torch.inference_mode(), torch.cuda.stream(stream):
            features = spectrogram(pinned.to(device, non_blocking=True))
            self._rows = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
            self._rows.copy_(features, non_blocking=True)
            # A blocking event: a waiting thread leaves its core to the threads that decode.
            self._done = stream.record_event(torch.cuda.Event(blocking=True))

    def rows(self) -> np.ndarray:
        """Wait for the features and return them. The CPU waits for the GPU only here."""
        if self._done is not None:
            self._done.synchronize()
        rows: np.ndarray = self._rows.numpy()
        return rows
