"""The public function that computes the features of a folder, with its options one by one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from distill.config import (
    AugmentationConfig,
    CacheDtype,
    ComplexSpectrogramConfig,
    Normalize,
    TrainingConfig,
)
from distill.errors import ConfigError
from distill.faults import collecting_faults
from distill.index import Dataset, Trust
from distill.preprocess.pipeline import preprocess
from distill.types import ConfirmCallback, PathLike, ProgressCallback

logger = logging.getLogger(__name__)


def preprocess_complex_spectrograms(
    files: Sequence[PathLike] | None,
    dataset_dir: PathLike,
    complex_spectrogram_config: ComplexSpectrogramConfig,
    augmentation_config: AugmentationConfig | None = None,
    augmentation_expansion: int = 0,
    chunk_samples: int = 48_000,
    sample_rate: int = 48_000,
    progress_callback: ProgressCallback | None = None,
    confirm_callback: ConfirmCallback | None = None,
    *,
    cache_dir: PathLike | None = None,
    device: str = "auto",
    workers: int | None = None,
    normalize: Normalize = "file",
    cache_dtype: CacheDtype = "float32",
    trust: Trust = "stat",
    follow_links: bool = False,
) -> tuple[Path, dict[str, float]]:
    """Compute the two-channel features of a dataset that are not in its cache yet.

    Parameters
    ----------
    files : sequence of path, or None
        Files of the dataset, absolute or relative to it; None: every audio file in it.
    dataset_dir : path
        The folder of audio.
    complex_spectrogram_config : ComplexSpectrogramConfig
        The feature.
    augmentation_config : AugmentationConfig, optional
        Ranges of the augmented variants. Default: None, no augmentation: there are no variants then, whatever
        `augmentation_expansion` is, which is logged.
    augmentation_expansion : int
        Augmented variants of each chunk, besides the original. Default: 0.
    chunk_samples : int
        Length S of a chunk, samples. Default: 48000.
    sample_rate : int
        Hz; must equal that of the feature. Default: 48000.
    progress_callback : callable, optional
        Called with (stage, current, total); stages are "cache" (its tables, if they are large), "check"
        (packs that were modified), "scan", "hash", "lengths" and "features".
    confirm_callback : callable, optional
        Called with a question before more than 100 MB are written; returning False cancels.
    cache_dir : path, optional
        The cache folder. Default: DATASET/.cache.
    device : str
        Where features are computed: "auto", "cpu", "cuda", "cuda:N" or "mps". Default: "auto".
    workers : int, optional
        Number of threads. Default: one per core.
    normalize : {"file", "chunk", "none"}
        Scale each file, each chunk, or nothing to a peak of 1. Default: "file".
    cache_dtype : {"float32", "float16"}
        How values are stored. Default: "float32".
    trust : {"stat", "content"}
        A file counts as unchanged if its stamps (size, times, inode) are unchanged, or if its bytes are; "content"
        reads every file. Default: "stat".
    follow_links : bool
        Follow symbolic links that lead out of the dataset, and links to folders. Default: False.

    Returns
    -------
    cache_dir : Path
        The slot of the cache for this configuration, a folder that all readers accept.
    normalization_stats : dict
        mag_mean, mag_std, if_mean, if_std over all rows.

    Raises
    ------
    ConfigError
        If the configuration cannot be used.
    DatasetError
        If the dataset is not a folder, holds no audio, or goes away meanwhile. What was finished is kept.
    NothingUsableError
        If no file gives a single chunk.
    PreprocessingCancelled
        If `confirm_callback` returned False.
    StorageError
        If the cache cannot be written. What was finished is kept.
    """
    if sample_rate != complex_spectrogram_config.sample_rate:
        raise ConfigError(
            [f"sample_rate={sample_rate} must equal the feature's, {complex_spectrogram_config.sample_rate}"]
        )
    has_variants = augmentation_config is not None or augmentation_expansion <= 0
    if not has_variants:
        logger.warning(
            "augmentation_config=None: no augmentation, so augmentation_expansion=%s has no effect; "
            "pass AugmentationConfig() for variants with the default ranges",
            augmentation_expansion,
        )
    with collecting_faults():
        config = TrainingConfig(
            complex_spectrogram=replace(complex_spectrogram_config, enabled=True),
            augmentation=augmentation_config or AugmentationConfig(),
            augmentation_expansion=augmentation_expansion if has_variants else 0,
            chunk_samples=chunk_samples,
            normalize=normalize,
            cache_dtype=cache_dtype,
            device=device,
        )
    result = preprocess(
        Dataset(dataset_dir, files=files, cache_dir=cache_dir, follow_links=follow_links, trust=trust),
        config,
        workers=workers,
        progress=progress_callback,
        confirm=confirm_callback,
    )
    return result.cache_dir, result.normalization_stats
