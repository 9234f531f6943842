"""Parts of a slot: packs with rows that its manifest does not name yet, and small manifests of them, the part files.

Whoever sees the storage can write parts, without a lock; `CacheWriter` adopts them. What a process has finished is
therefore kept even if it never gets to change the manifest.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill import _native
from distill.cache.manifest import PACKS_NAME, PARTS_NAME, build_header, read_manifest
from distill.cache.pack import PackWriter, add_pack
from distill.cache.pack_info import PackInfo
from distill.cache.row_format import RowFormat
from distill.storage import sync_folder

logger = logging.getLogger(__name__)

PART_SUFFIX = ".part.json"
_SHARED_NAME = "shared"
# How long a shared file system may show an old state of a folder.
_SEEN_AFTER_S, _POLL_S = 30, 0.2
_ADOPTED_TOGETHER = 32


@dataclass(frozen=True)
class Part:
    """What was finished since the last part.

    Attributes
    ----------
    manifest : _native.Manifest
        The contents that are finished, the packs with their rows, and the files that they were read from.
    path : Path or None
        The part file; None if it was not saved.
    is_empty : bool
        Whether it lists nothing.
    """

    manifest: _native.Manifest
    path: Path | None = None
    is_empty: bool = False

    def saved(self, slot_dir: Path, row_format: RowFormat) -> Part:
        """Save the part file, durably; return the part with its path.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.manifest.header = json.dumps(build_header(row_format, self.manifest.totals(), created=created))
        folder = slot_dir / PARTS_NAME
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{secrets.token_hex(8)}{PART_SUFFIX}"
        self.manifest.save(path)
        return Part(self.manifest, path)


