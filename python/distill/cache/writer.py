"""The one writer of a cache: holds its lock, rolls packs, commits manifests."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from distill import _native
from distill.cache.manifest import MANIFEST_NAME, PACKS_NAME, build_header, open_manifest
from distill.cache.pack import PACK_SUFFIX, PackWriter
from distill.errors import StorageError

logger = logging.getLogger(__name__)

_LOCK_NAME = "lock"
_READ_ONLY_TIP = "choose a place for the cache with --cache-dir DIR"
_FREE_MARGIN_BYTES = 16 << 20


def storage_error(path: Path, error: OSError) -> StorageError:
    """`error` from writing at `path`, as one that says what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(f"{path}: the disk is full; what was finished is kept", f"make room, or {_READ_ONLY_TIP}")
    return StorageError(f"{path}: cannot be written: {error.strerror or error}", _READ_ONLY_TIP)


def check_space(cache_dir: Path, needed_bytes: int) -> None:
    """Raise StorageError if the disk that holds `cache_dir` has less than `needed_bytes` left."""
    existing = next(folder for folder in (cache_dir, *cache_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes + _FREE_MARGIN_BYTES:
        raise StorageError(
            f"{cache_dir}: the features need about {needed_bytes / 1e6:.0f} MB, the disk has {free / 1e6:.0f} MB left",
            f"make room, or {_READ_ONLY_TIP}",
        )


class CacheWriter:
    """Write access to a cache, for one process at a time.

    Use as a context manager: entering waits for the lock, leaving commits what is finished, also after an error or
    Ctrl-C, and removes files that no manifest names.

    Parameters
    ----------
    cache_dir : Path
        The cache; made if missing.
    on_wait : callable, optional
        Called once if another process holds the lock.

    Attributes
    ----------
    manifest : _native.Manifest
        As it was on disk, or empty; set `row_shape`, `identity`, `config`, `dtype` before adding rows.

    Raises
    ------
    StorageError
        If the place cannot be written.
    """

    def __init__(self, cache_dir: Path, on_wait: Callable[[], None] | None = None) -> None:
        self.cache_dir = cache_dir
        self.packs_dir = cache_dir / PACKS_NAME
        self.manifest = _native.Manifest()
        self.row_shape: tuple[int, ...] = ()
        self.identity: Mapping[str, Any] = {}
        self.config: Mapping[str, Any] = {}
        self.dtype = "float32"
        self.backend = "cpu"
        self.expansion_is_chosen = False
        self.dirty = False
        self._on_wait = on_wait
        self._pack: PackWriter | None = None
        self._pack_index: dict[str, int] = {}
        self._open: dict[bytes, list[_Segment]] = {}
        self._finished: list[tuple[bytes, list[_Segment], int, Sequence[float]]] = []
        self._created = datetime.now(timezone.utc).isoformat(timespec="seconds")

    def __enter__(self) -> CacheWriter:
        try:
            self.packs_dir.mkdir(parents=True, exist_ok=True)
            # Never removed: a lock on a file that was unlinked guards nothing.
            self._lock = os.open(self.cache_dir / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._acquire()
        except OSError as error:
            raise storage_error(self.cache_dir, error) from error
        self.manifest = open_manifest(self.cache_dir) or _native.Manifest()
        return self

    def _acquire(self) -> None:
        told = False
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told and self._on_wait:
                    self._on_wait()
                told = True
                # Polled, so that Ctrl-C is answered while waiting.
                time.sleep(0.1)
            else:
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            # Without an identity nothing was begun.
            if error is not None and self.identity:
                self._rescue()
        finally:
            os.close(self._lock)

    def _rescue(self) -> None:
        """Keep what is finished, after an error or Ctrl-C."""
        try:
            self.finish()
        except StorageError as error:
            # The error on its way out says more than this one, which most often has the same cause.
            logger.warning("what was finished since the last pack is lost: %s", error)

    def finish(self) -> None:
        """Make everything that is finished durable, commit it, and remove packs that nothing names.

        Raises
        ------
        StorageError
            If that cannot be written.
        """
        try:
            self._close_pack()
            if self.dirty:
                self._commit()
            self._remove_unnamed()
        except OSError as error:
            raise storage_error(self.cache_dir, error) from error

    def drop_damaged(self) -> None:
        """Forget what is in packs that are missing or have another size, so that it is computed again."""
        for pack in self.manifest.packs():
            path = self.packs_dir / pack["name"]
            if not path.exists() or path.stat().st_size != pack["bytes"]:
                logger.warning("%s: missing or cut short: its rows are computed again", path)
                self.manifest.drop_pack(pack["name"])
                self.dirty = True

    def add_rows(self, content_hash: bytes, rows: np.ndarray) -> None:
        """Append rows [k, 2, n_mels, T] of a content that is not finished yet.

        Raises
        ------
        StorageError
            If they cannot be written.
        """
        segments = self._open.setdefault(content_hash, [])
        try:
            while len(rows):
                pack = self._pack = self._pack or PackWriter(self.packs_dir, self.row_shape, self.dtype)
                taken, rows = rows[: pack.room], rows[pack.room :]
                segments.append(_Segment(pack.path.name, pack.append(taken), len(taken)))
                if pack.room == 0:
                    self._close_pack()
                    self._commit()
        except OSError as error:
            raise storage_error(self.cache_dir, error) from error

    def finish_content(self, content_hash: bytes, silent: int, sums: Sequence[float]) -> None:
        """Say that all rows of a content have been added; it counts once the packs that hold them are durable."""
        self._finished.append((content_hash, self._open.pop(content_hash, []), silent, sums))
        self.dirty = True

    def skip_content(self, content_hash: bytes, reason: str, silent: int = 0) -> None:
        """Say that these bytes give no rows, and never will."""
        self._open.pop(content_hash, None)
        self.manifest.set_content(content_hash, [], silent, [0.0] * 5, reason)
        self.dirty = True

    def drop_content(self, content_hash: bytes) -> None:
        """Forget the rows of a content that turned out to be unusable for now."""
        self._open.pop(content_hash, None)

    def _close_pack(self) -> None:
        if self._pack is not None:
            try:
                info = self._pack.close()
            except OSError:
                self._pack.abandon()
                self._pack = None
                self._finished.clear()
                raise
            # Ctrl-C until here leaves a pack that can be closed again.
            self._pack_index[info.name] = self.manifest.add_pack(*info, self.backend)
            self._pack = None
        for content_hash, segments, silent, sums in self._finished:
            placed = [(self._pack_index[name], first, rows) for name, first, rows in _merged(segments)]
            self.manifest.set_content(content_hash, placed, silent, sums, None)
        self._finished.clear()

    def _commit(self) -> None:
        header = build_header(
            self.identity, self.config, self.manifest.totals(), created=self._created, dtype=self.dtype
        )
        header["expansion_is_chosen"] = self.expansion_is_chosen
        self.manifest.header = json.dumps(header)
        self.manifest.save(self.cache_dir / MANIFEST_NAME)
        self.dirty = False

    def _remove_unnamed(self) -> None:
        named = set(self.manifest.pack_names())
        for path in self.packs_dir.iterdir():
            if path.suffix == PACK_SUFFIX and path.name not in named:
                path.unlink()
        # What a writer that was killed left behind.
        for path in self.cache_dir.glob(f".{MANIFEST_NAME}.*.tmp"):
            path.unlink()


class _Segment(NamedTuple):
    pack: str
    first: int
    rows: int


def _merged(segments: list[_Segment]) -> list[_Segment]:
    """Segments that follow each other in one pack, as one."""
    merged: list[_Segment] = []
    for segment in segments:
        last = merged[-1] if merged else None
        if last and last.pack == segment.pack and last.first + last.rows == segment.first:
            merged[-1] = _Segment(last.pack, last.first, last.rows + segment.rows)
        else:
            merged.append(segment)
    return merged
