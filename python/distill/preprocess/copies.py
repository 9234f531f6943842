"""Rows that another slot has already.

Its configuration differs only in having more variants of each chunk, or in what it does with partial files.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.cache.reader import CacheReader
from distill.cache.row_format import RowFormat
from distill.cache.slots import slot_formats
from distill.cache.writer import CacheWriter
from distill.errors import CacheError
from distill.features.normalization import row_sums
from distill.preprocess.events import BATCH_ROWS, Source
from distill.types import Reason

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Copies:
    """Contents whose rows are copied from another slot.

    Attributes
    ----------
    slot : str
        The name of the other slot.
    reader : CacheReader
        Its rows.
    rows_of : dict
        By content hash, the rows to copy, as indices for the reader.
    backend_of : dict
        By content hash, what computed them.
    skipped : dict
        By content hash, why it is left out: the other slot has rows of a part of it, which this one does not want.
    """

    slot: str
    reader: CacheReader
    rows_of: dict[bytes, np.ndarray]
    backend_of: dict[bytes, str]
    skipped: dict[bytes, Reason]

    @property
    def content_hashes(self) -> set[bytes]:
        """The contents that need not be decoded."""
        return self.rows_of.keys() | self.skipped.keys()

    @property
    def rows(self) -> int:
        """Number of rows to copy."""
        return sum(map(len, self.rows_of.values()))

    def copy(self, writer: CacheWriter) -> Iterator[tuple[bytes, bool]]:
        """Copy the contents, those of one backend after another, so that a pack holds rows of one.

        Yields
        ------
        content_hash : bytes
        is_done : bool
            False if its rows turned out to be damaged: they have to be computed.
        """
        for content_hash, reason in self.skipped.items():
            writer.skip_content(content_hash, reason)
            yield content_hash, True
        silent = dict(zip(self.reader.content_hashes, self.reader.manifest.kept().silent.tolist(), strict=True))
        for content_hash in sorted(self.rows_of, key=lambda content_hash: self.backend_of[content_hash]):
            writer.use_backend(self.backend_of[content_hash])
            rows, sums = self.rows_of[content_hash], np.zeros(5)
            try:
                # In batches as they were computed: the sums, in which the order of additions shows, are then the same.
                for start in range(0, len(rows), BATCH_ROWS):
                    batch = self.reader.read(rows[start : start + BATCH_ROWS])
                    sums += row_sums(batch)
                    writer.add_rows(content_hash, batch)
            except CacheError as error:
                logger.warning("%s; computed instead", error)
                writer.drop_content(content_hash)
                yield content_hash, False
            else:
                partial = self.reader.manifest.partial_reason(content_hash)
                runs = self.reader.manifest.silent_runs(content_hash)
                writer.finish_content(content_hash, silent[content_hash], sums.tolist(), partial, runs)
                yield content_hash, True


def find_copies(cache_dir: Path, row_format: RowFormat, sources: Sequence[Source]) -> Copies | None:
    """Return which of some contents can be copied from another slot; None if no other slot has any of them."""
    best = None
    for slot, rows in slot_formats(cache_dir) if len(sources) else ():
        if not row_format.is_included_in(rows):
            continue
        try:
            reader = CacheReader(slot, unselected=True)
        except CacheError as error:
            logger.warning("%s; its rows are not used", error)
            continue
        wanted = {source.content_hash for source in sources if source.content_hash is not None}
        copies = _copies(slot.name, reader, wanted, row_format)
        if best is None or len(copies.content_hashes) > len(best.content_hashes):
            best = copies
    return best if best and best.content_hashes else None


def _copies(slot: str, reader: CacheReader, wanted: set[bytes], row_format: RowFormat) -> Copies:
    kept, packs = reader.manifest.kept(), reader.manifest.packs()
    is_wanted = np.array([content_hash in wanted for content_hash in reader.content_hashes], bool)
    rows = np.flatnonzero(is_wanted[reader.source] & (reader.variant <= row_format.expansion))
    starts = np.flatnonzero(np.diff(reader.source[rows], prepend=-1))
    rows_of = {
        reader.content_hashes[reader.source[of_content[0]]]: of_content
        for of_content in np.split(rows, starts[1:])
        if len(of_content)
    }
    backend_of: dict[bytes, str] = {}
    for content, pack in zip(kept.content.tolist(), kept.pack.tolist(), strict=True):
        content_hash, backend = kept.content_hashes[content], packs[pack]["backend"]
        if backend_of.setdefault(content_hash, backend) != backend:
            rows_of.pop(content_hash, None)
    skipped = {}
    if row_format.skips_partial:
        reasons = {content_hash: reader.manifest.partial_reason(content_hash) for content_hash in rows_of}
        skipped = {content_hash: reason for content_hash, reason in reasons.items() if reason}
    rows_of = {content_hash: rows for content_hash, rows in rows_of.items() if content_hash not in skipped}
    return Copies(slot, reader, rows_of, backend_of, skipped)
