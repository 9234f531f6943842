"""Compaction: dead rows, which belong to no file any more, are removed by writing their packs again without them."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill.cache.disk import cache_write_error
from distill.cache.leftovers import remove_abandoned
from distill.cache.manifest import MANIFEST_NAME, require_manifest
from distill.cache.pack import PackWriter, add_pack, rows_that_fit
from distill.cache.pack_info import PackInfo, is_pack_name
from distill.cache.pack_reader import PackReader
from distill.cache.parts import is_shared, part_files
from distill.cache.removal import remove_slot
from distill.cache.slots import Slot, choose_slot, exists, list_slots
from distill.cache.writer import CacheWriter
from distill.errors import CacheError, StorageError
from distill.index import cache_of

logger = logging.getLogger(__name__)

DEAD_SHARE = 0.3
"""Preprocessing compacts automatically above this share of dead rows."""
_SMALL_PACKS = 64
_COPY_ROWS = 64


class Cleaned(NamedTuple):
    """Rows and bytes that `clean` removed."""

    rows: int
    bytes: int


def clean(cache_dir: str | os.PathLike[str]) -> Cleaned:
    """Remove all dead rows from a cache, all packs that no manifest names, and slots without a manifest.

    A row is dead if no file had its content when the dataset was last preprocessed.

    Parameters
    ----------
    cache_dir : path
        A cache: all of its slots; or one slot, the folder that preprocessing returned.

    Returns
    -------
    Cleaned
        How many rows and bytes were removed.

    Raises
    ------
    CacheError
        If there is no valid cache.
    StorageError
        If the cache cannot be written.
    """
    path = Path(cache_dir)
    root = cache_of(path)
    if root != path or not list_slots(root):
        require_manifest(choose_slot(path))
    rows, size, done = 0, 0, 0
    with CacheWriter(root) as writer:
        slots = list_slots(root) if root == path else [Slot.at(path)]
        for slot in slots:
            if slot.manifest:
                with _same_last_use(slot):
                    cleaned = _clean_slot(writer, slot)
                rows, size, done = rows + cleaned.rows, size + cleaned.bytes, done + 1
            elif exists(slot.path / MANIFEST_NAME):
                logger.warning("%s: not cleaned: %s", slot.path, slot.fault)
            elif part_files(slot.path):
                words = "not cleaned: what other processes computed for it is not collected yet"
                logger.warning("%s: %s; run: distill preprocess DATASET, with the same options", slot.path, words)
                done += 1
            else:
                remove_slot(slot.path)
                size, done = size + slot.bytes, done + 1
    if not done:
        require_manifest(slots[0].path)
    return Cleaned(rows, size)


def _clean_slot(writer: CacheWriter, slot: Slot) -> Cleaned:
    writer.reopen(slot.path)
    rows, size = writer.manifest.totals().dead_rows, _bytes_of_packs(writer)
    compact(writer, dead_share=0.0)
    if is_shared(writer.slot_dir):
        try:
            size += remove_abandoned(writer.slot_dir, writer.packs_dir)
        except OSError as error:
            raise cache_write_error(writer.slot_dir, error) from error
    return Cleaned(rows - writer.manifest.totals().dead_rows, size - _bytes_of_packs(writer))


@contextmanager
def _same_last_use(slot: Slot) -> Iterator[None]:
    """Keep the time at which a slot was last used: to clean it is not to use it."""
    yield
    with suppress(OSError):
        os.utime(slot.path, ns=(slot.last_used_ns, slot.last_used_ns))


def _bytes_of_packs(writer: CacheWriter) -> int:
    try:
        return sum(path.lstat().st_size for path in writer.packs_dir.iterdir() if is_pack_name(path.name))
    except OSError as error:
        raise cache_write_error(writer.packs_dir, error) from error


def compact_if_wasteful(writer: CacheWriter) -> None:
    """Compact if many rows are dead or many packs are small. If that fails, log a warning and leave the cache as is.

    A slot that several machines use is left to `clean`.
    """
    if is_shared(writer.slot_dir):
        return
    rows = sum(pack["rows"] for pack in writer.manifest.packs())
    is_wasteful = writer.manifest.totals().dead_rows > DEAD_SHARE * rows
    if not is_wasteful and not _small_packs(writer):
        return
    try:
        compact(writer, dead_share=DEAD_SHARE)
    except (StorageError, CacheError) as error:
        logger.warning("the cache could not be made smaller: %s", error)


def compact(writer: CacheWriter, *, dead_share: float) -> None:
    """Write packs again without their dead rows, and merge small packs.

    Each step fills at most one new pack, commits, and removes the packs that it replaces, so it needs little free
    space. A reader of a removed pack keeps it open, or finds the rows in the new one.

    Parameters
    ----------
    writer : CacheWriter
        The cache, with an open slot.
    dead_share : float
        Write a pack again if more than this share of its rows is dead.

    Raises
    ------
    StorageError
        If the new packs cannot be written.
    CacheError
        If a row in use of a pack is damaged, or cannot be read.
    """
    writer.manifest.drop_dead()
    writer.dirty = True
    try:
        while group := _choose(writer, dead_share):
            _rewrite(writer, group)
            writer.commit()
            writer.remove_unnamed()
    except OSError as error:
        raise cache_write_error(writer.cache_dir, error) from error
    writer.finish()


def _choose(writer: CacheWriter, dead_share: float) -> list[int]:
    """Return packs of one backend whose rows in use fit into one new pack, by index; empty if nothing is left to do."""
    packs = writer.manifest.packs()
    kept = writer.manifest.kept()
    kept_rows = np.bincount(kept.pack, weights=kept.rows, minlength=len(packs)).astype(np.int64)
    room = rows_that_fit(writer.row_format.shape, writer.row_format.dtype)
    chosen = [n for n, pack in enumerate(packs) if pack["rows"] - kept_rows[n] > dead_share * pack["rows"]]
    chosen = chosen or _small_packs(writer)
    group: list[int] = []
    rows = 0
    for n in chosen:
        if packs[n]["backend"] == packs[chosen[0]]["backend"] and (not group or rows + kept_rows[n] <= room):
            group.append(n)
            rows += int(kept_rows[n])
    return group


def _small_packs(writer: CacheWriter) -> list[int]:
    """Return the small packs of one backend, by index, if there are too many: each preprocessing run leaves one."""
    room = rows_that_fit(writer.row_format.shape, writer.row_format.dtype)
    packs = writer.manifest.packs()
    small = [n for n, pack in enumerate(packs) if pack["rows"] <= room // 4]
    backends = Counter(packs[n]["backend"] for n in small)
    if not small or max(backends.values()) <= _SMALL_PACKS:
        return []
    (backend, _), *_ = backends.most_common(1)
    return [n for n in small if packs[n]["backend"] == backend]


def _rewrite(writer: CacheWriter, group: list[int]) -> None:
    """Copy the rows in use of some packs into a new pack, and move their contents to it in the manifest in memory."""
    packs = writer.manifest.packs()
    kept = writer.manifest.kept()
    row_shape, dtype = writer.row_format.shape, writer.row_format.dtype
    # By (old pack, old first row), the new first row.
    moved: dict[tuple[int, int], int] = {}
    with ExitStack() as undo:
        new = PackWriter(writer.packs_dir, row_shape, dtype)
        undo.callback(new.abandon)
        for index in group:
            info = PackInfo.of(packs[index])
            reader = PackReader(writer.packs_dir / info.name, info, row_shape, dtype)
            here = kept.pack == index
            for first, rows in zip(kept.first[here].tolist(), kept.rows[here].tolist(), strict=True):
                moved[index, first] = new.rows
                for start in range(first, first + rows, _COPY_ROWS):
                    new.append(reader.read(np.arange(start, min(start + _COPY_ROWS, first + rows))))
        new_info = new.close()
        undo.pop_all()
    new_index = add_pack(writer.manifest, new_info, packs[group[0]]["backend"])
    for content in np.unique(kept.content[np.isin(kept.pack, group)]).tolist():
        of_content = slice(*np.searchsorted(kept.content, [content, content + 1]))
        segments = zip(*(column[of_content].tolist() for column in (kept.pack, kept.first, kept.rows)), strict=True)
        placed = [
            (new_index, moved[pack, first], rows) if (pack, first) in moved else (pack, first, rows)
            for pack, first, rows in segments
        ]
        writer.manifest.move_content(kept.content_hashes[content], placed)
    writer.manifest.drop_dead()
