"""The plan of a preprocessing run: what a row is, which files have to be decoded, and how much space that needs."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.audio.augmentation import check_available
from distill.audio.decode import DECODER_VERSION, duration_s
from distill.cache.row_format import RowFormat, fingerprint
from distill.cache.writer import check_space
from distill.config import TrainingConfig
from distill.errors import PreprocessingCancelled
from distill.features import FEATURE_VERSION
from distill.index import Dataset, Manifest, Scan
from distill.preprocess.extraction import Source
from distill.preprocess.result import log_found
from distill.text import counted
from distill.types import ConfirmCallback, ProgressCallback

logger = logging.getLogger(__name__)

CONFIRM_ABOVE_BYTES = 100_000_000
# Share of padding from which shorter chunks are worth a mention.
_MUCH_PADDING = 0.25
_SMALL_DATASET_FILES = 1000
_SMALL_DATASET_EXPANSION = 4


@dataclass(frozen=True)
class Plan:
    """What a preprocessing run computes.

    Attributes
    ----------
    row_format : RowFormat
        What a row is.
    changed_fields : list of str
        Why none of the rows in the cache can be used; empty if they can, or there are none.
    scan : Scan
        The comparison of the dataset with the manifest.
    sources : list of Source
        The contents to compute, the longest first.
    rows, bytes : int
        Number and size of the rows to compute, at most: silent chunks, which are left out, are counted.
    padding : float
        Share of the rows that is not sound, because the last chunk of each file is padded with zeros.
    """

    row_format: RowFormat
    changed_fields: list[str]
    scan: Scan
    sources: list[Source]
    rows: int
    bytes: int
    padding: float


def make_plan(
    dataset: Dataset, config: TrainingConfig, manifest: Manifest, *, workers: int, progress: ProgressCallback
) -> Plan:
    """Compare a dataset with the manifest of its cache, and plan what has to be computed.

    If the configuration asks for other rows than the manifest has, its contents are cleared, in memory.

    Raises
    ------
    ConfigError
        If an augmentation needs a library that is not installed.
    DatasetError
        If there is no audio.
    """
    scan = dataset.scan(manifest, workers=workers, progress=progress)
    dataset.require_audio(scan)
    header = json.loads(manifest.header)
    row_format = resolve_row_format(config, header, scan.n_files)
    changed_fields = row_format.changed_fields(header)
    if changed_fields:
        logger.info("all features are computed again: %s", "; ".join(changed_fields))
        manifest.clear_contents()
        scan = dataset.scan(manifest, workers=workers, progress=progress)
    log_found(dataset.path, scan, is_walk=dataset.files is None)

    root = os.fsencode(dataset.folder)
    sources = [Source(os.fsdecode(os.path.join(root, path)), todo_hash) for path, todo_hash, _ in scan.todo]
    durations = [duration_s(source.path) for source in sources]
    chunk_s = config.chunk_samples / config.complex_spectrogram.sample_rate
    chunks = sum(math.ceil(duration / chunk_s) for duration in durations)
    rows = chunks * (1 + row_format.expansion)
    row_bytes = math.prod(row_format.shape) * np.dtype(row_format.dtype).itemsize
    # Longest first, so that no thread is left with a long file when the others have finished.
    by_length = sorted(zip(durations, sources, strict=True), key=lambda pair: -pair[0])
    padding = 1 - sum(durations) / (chunks * chunk_s) if chunks else 0.0
    return Plan(row_format, changed_fields, scan, [source for _, source in by_length], rows, rows * row_bytes, padding)


def resolve_row_format(config: TrainingConfig, header: Mapping[str, Any], n_files: int) -> RowFormat:
    """Return what a row is for a configuration; if it leaves the number of variants open, choose one.

    Parameters
    ----------
    config : TrainingConfig
        The configuration.
    header : mapping
        The header of the cache's manifest; empty if there is none.
    n_files : int
        Files in the dataset.

    Raises
    ------
    ConfigError
        If an augmentation needs a library that is not installed.
    """
    expansion = config.augmentation_expansion
    is_chosen = expansion is None
    if expansion is None:
        # What was chosen before is kept: one more file must not make every row invalid.
        before = header.get("augmentation_expansion", 0)
        if header.get("expansion_is_chosen") and header["config_fingerprint"] == fingerprint(_identity(config, before)):
            expansion = before
        else:
            expansion = _SMALL_DATASET_EXPANSION if n_files <= _SMALL_DATASET_FILES else 0
        logger.info("chosen: augmentation_expansion=%d", expansion)
    if expansion:
        check_available(config.augmentation)
    return RowFormat(config.complex_spectrogram, _identity(config, expansion), is_chosen)


def _identity(config: TrainingConfig, expansion: int) -> dict[str, Any]:
    versions = {"feature_version": FEATURE_VERSION, "decoder_version": DECODER_VERSION}
    return config.identity(expansion) | versions


def confirm_plan(plan: Plan, cache_dir: Path, device: torch.device, confirm: ConfirmCallback | None) -> None:
    """Log what will be computed, check that there is enough free space, and ask if it is much.

    Raises
    ------
    StorageError
        If there is too little free space.
    PreprocessingCancelled
        If `confirm` returned False.
    """
    work = f"{counted(len(plan.sources), 'file')} to compute: {counted(plan.rows, 'row')}"
    message = f"{work}, {plan.bytes / 1e6:.0f} MB in {cache_dir}"
    logger.info("%s, on %s", message, device)
    check_space(cache_dir, plan.bytes)
    if plan.bytes <= CONFIRM_ABOVE_BYTES:
        return
    advice = _smaller_or_elsewhere(plan)
    logger.info("%s", advice)
    if confirm and not confirm(f"{message}. Go on?"):
        raise PreprocessingCancelled("preprocessing was cancelled before anything was computed", advice)


def _smaller_or_elsewhere(plan: Plan) -> str:
    """Return how to make the cache smaller, with the size that it then has, and how to keep it elsewhere."""
    row_format, options = plan.row_format, []
    if row_format.expansion:
        size = plan.bytes / (1 + row_format.expansion) / 1e6
        variants = counted(row_format.expansion, "variant")
        options.append(f"--augmentation-expansion 0 ({size:.0f} MB), without {variants} of each chunk")
    if row_format.dtype == "float32":
        options.append(f"--cache-dtype float16 ({plan.bytes / 2e6:.0f} MB)")
    if plan.padding >= _MUCH_PADDING:
        options.append(f"a smaller --chunk-samples ({plan.padding:.0%} of the rows is padding of short sounds)")
    elsewhere = "--cache-dir DIR keeps it in another folder"
    return f"train and preprocess make it smaller with {', or '.join(options)}; {elsewhere}" if options else elsewhere
