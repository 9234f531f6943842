"""Rows that another slot has already: its configuration differs only in having more variants of each chunk."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from distill.cache.reader import CacheReader
from distill.cache.slots import slot_formats
from distill.cache.writer import CacheWriter
from distill.errors import CacheError
from distill.preprocess.extraction import BATCH_ROWS, row_sums

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
    """

    slot: str
    reader: CacheReader
    rows_of: dict[bytes, np.ndarray]
    backend_of: dict[bytes, str]

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
                writer.finish_content(content_hash, silent[content_hash], sums.tolist())
                yield content_hash, True


def find_copies(writer: CacheWriter, hashes: Sequence[bytes]) -> Copies | None:
    """Return which of some contents can be copied into the open slot; None if no other slot has any of them."""
    best = None
    for slot, rows in slot_formats(writer.cache_dir) if hashes else ():
        if not writer.row_format.is_included_in(rows):
            continue
        try:
            reader = CacheReader(slot, unselected=True)
        except CacheError as error:
            logger.warning("%s; its rows are not used", error)
            continue
        copies = _copies(slot.name, reader, set(hashes), writer.row_format.expansion)
        if best is None or len(copies.rows_of) > len(best.rows_of):
            best = copies
    return best if best and best.rows_of else None


def _copies(slot: str, reader: CacheReader, wanted: set[bytes], expansion: int) -> Copies:
    kept, packs = reader.manifest.kept(), reader.manifest.packs()
    is_wanted = np.array([content_hash in wanted for content_hash in reader.content_hashes], bool)
    rows = np.flatnonzero(is_wanted[reader.source] & (reader.variant <= expansion))
    starts = np.flatnonzero(np.diff(reader.source[rows], prepend=-1))
    rows_of = {
        reader.content_hashes[reader.source[of_content[0]]]: of_content
        for of_content in np.split(rows, starts[1:])
        if len(of_content)
    }
    backend_of = {}
    for content, pack in zip(kept.content.tolist(), kept.pack.tolist(), strict=True):
        content_hash, backend = kept.content_hashes[content], packs[pack]["backend"]
        if backend_of.setdefault(content_hash, backend) != backend:
            rows_of.pop(content_hash, None)
    return Copies(slot, reader, rows_of, backend_of)