class PartWriter:
    """Writes the rows of contents into packs, and hands over what is finished. Needs neither lock nor manifest.

    Parameters
    ----------
    packs_dir : Path
        Where the packs are written.
    row_format : RowFormat
        What a row is.

    Attributes
    ----------
    backend : str
        What computes the rows, "reference", "rust" or "fused"; the manifest records it for each pack.
    has_results : bool
        Whether there are contents that `take` would return.
    """

    def __init__(self, packs_dir: Path, row_format: RowFormat) -> None:
        self.packs_dir, self.row_format, self.backend = packs_dir, row_format, "reference"
        self._pack: PackWriter | None = None
        self._closed: dict[str, tuple[PackInfo, str]] = {}
        # Packs that are closed, and in no part that was kept.
        self._written: set[str] = set()
        self._unfinished: dict[bytes, list[_Segment]] = {}
        self._finished: dict[bytes, _Content] = {}
        self._files: dict[bytes, tuple[tuple[int, int, int, int, bool], bytes]] = {}

    @property
    def has_results(self) -> bool:
        """See the class."""
        return bool(self._finished)

    def use_backend(self, backend: str) -> None:
        """Set what computes the rows from here on. A pack holds rows of one backend.

        Raises
        ------
        OSError
            If the pack with rows of another one cannot be closed.
        """
        if backend != self.backend and self._pack is not None and self._pack.rows:
            self.close_pack()
        self.backend = backend

    def add_rows(self, content_hash: bytes, rows: np.ndarray) -> bool:
        """Append rows [k, 2, M, T] of a content that is not finished yet. Returns whether a pack was filled by them.

        Raises
        ------
        OSError
            If they cannot be written.
        """
        segments = self._unfinished.setdefault(content_hash, [])
        has_filled = False
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
                self.close_pack()
                has_filled = True
        return has_filled

    def finish_content(
        self,
        content_hash: bytes,
        silent: int,
        sums: Sequence[float],
        partial: str | None = None,
        silent_runs: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Mark a content as complete; see `CacheWriter.finish_content`."""
        segments = self._unfinished.pop(content_hash, [])
        self._finished[content_hash] = _Content(segments, silent, sums, None, partial, silent_runs)

    def skip_content(self, content_hash: bytes, reason: str, silent: int = 0) -> None:
        """Record that a content never gives rows, and why."""
        self._unfinished.pop(content_hash, None)
        self._finished[content_hash] = _Content([], silent, [0.0] * 5, skipped=reason)

    def drop_content(self, content_hash: bytes) -> None:
        """Forget the rows of a content whose file could not be read to the end this time."""
        self._unfinished.pop(content_hash, None)

    def set_hash(self, name: bytes, stamps: tuple[int, int, int, int, bool], content_hash: bytes) -> None:
        """Record the hash of a file, by its path relative to the dataset and its stamps when it was scanned."""
        self._files[name] = stamps, content_hash

    def close_pack(self) -> None:
        """Close the pack that is being written, if there is one.

        Raises
        ------
        OSError
            If it cannot be written. Its rows, and the contents with rows in it, are then forgotten.
        """
        if self._pack is None:
            return
        try:
            info = self._pack.close()
        except OSError:
            pack, self._pack = self._pack, None
            lost = pack.path.name
            self._finished = {key: content for key, content in self._finished.items() if not content.has_rows_in(lost)}
            self._unfinished.clear()
            pack.abandon()
            raise
        # Ctrl-C before this line leaves a pack that can be closed again.
        self._closed[info.name] = info, self.backend
        self._written.add(info.name)
        self._pack = None

    def take(self) -> Part:
        """Return what is finished, and in packs that are closed. The rest stays for a later part."""
        open_pack = None if self._pack is None else self._pack.path.name
        finished, files = self._finished, self._files
        self._finished = {
            content_hash: content for content_hash, content in finished.items() if content.has_rows_in(open_pack)
        }
        self._files = {}
        ready = {name: content for name, content in finished.items() if name not in self._finished}
        needed = {segment.pack for content in ready.values() for segment in content.segments}
        manifest = _native.Manifest()
        index_of = {name: add_pack(manifest, *closed) for name, closed in self._closed.items() if name in needed}
        for content_hash, content in ready.items():
            placed = [(index_of[name], first, rows) for name, first, rows in content.segments]
            manifest.set_content(
                content_hash,
                placed,
                content.silent,
                content.sums,
                content.skipped,
                content.partial,
                content.silent_runs,
            )
        for name, (stamps, content_hash) in sorted(files.items()):
            manifest.add_file(name, stamps, content_hash)
        # Later parts need the packs in which contents begin that are still to come.
        rest = [*self._unfinished.values(), *(content.segments for content in self._finished.values())]
        begun = {segment.pack for segments in rest for segment in segments}
        self._closed = {name: closed for name, closed in self._closed.items() if name in begun}
        return Part(manifest, is_empty=not ready and not files)

    def keep(self, part: Part) -> None:
        """Note that a part is saved, so that `abandon` leaves its packs."""
        self._written -= set(part.manifest.pack_names())

    def abandon(self) -> None:
        """Remove the packs that are in no part that was kept, also the one that is being written."""
        if self._pack is not None:
            self._pack.abandon()
            self._pack = None
        for name in self._written:
            with suppress(OSError):
                (self.packs_dir / name).unlink()
        self._written.clear()


class _Segment(NamedTuple):
    """Consecutive rows of one content in one pack."""

    pack: str
    first: int
    rows: int


class _Content(NamedTuple):
    """A finished content."""

    segments: list[_Segment]
    silent: int
    sums: Sequence[float]
    skipped: str | None = None
    partial: str | None = None
    silent_runs: Sequence[tuple[int, int]] = ()

    def has_rows_in(self, pack: str | None) -> bool:
        """Whether some of its rows are in a pack."""
        return any(segment.pack == pack for segment in self.segments)


def share(slot_dir: Path) -> Path:
    """Mark a slot as one that several machines use, and return the folder in which they write parts.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    folder = slot_dir / PARTS_NAME
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _SHARED_NAME).touch()
    return folder


def is_shared(slot_dir: Path) -> bool:
    """Whether several machines use a slot: readers elsewhere may have opened its packs."""
    return (slot_dir / PARTS_NAME / _SHARED_NAME).exists()


