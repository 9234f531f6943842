"""The writer of a cache: holds the lock, appends rows to packs, and commits manifests."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

import numpy as np

from distill import _native
from distill.cache.binary import save_copy
from distill.cache.damage import find_damage
from distill.cache.disk import cache_write_error
from distill.cache.folder import FILES_NAME, load_file_table, prepare_folder
from distill.cache.leftovers import remove_unnamed
from distill.cache.lock import CacheLock
from distill.cache.manifest import MANIFEST_NAME, PACKS_NAME, PARTS_NAME, build_header, open_manifest, require_manifest
from distill.cache.pack_info import PackInfo, has_stamps
from distill.cache.pack_reader import require_packs_folder
from distill.cache.parts import Part, PartWriter, in_groups, listed_by, load_parts, place_packs, wait_for
from distill.cache.row_format import RowFormat
from distill.cache.slots import OTHER_PLACE_TIP, slot_path
from distill.errors import CacheError, StorageError, UnreadablePackError
from distill.text import counted
from distill.types import ProgressCallback

logger = logging.getLogger(__name__)

# Commits take at most one part in so many of the time; a manifest of a million files takes seconds to write.
_COMMIT_EVERY = 20


class CacheWriter:
    """Write access to a cache, for one process at a time. Use as a context manager, and open a slot.

    Entering waits for the lock. Leaving after an error or Ctrl-C commits the contents that are finished. Nothing but
    the open slot and the table of files is written.

    Parameters
    ----------
    cache_dir : Path
        The cache. Made if missing.
    wait : bool
        Wait for the lock while another process holds it. Default: True.
    progress : callable, optional
        See `open_manifest`.

    Attributes
    ----------
    files : _native.FileTable
        What is known of each file, whatever slot it was scanned for.
    slot_dir, packs_dir : Path
        The open slot, and its packs.
    manifest : _native.Manifest
        The slot's manifest as it was on disk, or an empty one; methods change it in memory, `commit` saves it.
    row_format : RowFormat
        What the rows are, once a slot is open.
    adopted : int
        Number of files whose rows other processes left in the open slot as parts, and this one has adopted.
    dirty : bool
        Whether the manifest has changes that are not committed.
    has_committed : bool
        Whether this writer has committed.

    Raises
    ------
    StorageError
        If the cache cannot be written.
    LockedError
        If another process holds the lock, and `wait` is False.
    """

    row_format: RowFormat
    _rows: PartWriter

    def __init__(self, cache_dir: Path, *, wait: bool = True, progress: ProgressCallback | None = None) -> None:
        self.cache_dir = cache_dir
        self.files = _native.FileTable()
        self.slot_dir = cache_dir
        self.packs_dir = cache_dir / PACKS_NAME
        self.manifest = _native.Manifest()
        self.dirty = False
        self.has_committed = False
        self.adopted = 0
        self._created = ""
        self._progress = progress
        self._lock = CacheLock(cache_dir, wait=wait)
        self._is_open = False
        # Part files whose contents are in the manifest in memory; removed once it is committed.
        self._part_files: list[Path] = []
        self._next_commit = 0.0
        # Whether the manifest in memory lists contents that are not committed.
        self._has_results = False
        # Whether the table of files has hashes that are not saved yet.
        self._has_hashes = False

    def __enter__(self) -> CacheWriter:
        with ExitStack() as undo:
            try:
                undo.enter_context(self._lock)
                prepare_folder(self.cache_dir)
            except OSError as error:
                raise cache_write_error(self.cache_dir, error) from error
            self.files = load_file_table(self.cache_dir, self._progress)
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is not None and self._is_open:
                self._progress = None  # a callback that cancels would also end the last commit
                if self._has_results or self._has_hashes or self._rows.has_results:
                    self.finish()
                self._rows.abandon()
        except StorageError as another:
            # Not raised: most often it has the same cause as the error on its way out, which says more.
            logger.warning("what was finished since the last pack is lost: %s", another)
        finally:
            self._remove_if_empty()
            self._lock.__exit__(None, None, None)

    def open(self, row_format: RowFormat) -> None:
        """Open the slot for rows of a format. From here on, an error or Ctrl-C commits what is finished.

        Raises
        ------
        StorageError
            If it cannot be written.
        CacheError
            If it cannot be read, a later version of distill wrote it, or it holds other rows than its name says.
        """
        self.slot_dir = slot_path(self.cache_dir, row_format.fingerprint)
        self._open(open_manifest(self.slot_dir, self.files, self._progress) or _native.Manifest(), row_format)
        self.mark_used()

    def reopen(self, slot_dir: Path) -> None:
        """Open a slot that exists.

        Raises
        ------
        CacheError
            If it has no valid manifest.
        """
        self.slot_dir = slot_dir
        manifest = require_manifest(slot_dir)
        self._open(manifest, RowFormat.of_header(json.loads(manifest.header)))

    def _open(self, manifest: _native.Manifest, row_format: RowFormat) -> None:
        header = json.loads(manifest.header)
        if header and header["config_fingerprint"] != row_format.fingerprint:
            tip = "give the folder the first 16 digits of its own fingerprint as its name, or move it away"
            raise CacheError(f"{self.slot_dir}: holds features of another configuration than its name says", tip)
        self.packs_dir = self.slot_dir / PACKS_NAME
        for folder in (self.slot_dir.parent, self.slot_dir, self.packs_dir):
            if folder.is_symlink():
                raise StorageError(
                    f"{folder}: a symbolic link: packs are not written to, nor removed from, another folder",
                    f"remove the link, and {OTHER_PLACE_TIP}",
                )
        try:
            if manifest.pack_names():
                require_packs_folder(self.packs_dir)
            else:
                self.packs_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cache_write_error(self.packs_dir, error) from error
        self.manifest, self.row_format = manifest, row_format
        self._created = header["created"] if header else datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._rows, self.adopted = PartWriter(self.packs_dir, row_format), 0
        self._is_open = True
        try:
            for parts in in_groups(load_parts(self.slot_dir, row_format, removes=True)):
                self.adopted += sum(len(part.manifest.file_table()) for part in parts)
                self._adopt_saved(parts)
        except OSError as error:
            raise cache_write_error(self.slot_dir / PARTS_NAME, error) from error

    def set_hash(self, name: bytes, stamps: tuple[int, int, int, int, bool], content_hash: bytes) -> None:
        """Record the hash of a file, by its path relative to the dataset; its stamps are those of the scan.

        `finish` saves it in the table of files.
        """
        if self.manifest.set_hash(name, content_hash):
            self.dirty = True
            self._has_hashes = True
            self._rows.set_hash(name, stamps, content_hash)

    def keep_hashes(self, scan: _native.Scan) -> None:
        """Record a scan in the table of files, durably.

        Raises
        ------
        StorageError
            If the table cannot be written.
        """
        if self.files.apply(scan) or self._has_hashes:
            try:
                self.files.save(self.cache_dir / FILES_NAME)
            except OSError as error:
                raise cache_write_error(self.cache_dir, error) from error
        self._has_hashes = False

    def use_backend(self, backend: str) -> None:
        """Set what computes the rows from here on. A pack holds rows of one backend."""
        try:
            self._rows.use_backend(backend)
        except OSError as error:
            raise cache_write_error(self.cache_dir, error) from error

    def mark_used(self) -> None:
        """Record, as the time of the slot's folder, that it is used now."""
        with suppress(OSError):
            os.utime(self.slot_dir)

    def _remove_if_empty(self) -> None:
        """Remove a slot that was begun, but never committed."""
        if self._is_open and not os.path.lexists(self.slot_dir / MANIFEST_NAME):
            with suppress(OSError):
                self.packs_dir.rmdir()
                self.slot_dir.rmdir()

    def drop_damaged(self, *, every: bool = False, progress: ProgressCallback | None = None) -> None:
        """Forget rows that are missing or damaged, so that they are computed again.

        Parameters
        ----------
        every : bool
            Check every row. Default: only rows of packs whose size or times differ from those recorded.
        progress : callable, optional
            Called with ("check", bytes checked, bytes to check).

        Raises
        ------
        UnreadablePackError
            If a pack cannot be read at the moment: nothing is known to be wrong with it.
        """
        packs = [PackInfo.of(entry) for entry in self.manifest.packs()]
        suspects = [info for info in packs if every or not has_stamps(self.packs_dir / info.name, info)]
        if suspects and not every:
            logger.info("%s changed on disk: checking the rows", counted(len(suspects), "pack"))
        for info, damage in find_damage(self.packs_dir, suspects, self.row_format, progress):
            if isinstance(damage, UnreadablePackError):
                raise damage
            self.dirty = True
            if damage is not None:
                logger.warning("%s: %s; computed again", self.packs_dir / info.name, damage.reason)
            if damage is not None and damage.rows is None:
                self.manifest.drop_pack(info.name)
                continue
            if damage is not None and damage.rows is not None:
                self.manifest.drop_rows(info.name, damage.rows.tolist())
            self.manifest.set_pack_stamps(info.name, info.mtime_ns, info.ctime_ns)

    def add_rows(self, content_hash: bytes, rows: np.ndarray) -> None:
        """Append rows [k, 2, M, T] of a content that is not finished yet. If a pack is full, what is finished is kept.

        Raises
        ------
        StorageError
            If they cannot be written.
        """
        try:
            if self._rows.add_rows(content_hash, rows):
                self._keep()
        except OSError as error:
            raise cache_write_error(self.cache_dir, error) from error

    def finish_content(
        self,
        content_hash: bytes,
        silent: int,
        sums: Sequence[float],
        partial: str | None = None,
        silent_runs: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Mark a content as complete. The manifest lists it once the packs with its rows are closed.

        Parameters
        ----------
        content_hash : bytes
            The content, all of whose rows were added.
        silent : int
            Number of its chunks that were left out as silent.
        sums : sequence of float
            [n, sum, sum of squares, sum, sum of squares] over its rows; see `normalization_stats`.
        partial : Reason, optional
            Why its rows are only of a part of it.
        silent_runs : sequence of (int, int)
            Which chunks were silent: number of the first one, and how many, of each run. Default: unknown.
        """
        self._rows.finish_content(content_hash, silent, sums, partial, silent_runs)

    def skip_content(self, content_hash: bytes, reason: str, silent: int = 0) -> None:
        """Record that a content never gives rows, and why."""
        self._rows.skip_content(content_hash, reason, silent)

    def drop_content(self, content_hash: bytes) -> None:
        """Forget the rows of a content whose file could not be read to the end this time."""
        self._rows.drop_content(content_hash)

    def finish(self) -> None:
        """Make all finished contents durable, commit them, and remove packs that the manifest does not name.

        Large tables get their binary copies last: they only save time.

        Raises
        ------
        StorageError
            If the cache cannot be written.
        """
        try:
            self._rows.close_pack()
            self._adopt([self._rows.take()])
            if self.dirty:
                self.commit()
            self._remove_part_files()
            if self._has_hashes:
                self.files.adopt(self.manifest.file_table())
                self.files.save(self.cache_dir / FILES_NAME)
                self._has_hashes = False
            self.remove_unnamed()
        except OSError as error:
            raise cache_write_error(self.cache_dir, error) from error
        save_copy(self.manifest, self.slot_dir / MANIFEST_NAME)
        save_copy(self.files, self.cache_dir / FILES_NAME)

    def _keep(self) -> None:
        """Commit what is finished; as a part file, which is cheaper, if the last commit was only a moment ago."""
        part = self._rows.take()
        self._adopt([part])
        if time.monotonic() >= self._next_commit:
            self.commit()
        elif not part.is_empty:
            path = part.saved(self.slot_dir, self.row_format).path
            assert path is not None
            self._part_files.append(path)

    def _adopt(self, parts: Sequence[Part]) -> _native.Manifest:
        """Add what some parts list to the manifest in memory, and return it."""
        for part in parts:
            self._rows.keep(part)
        listed = listed_by(parts)
        if self.manifest.adopt(listed):
            self.dirty = self._has_results = True
        return listed

    def _adopt_saved(self, parts: Sequence[Part]) -> bool:
        """Adopt parts that have part files; return whether all of their packs are there."""
        is_whole = [place_packs(part, self.slot_dir, self.packs_dir) for part in parts]
        self.files.adopt(self._adopt(parts).file_table())
        self._has_hashes = True
        self._part_files += [part.path for part in parts if part.path is not None]
        return all(is_whole)

    def adopt_part(self, path: Path) -> bool:
        """Adopt a part file that another process has made by now; return whether all that it lists is there.

        Raises
        ------
        StorageError
            If the manifest or a pack cannot be written.
        """
        try:
            wait_for(self.slot_dir, [path.name])
            is_whole = False
            for part in load_parts(self.slot_dir, self.row_format, [path], removes=True):
                wait_for(self.slot_dir, part.manifest.pack_names())
                is_whole = self._adopt_saved([part])
            if self.dirty and time.monotonic() >= self._next_commit:
                self.commit()
        except OSError as error:
            raise cache_write_error(self.cache_dir, error) from error
        return is_whole

    def commit(self) -> None:
        """Replace the manifest on disk, atomically and durably.

        Raises
        ------
        OSError
            If it cannot be written. The old manifest is then still in place.
        StorageError
            If another process has taken over the cache. Its manifest is then in place.
        """
        start = time.monotonic()
        header = build_header(self.row_format, self.manifest.totals(), created=self._created)
        self.manifest.header = json.dumps(header)
        with self._lock.replacing(self.slot_dir / MANIFEST_NAME) as path:
            self.manifest.save(path, self._progress)
        self.dirty = self._has_results = False
        self.has_committed = True
        self._remove_part_files()
        end = time.monotonic()
        self._next_commit = end + _COMMIT_EVERY * (end - start)

    def _remove_part_files(self) -> None:
        """Remove the part files that were adopted: the manifest on disk has what they list."""
        for path in self._part_files:
            path.unlink(missing_ok=True)
        self._part_files.clear()

    def remove_unnamed(self) -> None:
        """Remove packs that the committed manifest does not name; see `remove_unnamed`.

        Raises
        ------
        OSError
            If one cannot be removed.
        """
        self._lock.check()
        remove_unnamed(self.cache_dir, self.slot_dir, self.packs_dir, self.manifest.pack_names())
