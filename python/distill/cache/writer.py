"""The one writer of a cache: holds its lock, rolls packs, commits manifests."""

from __future__ import annotations

import json
import logging
import re
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from distill import _native
from distill.cache.damage import find_damage, has_stamps
from distill.cache.lock import CacheLock
from distill.cache.manifest import MANIFEST_NAME, PACKS_NAME, build_header, fingerprint, open_manifest, row_shape
from distill.cache.pack import PackInfo, PackWriter, add_pack, is_pack_name
from distill.config import ComplexSpectrogramConfig
from distill.errors import CacheError, StorageError
from distill.storage import is_full
from distill.types import ProgressCallback

logger = logging.getLogger(__name__)

_READ_ONLY_TIP = "choose a place for the cache with --cache-dir DIR"
_FREE_MARGIN_BYTES = 16 << 20
# What a commit that was killed leaves behind: .NAME.PID-N.tmp.
_PARTIAL = re.compile(rf"\.{re.escape(MANIFEST_NAME)}\.\d+-\d+\.tmp")


def storage_error(path: Path, error: OSError) -> StorageError:
    """`error` from writing at `path`, as one that says what to do."""
    if is_full(error):
        return StorageError(f"{path}: the disk is full; what was finished is kept", f"make room, or {_READ_ONLY_TIP}")
    return StorageError(f"{error.filename or path}: cannot be written: {error.strerror or error}", _READ_ONLY_TIP)


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
        As it was on disk, or empty.
    row_shape, dtype
        Of the rows; `begin` sets them.
    backend : str
        What computes them, "reference" or "fused"; the manifest records it a pack.

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
        self.dtype = "float32"
        self.backend = "reference"
        self.dirty = False
        self.has_committed = False
        self._identity: Mapping[str, Any] = {}
        self._config: Mapping[str, Any] = {}
        self._expansion_is_chosen = False
        self._lock = CacheLock(cache_dir, on_wait)
        self._pack: PackWriter | None = None
        self._pack_index: dict[str, int] = {}
        self._open: dict[bytes, list[_Segment]] = {}
        self._finished: list[tuple[bytes, list[_Segment], int, Sequence[float]]] = []

    def __enter__(self) -> CacheWriter:
        with ExitStack() as undo:
            try:
                undo.enter_context(self._lock)
                self._make_packs_dir()
            except OSError as error:
                raise storage_error(self.cache_dir, error) from error
            self.manifest = open_manifest(self.cache_dir) or _native.Manifest()
            undo.pop_all()
        return self

    def _make_packs_dir(self) -> None:
        if self.packs_dir.is_symlink():
            raise StorageError(
                f"{self.packs_dir}: a symbolic link: packs are not written to, nor removed from, another folder",
                f"remove the link, and {_READ_ONLY_TIP}",
            )
        self.packs_dir.mkdir(exist_ok=True)

    def begin(self, identity: Mapping[str, Any], config: Mapping[str, Any], *, expansion_is_chosen: bool) -> None:
        """Say what the rows are; from here on, leaving commits.

        Parameters
        ----------
        identity : mapping
            Everything that decides a row beside the content.
        config : mapping
            The feature's configuration.
        expansion_is_chosen : bool
            Whether the number of variants was chosen for the user, and not by him.
        """
        self._identity, self._config, self._expansion_is_chosen = identity, config, expansion_is_chosen
        self.row_shape = row_shape(ComplexSpectrogramConfig(**config), identity["chunk_samples"])
        self.dtype = identity["dtype"]
        header = json.loads(self.manifest.header)
        is_same = header and header["config_fingerprint"] == fingerprint(identity)
        self._created = header["created"] if is_same else datetime.now(timezone.utc).isoformat(timespec="seconds")

    def resume(self) -> None:
        """Go on with the rows that the manifest has.

        Raises
        ------
        CacheError
            If it has none.
        """
        header = json.loads(self.manifest.header)
        if not header:
            raise CacheError(f"{self.cache_dir}: no valid cache here", "run: distill preprocess DATASET")
        self.begin(
            header["identity"],
            header["complex_spectrogram_config"],
            expansion_is_chosen=header["expansion_is_chosen"],
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            # Without an identity nothing was begun.
            if error is not None and self._identity:
                self._rescue()
        finally:
            self._lock.__exit__(None, None, None)

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
                self.commit()
            self.remove_unnamed()
        except OSError as error:
            raise storage_error(self.cache_dir, error) from error

    def drop_damaged(self, *, every: bool = False, progress: ProgressCallback | None = None) -> None:
        """Forget rows that are lost or damaged, so that they are computed again.

        Parameters
        ----------
        every : bool
            Check every row. Default: only those in packs whose stamps are not those recorded.
        progress : callable, optional
            Called with ("check", bytes checked, bytes to check).
        """
        header = json.loads(self.manifest.header)
        packs = [PackInfo.of(entry) for entry in self.manifest.packs()]
        suspects = [info for info in packs if every or not has_stamps(self.packs_dir / info.name, info)]
        if suspects and not every:
            logger.info("%d packs are not as they were left: checking their rows", len(suspects))
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
                    self.commit()
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
                pack, self._pack = self._pack, None
                self._finished.clear()
                pack.abandon()
                raise
            # Ctrl-C until here leaves a pack that can be closed again.
            self._pack_index[info.name] = add_pack(self.manifest, info, self.backend)
            self._pack = None
        for content_hash, segments, silent, sums in self._finished:
            placed = [(self._pack_index[name], first, rows) for name, first, rows in _merged(segments)]
            self.manifest.set_content(content_hash, placed, silent, sums, None)
        self._finished.clear()

    def commit(self) -> None:
        """Replace the manifest on disk, durably and at once.

        Raises
        ------
        OSError
            If that cannot be written; the old one is then still in place.
        """
        header = build_header(
            self._identity,
            self._config,
            self.manifest.totals(),
            created=self._created,
            expansion_is_chosen=self._expansion_is_chosen,
        )
        self.manifest.header = json.dumps(header)
        self.manifest.save(self.cache_dir / MANIFEST_NAME)
        self.dirty = False
        self.has_committed = True

    def remove_unnamed(self) -> None:
        """Remove packs that the manifest on disk does not name, and what a writer that was killed left behind.

        Nothing else that somebody keeps in the cache is touched.

        Raises
        ------
        OSError
            If one cannot be removed.
        """
        named = set(self.manifest.pack_names())
        unnamed = [path for path in self.packs_dir.iterdir() if is_pack_name(path.name) and path.name not in named]
        partial = [path for path in self.cache_dir.iterdir() if _PARTIAL.fullmatch(path.name)]
        for path in (*unnamed, *partial):
            # A link is only a name; what it leads to stays.
            if stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFLNK):
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
