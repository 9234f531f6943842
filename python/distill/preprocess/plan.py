"""The plan of a preprocessing run: what a row is, which files have to be decoded, and how much space that needs."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.audio.augmentation import check_available
from distill.audio.decode import DECODER_VERSION
from distill.cache.disk import free_bytes
from distill.cache.row_format import RowFormat, fingerprint
from distill.cache.slots import find_slot, slot_formats
from distill.cache.writer import CacheWriter
from distill.config import TrainingConfig
from distill.errors import CacheError, PreprocessingCancelled
from distill.features import FEATURE_VERSION
from distill.index import Dataset, Hashing, Scan
from distill.preprocess.copies import Copies, find_copies
from distill.preprocess.events import Source
from distill.preprocess.identity import chosen_before, row_identity
from distill.preprocess.lengths import read_lengths
from distill.preprocess.result import log_found
from distill.preprocess.retries import forget_what_can_be_read
from distill.text import counted
from distill.types import ConfirmCallback, PathLike, ProgressCallback

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

CONFIRM_ABOVE_BYTES = 100_000_000
# Share of padding from which shorter chunks are worth a mention.
_MUCH_PADDING = 0.25
_SMALL_DATASET_FILES = 1000
_SMALL_DATASET_EXPANSION = 4


class Sources(Sequence[Source]):
    """Contents to compute, each made when it is asked for: a million of them would take 500 MB.

    Parameters
    ----------
    folder : path
        The dataset.
    scan : Scan
        A scan of it.
    numbers : ndarray of shape [N], int64
        The contents, by their indices in `Scan.todo`.
    """

    def __init__(self, folder: PathLike | bytes, scan: Scan, numbers: np.ndarray) -> None:
        self.numbers = numbers
        self._root, self._scan = os.fsencode(folder), scan

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Source:  # type: ignore[override] # no slices
        name, content_hash, stamps = self._scan.todo_at(int(self.numbers[index]))
        return Source(os.fsdecode(os.path.join(self._root, name)), content_hash, stamps, name)

    def at(self, indices: np.ndarray) -> Sources:
        """Return some of them, in another order."""
        return Sources(self._root, self._scan, self.numbers[indices])


def divided(cache_dir: Path, row_format: RowFormat, todo: Sources) -> tuple[Copies | None, Sources, Sources]:
    """Return what can be copied from another slot, those sources, and the sources that have to be computed."""
    copies = find_copies(cache_dir, row_format, todo)
    is_copied = np.zeros(len(todo), bool)
    if copies:
        hashes = copies.content_hashes
        is_copied = np.fromiter((source.content_hash in hashes for source in todo), bool, len(todo))
    return copies, todo.at(is_copied), todo.at(~is_copied)


def longest_first(sources: Sources, workers: int, progress: ProgressCallback) -> tuple[Sources, np.ndarray]:
    """Return some sources, the longest first, and their lengths in seconds, which are read from the files."""
    durations = read_lengths(sources, workers, progress)
    order = np.argsort(-durations, kind="stable")
    return sources.at(order), durations[order]


@dataclass(frozen=True)
class Plan:
    """What a preprocessing run computes.

    Attributes
    ----------
    row_format : RowFormat
        What a row is.
    changed_fields : list of str
        How the configuration differs from that of the slot last used, if there is no slot for it yet.
    scan : Scan
        The comparison of the dataset with the slot's manifest.
    copies : Copies or None
        The rows that are copied from another slot.
    copied : sequence of Source
        The contents whose rows are copied.
    sources : sequence of Source
        The contents to compute, the longest first.
    durations : ndarray
        About how long they are, seconds.
    rows, bytes : int
        Number and size of the rows to compute or copy, estimated: silent chunks, which are left out, are counted, and
        nobody has checked yet how long the files are.
    padding : float
        Share of the rows that is not sound, because the last chunk of each file is padded with zeros.
    """

    row_format: RowFormat
    changed_fields: list[str]
    scan: Scan
    copies: Copies | None
    copied: Sequence[Source]
    sources: Sequence[Source]
    durations: np.ndarray
    rows: int
    bytes: int
    padding: float


def make_plan(
    dataset: Dataset,
    config: TrainingConfig,
    writer: CacheWriter,
    *,
    workers: int,
    progress: ProgressCallback,
    hashing: Hashing = "same-size",
) -> Plan:
    """Compare a dataset with the open slot of its cache, and plan what has to be computed. Hashes are kept at once.

    New files that are not hashed here are hashed while they are decoded.

    Raises
    ------
    DatasetError
        If there is no audio.
    StorageError
        If the table of files cannot be written.
    """
    row_format = writer.row_format
    forget_what_can_be_read(writer.manifest)
    scan = dataset.scan(writer.manifest, known=writer.files, workers=workers, hashing=hashing, progress=progress)
    dataset.require_audio(scan)
    log_found(dataset.path, scan, is_walk=dataset.files is None)
    changed_fields = _changed_fields(writer)
    writer.keep_hashes(scan)

    todo = Sources(dataset.folder, scan, np.arange(scan.n_todo))
    copies, copied, sources = divided(writer.cache_dir, row_format, todo)
    # So that no thread is left with a long file when the others have finished.
    sources, durations = longest_first(sources, workers, progress)
    chunk_s = config.chunk_samples / config.complex_spectrogram.sample_rate
    chunks = int(np.ceil(durations / chunk_s).sum())
    rows = chunks * (1 + row_format.expansion) + (copies.rows if copies else 0)
    row_bytes = math.prod(row_format.shape) * np.dtype(row_format.dtype).itemsize
    padding = 1 - float(durations.sum()) / (chunks * chunk_s) if chunks else 0.0
    return Plan(row_format, changed_fields, scan, copies, copied, sources, durations, rows, rows * row_bytes, padding)


def _changed_fields(writer: CacheWriter) -> list[str]:
    """Return how a new slot differs from the one last used, and log that it is begun; empty for a slot that exists."""
    if json.loads(writer.manifest.header):
        return []
    others = [rows for slot, rows in slot_formats(writer.cache_dir) if slot != writer.slot_dir]
    if not others:
        return []
    changed_fields = writer.row_format.changed_fields(others[0])
    if not changed_fields:  # a copy of this very slot
        return []
    logger.info(
        "features of this configuration are computed into a slot of their own (%s); those of %s stay",
        "; ".join(changed_fields),
        "the other configuration" if len(others) == 1 else f"{len(others)} other configurations",
    )
    return changed_fields


def resolve_row_format(config: TrainingConfig, cache_dir: Path, count_files: Callable[[], int]) -> RowFormat:
    """Return what a row is for a configuration; if it leaves the number of variants open, choose one.

    Parameters
    ----------
    config : TrainingConfig
        The configuration.
    cache_dir : Path
        The cache. What was chosen for it before is chosen again: one more file must not make every row invalid.
    count_files : callable
        Returns the number of files in the dataset. Called if nothing was chosen before.

    Raises
    ------
    ConfigError
        If an augmentation needs a library that is not installed.
    """
    expansion = config.augmentation_expansion
    is_chosen = expansion is None
    if expansion is None:
        expansion = chosen_before(config, cache_dir, _versions())
        if expansion is None:
            expansion = _SMALL_DATASET_EXPANSION if count_files() <= _SMALL_DATASET_FILES else 0
        logger.info("chosen: augmentation_expansion=%d", expansion)
    if expansion:
        check_available(config.augmentation)
    return RowFormat(config.complex_spectrogram, _identity(config, expansion), is_chosen)


def dataset_slot(dataset: Dataset, config: TrainingConfig) -> Path:
    """Return the folder of the slot that `preprocess` computes for a configuration.

    Raises
    ------
    CacheError
        If there is none.
    """
    expansion = config.augmentation_expansion
    if expansion is None:
        expansion = chosen_before(config, dataset.cache_path, _versions())
    slot = None if expansion is None else find_slot(dataset.cache_path, fingerprint(_identity(config, expansion)))
    if slot is None:
        raise CacheError(
            f"{dataset.cache_path}: holds no features of this configuration", "preprocess the dataset first"
        )
    return slot


def is_current(rows: RowFormat) -> bool:
    """Whether this version of distill computes such rows."""
    return rows.identity.items() >= _versions().items()


def _versions() -> dict[str, Any]:
    return {"feature_version": FEATURE_VERSION, "decoder_version": DECODER_VERSION}


def _identity(config: TrainingConfig, expansion: int) -> dict[str, Any]:
    return row_identity(config, expansion, _versions())


def confirm_plan(plan: Plan, cache_dir: Path, device: torch.device, confirm: ConfirmCallback | None) -> None:
    """Log what will be computed, and ask if it is much, or the disk seems to have no room for it.

    The size is an estimate, so it forbids nothing. If the disk is full in the end, what was finished is kept.

    Raises
    ------
    PreprocessingCancelled
        If `confirm` returned False.
    """
    copied = f", {counted(len(plan.copied), 'file')} to copy from {plan.copies.slot}" if plan.copies else ""
    work = f"{counted(len(plan.sources), 'file')} to compute{copied}: {counted(plan.rows, 'row')}"
    message = f"{work}, {plan.bytes / 1e6:.0f} MB in {cache_dir}"
    logger.info("%s, on %s", message, device)
    free = free_bytes(cache_dir)
    is_scarce = plan.bytes > free
    if is_scarce:
        scarce = f"the disk has room for {free / 1e6:.0f} MB, and all that is finished when it is full is kept"
        logger.warning("%s", scarce)
        message = f"{message}; {scarce}"
    elif plan.bytes <= CONFIRM_ABOVE_BYTES:
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
