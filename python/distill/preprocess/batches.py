"""Chunks to feature rows, a batch at a time and one batch behind, so that a GPU computes while the next is decoded.

::

    host      decode 0 │ copy 0 to pinned, decode 1      │ copy 1 to pinned, decode 2 ...
    stream             │ to device, features, to pinned 0│ the same of 1 ...
    given                                                │ rows 0
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from distill.features.spectrogram import ComplexSpectrogram


def feature_rows(
    batches: Iterable[np.ndarray], spectrogram: ComplexSpectrogram, device: torch.device
) -> Iterator[np.ndarray]:
    """Features of batches of chunks, in order; one thread's work.

    Parameters
    ----------
    batches : iterable of np.ndarray
        Shape (batch, S), float32. The next is asked for before the features of one are given, and may overwrite it.
    spectrogram : ComplexSpectrogram
        The feature.
    device : torch.device
        Where it is computed; on CUDA on a stream of its own, with copies through pinned memory.

    Yields
    ------
    np.ndarray
        Shape (batch, 2, M, T), float32.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    before: _Started | None = None
    for batch in batches:
        started = _Started(batch, spectrogram, device, stream)
        if before is not None:
            yield before.rows()
        before = started
    if before is not None:
        yield before.rows()


class _Started:
    """The features of a batch, which CUDA may still be at work on."""

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
        # Pinned memory that is freed is not given out again before the copies that use it are done.
        pinned = torch.empty(waveforms.shape, dtype=torch.float32, pin_memory=True).copy_(waveforms)
        with torch.inference_mode(), torch.cuda.stream(stream):
            features = spectrogram(pinned.to(device, non_blocking=True))
            self._rows = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
            self._rows.copy_(features, non_blocking=True)
            # Blocking: a thread that waits leaves its core to those that decode.
            self._done = stream.record_event(torch.cuda.Event(blocking=True))

    def rows(self) -> np.ndarray:
        """The features, once they are there: the one place where the host waits for the GPU."""
        if self._done is not None:
            self._done.synchronize()
        return self._rows.numpy()