def load_parts(
    slot_dir: Path, row_format: RowFormat, paths: Sequence[Path] | None = None, *, removes: bool = False
) -> Iterator[Part]:
    """Yield the parts of a slot, except those that are damaged or of another configuration, of which it warns.

    Parameters
    ----------
    slot_dir : Path
        The slot.
    row_format : RowFormat
        What its rows are.
    paths : sequence of Path, optional
        Part files. Default: all of the slot.
    removes : bool
        Remove part files that are damaged; for who holds the lock. Default: False.

    Raises
    ------
    CacheError
        If a part file cannot be read, or a later version of distill wrote it.
    OSError
        If the folder cannot be read.
    """
    for path in part_files(slot_dir) if paths is None else paths:
        try:
            manifest = read_manifest(path)
        except _native.ManifestError as error:
            logger.warning("%s: %s; what it lists is computed again", path, error)
            if removes:
                with suppress(OSError):
                    path.unlink()
            continue
        if manifest is None:  # adopted by another process meanwhile
            continue
        if json.loads(manifest.header)["config_fingerprint"] != row_format.fingerprint:
            logger.warning("%s: of another configuration than this slot; left alone", path)
            continue
        yield Part(manifest, path)


def in_groups(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Yield parts in groups that are adopted together: see `listed_by`."""
    remaining = iter(parts)
    while group := list(islice(remaining, _ADOPTED_TOGETHER)):
        yield group


def listed_by(parts: Sequence[Part]) -> _native.Manifest:
    """Return one manifest of all that some parts list: that of the first, to which the others are added.

    To adopt a manifest copies the table of files, which may have a million, so parts are not adopted one by one.
    """
    first, *others = parts
    for part in others:
        first.manifest.adopt(part.manifest)
    return first.manifest


def is_part_name(name: str) -> bool:
    """Whether a file in the folder of parts is a part file, or the mark of a slot that several machines use."""
    return name.endswith(PART_SUFFIX) or name == _SHARED_NAME


def part_files(slot_dir: Path) -> list[Path]:
    """Return the part files of a slot."""
    try:
        return sorted(path for path in (slot_dir / PARTS_NAME).iterdir() if path.name.endswith(PART_SUFFIX))
    except FileNotFoundError:
        return []


def wait_for(slot_dir: Path, names: Sequence[str]) -> None:
    """Wait until packs or part files that another machine has written can be seen here; 30 s at most."""
    end = time.monotonic() + _SEEN_AFTER_S
    while time.monotonic() < end:
        # Listing the folders makes a client of a shared file system ask the server again.
        folders = (slot_dir / PARTS_NAME, slot_dir / PACKS_NAME)
        if {path.name for folder in folders for path in folder.iterdir()}.issuperset(names):
            return
        time.sleep(_POLL_S)


def packs_of(path: Path) -> list[str]:
    """Return the names of the packs that a part file lists; none if it cannot be read."""
    try:
        return _native.Manifest.load(path).pack_names()
    except (OSError, _native.ManifestError, _native.NewerFormatError):
        return []


def place_packs(part: Part, slot_dir: Path, packs_dir: Path) -> bool:
    """Move the packs of a part into the folder of packs. Forget those that are not there, or cut, with a warning.

    Returns
    -------
    bool
        Whether all of them are there.

    Raises
    ------
    OSError
        If one cannot be moved.
    """
    moved, is_whole = False, True
    for entry in part.manifest.packs():
        info = PackInfo.of(entry)
        path, written = packs_dir / info.name, slot_dir / PARTS_NAME / info.name
        if written.exists() and not path.exists():
            status = written.stat()
            written.rename(path)
            moved = True
            if (status.st_size, status.st_mtime_ns) == (info.bytes, info.mtime_ns):
                # Renaming changes the change time.
                part.manifest.set_pack_stamps(info.name, info.mtime_ns, path.stat().st_ctime_ns)
        if not path.exists() or path.stat().st_size != info.bytes:
            where = "missing" if not path.exists() else "cut short"
            logger.warning("%s: %s; its rows are computed again", path, where)
            part.manifest.drop_pack(info.name)
            is_whole = False
    if moved:
        sync_folder(packs_dir)
    return is_whole
