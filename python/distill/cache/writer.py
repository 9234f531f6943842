"""The writer of a cache: holds the lock, appends rows to packs, and commits manifests."""

from __future__ import annotations

import json
import logging
import re
import shutil
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from distill import _native
from distill.cache.damage import find_damage, has_stamps
from distill.cache.lock import CacheLock
from distill.cache.manifest import MANIFEST_NAME, PACKS_NAME, build_header, open_manifest
from distill.cache.pack import PackInfo, PackWriter, add_pack, is_pack_name
from distill.cache.row_format import RowFormat
from distill.errors import CacheError, StorageError
from distill.storage import TEMPORARY, is_full, storage_error
from distill.text import counted
from distill.types import ProgressCallback

logger = logging.getLogger(__name__)

_OTHER_PLACE_TIP = "choose a place for the cache with --cache-dir DIR"
_FREE_MARGIN_BYTES = 16 << 20
# A commit that was killed leaves a temporary file; that of an earlier version is .NAME.PID-N.tmp.
_PARTIAL = re.compile(rf"{TEMPORARY.pattern}|\.{re.escape(MANIFEST_NAME)}\.\d+-\d+\.tmp")


def cache_write_error(path: Path, error: OSError) -> StorageError:
    """Return the StorageError for an OSError from writing to a cache at `path`; names the file, where it is known."""
    named = path if is_full(error) else Path(error.filename or path)
    return storage_error(named, error, _OTHER_PLACE_TIP, note_if_full="what was finished is kept")


