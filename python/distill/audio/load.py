"""Loading of a whole file as a tensor."""

from __future__ import annotations

import numpy as np
import torch

from distill.audio.decode import decode_blocks, warn_if_partial
from distill.types import PathLike


def load_audio(path: PathLike, sample_rate: int = 48_000) -> torch.Tensor:
    """Load a whole file as a mono waveform.

    Parameters
    ----------
    path : path
        A file of any kind that one of the readers reads: see docs/formats.md.
    sample_rate : int
        Sample rate of the result, Hz; files of other rates are resampled. Default: 48000.

    Returns
    -------
    Tensor of shape [1, S], float32
        The mean of the channels, not normalised. If only a part of the file can be decoded, that part, and a warning
        is logged.

    Raises
    ------
    AudioFileError
        If the file cannot be used; the message gives the reason.

    Examples
    --------
    >>> from distill.audio import load_audio
    >>> load_audio("recordings/bell.wav", sample_rate=16_000).shape
    torch.Size([1, ...])
    """
    decoding = decode_blocks(path, sample_rate)
    blocks = [block.samples for block in decoding]
    warn_if_partial(decoding.path, decoding.partial)
    return torch.from_numpy(np.concatenate(blocks))[None]
