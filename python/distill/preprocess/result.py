"""The result of preprocessing, and its log lines."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from distill._native import Manifest, Scan
from distill.errors import NothingUsableError
from distill.extensions import unread_lines
from distill.features.statistics import normalization_stats
from distill.text import counted, listed, printable, reason_lines

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreprocessResult:
    """What a preprocessing run did.

    Attributes
    ----------
    cache_dir : Path
        The slot of the cache for this configuration.
    normalization_stats : dict
        mag_mean, mag_std, if_mean, if_std.
    rows : int
        Rows in the cache that the dataset uses.
    decoded : int
        Number of files decoded by this run.
    adopted : int
        Number of files whose rows other processes had left as parts, and this run added to the slot.
    skipped : list of (path, reason)
        Files that were left out, and folders that could not be read. Paths are relative to the dataset, with
        undecodable bytes as surrogate escapes.
    partial : list of (path, reason)
        Files of which only a part could be decoded, which is used.
    unread : dict
        Number of files by extension, of kinds of audio and video that are not read.
    channels : dict
        Number of files decoded by this run by their number of channels.
    counts : dict
        Numbers of files: unchanged, added, changed, renamed, removed, skipped.
    augmentation_expansion : int
        Augmented variants of each chunk, requested or chosen.
    changed_fields : list of str
        If the cache had no slot for this configuration: how it differs from that of the slot last used.
    with_offset : list of str
        Files decoded by this run whose constant offset (DC) was removed, as paths relative to the dataset.
    seconds : float
        Duration of the run.
    """

    cache_dir: Path
    normalization_stats: dict[str, float]
    rows: int
    decoded: int
    skipped: list[tuple[str, str]]
    counts: dict[str, int]
    augmentation_expansion: int
    partial: list[tuple[str, str]] = field(default_factory=list)
    adopted: int = 0
    unread: dict[str, int] = field(default_factory=dict)
    channels: dict[int, int] = field(default_factory=dict)
    changed_fields: list[str] = field(default_factory=list)
    with_offset: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def log(self) -> None:
        """Log what was done, and which files were left out or are used in part, and why."""
        work = "nothing had to be decoded"
        if self.decoded:
            work = f"{counted(self.decoded, 'file')} decoded"
        if self.adopted:
            work += f", {counted(self.adopted, 'file')} of other processes adopted"
        logger.info("%s of features, %s", counted(self.rows, "row"), work)
        log_mixed(self.channels)
        log_offsets(self.with_offset)
        log_partial(self.partial)
        log_skipped(self.skipped)
        log_unread(self.unread)


def known_result(slot_dir: Path, manifest: Manifest, scan: Scan, expansion: int) -> PreprocessResult:
    """Return the result of a run that computed nothing: what a slot holds for the files of a scan."""
    totals = manifest.totals()
    return PreprocessResult(
        cache_dir=slot_dir,
        normalization_stats=normalization_stats(totals.sums),
        rows=totals.rows,
        decoded=0,
        skipped=sorted([*manifest.skipped(), *scan.faults]),
        partial=list(manifest.partial()),
        unread=scan.unread,
        counts=dict(cast("dict[str, int]", scan.counts)),
        augmentation_expansion=expansion,
    )


def log_found(dataset_dir: Path, scan: Scan, *, is_walk: bool) -> None:
    """Log what a scan found. `is_walk`: it looked at the whole folder and not at a list of files."""
    counts = scan.counts
    changes = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n)
    logger.info("%s: %s (%s)", dataset_dir, counted(scan.n_files, "audio file"), changes)
    for path, reason in scan.faults:
        logger.warning("%s: %s", printable(path), reason)
    log_left_out(scan)
    if is_walk and counts["removed"] and not counts["unchanged"] + counts["changed"] + counts["renamed"]:
        logger.warning(
            "none of the %d files this cache knew is in %s: is it another dataset's cache? Their rows will be removed",
            counts["removed"],
            dataset_dir,
        )


def log_left_out(scan: Scan) -> None:
    """Log which folders were left out because distill wrote them."""
    if scan.left_out:
        folders = printable(listed(scan.left_out, 3))
        logger.info("left out %s that distill wrote: %s", counted(len(scan.left_out), "folder"), folders)


def log_skipped(skipped: Sequence[tuple[str, str]]) -> None:
    """Log which files were left out and why."""
    if skipped:
        logger.warning("%s skipped:", counted(len(skipped), "file"))
    for path, reason in skipped:
        logger.warning("  %s: %s", printable(path), printable(reason))


def log_partial(partial: Sequence[tuple[str, str]]) -> None:
    """Log of which files only a part is used, and why."""
    if partial:
        logger.warning("%s used in part:", "1 file is" if len(partial) == 1 else f"{len(partial)} files are")
    for path, reason in partial:
        logger.warning("  %s: %s", printable(path), printable(reason))


def log_unread(unread: Mapping[str, int]) -> None:
    """Log which kinds of files are not read, and the remedies."""
    for line in unread_lines(unread):
        logger.warning("%s", line)


def log_mixed(channels: Mapping[int, int]) -> None:
    """Log how many of the decoded files were mixed to mono, by their numbers of channels."""
    total, mixed = sum(channels.values()), sum(number for count, number in channels.items() if count > 1)
    if mixed:
        kind = "have more than one channel" if max(channels) > 2 else "are stereo"
        words = f"{mixed} of {counted(total, 'file')} {kind} and are mixed to mono"
        logger.info("%s", words if mixed > 1 else words.replace("have", "has").replace("are", "is"))


def log_offsets(paths: Sequence[str]) -> None:
    """Log from which files a constant offset was removed."""
    if paths:
        names = listed([printable(path) for path in paths], 5)
        logger.info("a constant offset (DC) was removed from %s: %s", counted(len(paths), "file"), names)


def nothing_usable(
    dataset_dir: Path, skipped: Sequence[tuple[str, str]], unread: Mapping[str, int] | None = None
) -> NothingUsableError:
    """Return the error for a dataset in which no file gives a single chunk."""
    others = "".join(f"\n  {line}" for line in unread_lines(unread or {}))
    return NothingUsableError(f"{dataset_dir}: no file could be used{reason_lines(skipped)}{others}")