def check_space(cache_dir: Path, needed_bytes: int) -> None:
    """Raise StorageError if the disk that holds `cache_dir` has less than `needed_bytes` of free space."""
    existing = next(folder for folder in (cache_dir, *cache_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes + _FREE_MARGIN_BYTES:
        raise StorageError(
            f"{cache_dir}: the features need about {needed_bytes / 1e6:.0f} MB, the disk has {free / 1e6:.0f} MB left",
            f"make room, or {_OTHER_PLACE_TIP}",
        )


class CacheWriter:
    """Write access to a cache, for one process at a time. Use as a context manager.

    Entering waits for the lock. Leaving after an error or Ctrl-C commits the contents that are finished.

    Parameters
    ----------
    cache_dir : Path
        The cache. Made if missing.

    Attributes
    ----------
    manifest : _native.Manifest
        The manifest as it was on disk, or an empty one; methods change it in memory, `commit` saves it.
    row_format : RowFormat or None
        What the rows are; None before `begin`.
    backend : str
        What computes the rows, "reference", "rust" or "fused"; the manifest records it for each pack.
    dirty : bool
        Whether the manifest has changes that are not committed.
    has_committed : bool
        Whether this writer has committed.

    Raises
    ------
    StorageError
        If the cache cannot be written.
    """

    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir
        self.packs_dir = cache_dir / PACKS_NAME
        self.manifest = _native.Manifest()
        self.row_format: RowFormat | None = None
        self.backend = "reference"
        self.dirty = False
        self.has_committed = False
        self._created = ""
        self._lock = CacheLock(cache_dir)
        self._pack: PackWriter | None = None
        self._pack_index: dict[str, int] = {}
        self._unfinished: dict[bytes, list[_Segment]] = {}
        self._finished: list[_Content] = []

    def __enter__(self) -> CacheWriter:
        with ExitStack() as undo:
            try:
                undo.enter_context(self._lock)
                is_link = self.packs_dir.is_symlink()
                if not is_link:
                    self.packs_dir.mkdir(exist_ok=True)
            except OSError as error:
                raise cache_write_error(self.cache_dir, error) from error
            if is_link:
                raise StorageError(
                    f"{self.packs_dir}: a symbolic link: packs are not written to, nor removed from, another folder",
                    f"remove the link, and {_OTHER_PLACE_TIP}",
                )
            self.manifest = open_manifest(self.cache_dir) or _native.Manifest()
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is not None and self.row_format is not None:
                self.finish()
        except StorageError as another:
            # Not raised: most often it has the same cause as the error on its way out, which says more.
            logger.warning("what was finished since the last pack is lost: %s", another)
        finally:
            self._lock.__exit__(None, None, None)

    def begin(self, row_format: RowFormat) -> None:
        """Set what the rows are. From here on, an error or Ctrl-C commits what is finished."""
        self.row_format = row_format
        header = json.loads(self.manifest.header)
        is_same = header and header["config_fingerprint"] == row_format.fingerprint
        self._created = header["created"] if is_same else datetime.now(timezone.utc).isoformat(timespec="seconds")

    def resume(self) -> None:
        """Begin with the row format of the manifest.

        Raises
        ------
        CacheError
            If it has none.
        """
        header = json.loads(self.manifest.header)
        if not header:
            raise CacheError(f"{self.cache_dir}: no valid cache here", "run: distill preprocess DATASET")
        self.begin(RowFormat.of_header(header))

    def drop_damaged(self, *, every: bool = False, progress: ProgressCallback | None = None) -> None:
        """Forget rows that are missing or damaged, so that they are computed again.

        Parameters
        ----------
        every : bool
            Check every row. Default: only rows of packs whose size or times differ from those recorded.
        progress : callable, optional
            Called with ("check", bytes checked, bytes to check).
        """
        header = json.loads(self.manifest.header)
        packs = [PackInfo.of(entry) for entry in self.manifest.packs()]
        suspects = [info for info in packs if every or not has_stamps(self.packs_dir / info.name, info)]
        if suspects and not every:
            logger.info("%s changed on disk: checking the rows", counted(len(suspects), "pack"))
        for info, damage in find_damage(self.packs_dir, suspects, header, progress):
            self.dirty = True
            if damage is not None:
                logger.warning("%s: %s; computed again", self.packs_dir / info.name, damage.reason)
            if damage is not None and damage.rows is None:
                self.manifest.drop_pack(info.name)
                continue
            if damage is not None:
                self.manifest.drop_rows(info.name, damage.rows.tolist())
            self.manifest.set_pack_stamps(info.name, info.mtime_ns, info.ctime_ns)

    def add_rows(self, content_hash: bytes, rows: np.ndarray) -> None:
        """Append rows [k, 2, M, T] of a content that is not finished yet. A full pack is closed and committed.

        Raises
        ------
        StorageError
            If they cannot be written.
        """
        segments = self._unfinished.setdefault(content_hash, [])
        try:
            while len(rows):
                if self._pack is None:
                    self._pack = PackWriter(self.packs_dir, self.row_format.shape, self.row_format.dtype)
                pack = self._pack
                taken, rows = rows[: pack.room], rows[pack.room :]
                new = _Segment(pack.path.name, pack.append(taken), len(taken))
                last = segments[-1] if segments else None
                if last and last.pack == new.pack and last.first + last.rows == new.first:
                    segments[-1] = last._replace(rows=last.rows + new.rows)
                else:
                    segments.append(new)
                if pack.room == 0:
                    self._close_pack()
                    self.commit()
        except OSError as error:
            raise cache_write_error(self.cache_dir, error) from error

    def finish_content(self, content_hash: bytes, silent: int, sums: Sequence[float]) -> None:
        """Mark a content as complete. The manifest lists it once the packs with its rows are closed.

        Parameters
        ----------
        content_hash : bytes
            The content, all of whose rows were added.
        silent : int
            Number of its chunks that were left out as silent.
        sums : sequence of float
            [n, sum, sum of squares, sum, sum of squares] over its rows; see `normalization_stats`.
        """
        self._finished.append(_Content(content_hash, self._unfinished.pop(content_hash, []), silent, sums))
        self.dirty = True

    def skip_content(self, content_hash: bytes, reason: str, silent: int = 0) -> None:
        """Record that a content never gives rows, and why."""
        self._unfinished.pop(content_hash, None)
        self.manifest.set_content(content_hash, [], silent, [0.0] * 5, reason)
        self.dirty = True

    def drop_content(self, content_hash: bytes) -> None:
        """Forget the rows of a content whose file could not be read to the end this time."""
        self._unfinished.pop(content_hash, None)

    def finish(self) -> None:
        """Make all finished contents durable, commit them, and remove packs that the manifest does not name.

        Raises
        ------
        StorageError
            If the cache cannot be written.
        """
        try:
            self._close_pack()
            if self.dirty:
                self.commit()
            self.remove_unnamed()
        except OSError as error:
            raise cache_write_error(self.cache_dir, error) from error

    def _close_pack(self) -> None:
        if self._pack is not None:
            try:
                info = self._pack.close()
            except OSError:
                pack, self._pack = self._pack, None
                self._finished.clear()
                pack.abandon()
                raise
            # Ctrl-C before this line leaves a pack that can be closed again.
            self._pack_index[info.name] = add_pack(self.manifest, info, self.backend)
            self._pack = None
        for content in self._finished:
            placed = [(self._pack_index[name], first, rows) for name, first, rows in content.segments]
            self.manifest.set_content(content.hash, placed, content.silent, content.sums, None)
        self._finished.clear()

    def commit(self) -> None:
        """Replace the manifest on disk, atomically and durably.

        Raises
        ------
        OSError
            If it cannot be written. The old manifest is then still in place.
        """
        header = build_header(self.row_format, self.manifest.totals(), created=self._created)
        self.manifest.header = json.dumps(header)
        self.manifest.save(self.cache_dir / MANIFEST_NAME)
        self.dirty = False
        self.has_committed = True

    def remove_unnamed(self) -> None:
        """Remove packs that the committed manifest does not name, and temporary files of a writer that was killed.

        Files whose names the cache does not use are left alone.

        Raises
        ------
        OSError
            If one cannot be removed.
        """
        named = set(self.manifest.pack_names())
        unnamed = [path for path in self.packs_dir.iterdir() if is_pack_name(path.name) and path.name not in named]
        partial = [path for path in self.cache_dir.iterdir() if _PARTIAL.fullmatch(path.name)]
        for path in (*unnamed, *partial):
            # Unlinking a symbolic link leaves its target alone.
            if stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFLNK):
                path.unlink()


class _Segment(NamedTuple):
    """Consecutive rows of one content in one pack."""

    pack: str
    first: int
    rows: int


class _Content(NamedTuple):
    """A finished content that the manifest does not list yet."""

    hash: bytes
    segments: list[_Segment]
    silent: int
    sums: Sequence[float]
