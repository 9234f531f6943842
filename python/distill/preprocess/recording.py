"""What an extraction found, and where its rows go: to the writer of a cache, or to that of a part of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from distill.preprocess.events import Cached, Event, Failed, Finished, Rows


class Sink(Protocol):
    """Takes the rows of contents; see `CacheWriter`."""

    def set_hash(self, name: bytes, stamps: tuple[int, int, int, int, bool], content_hash: bytes) -> None:
        """Record the hash of a file."""

    def add_rows(self, content_hash: bytes, rows: np.ndarray) -> object:
        """Append rows of a content."""

    def finish_content(
        self,
        content_hash: bytes,
        silent: int,
        sums: Sequence[float],
        partial: str | None = None,
        silent_runs: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Mark a content as complete."""

    def skip_content(self, content_hash: bytes, reason: str, silent: int = 0) -> None:
        """Record that a content gives no rows."""

    def drop_content(self, content_hash: bytes) -> None:
        """Forget the rows of a content."""


@dataclass
class Extracted:
    """What was decoded. Plain values, which other processes return."""

    decoded: int = 0
    """Number of sources whose rows were computed."""
    ended: int = 0
    """Number of sources that need no more work, for whatever reason."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Path and reason of sources that could not be read this time. Those that never can be are recorded in the
    manifest instead."""
    with_offset: list[str] = field(default_factory=list)
    """Paths of sources with rows whose constant offset was removed."""
    channels: Counter[int] = field(default_factory=Counter)
    """Number of sources with rows by their number of channels."""
    path: Path | None = None
    """The part file that lists the rows; None if they went to the writer of the cache, or there are none."""

    def add(self, other: Extracted) -> None:
        """Add what another process decoded."""
        self.decoded += other.decoded
        self.ended += other.ended
        self.failed += other.failed
        self.with_offset += other.with_offset
        self.channels += other.channels


class Recorder:
    """Hands the events of an extraction to a sink.

    Parameters
    ----------
    sink : Sink
        Where rows go.
    root : Path
        The folder of the dataset.

    Attributes
    ----------
    found : Extracted
        What was decoded so far.
    """

    def __init__(self, sink: Sink, root: Path) -> None:
        self.found = Extracted()
        self._sink, self._root = sink, root
        # The first source of each content that has not ended. If a file was replaced by a copy meanwhile, or two files
        # have the same content, the rows of the first count.
        self._first: dict[bytes, str] = {}
        # The starts of the hashes of contents that have ended: of a million, complete hashes would take 100 MB.
        self._ended: set[int] = set()

    def record(self, event: Event) -> None:
        """Record the next event."""
        found, sink = self.found, self._sink
        # Empty if the file could not be read.
        content_hash = event.source.content_hash or b""
        path = os.path.relpath(event.source.path, self._root)
        if isinstance(event, Cached | Finished) or (isinstance(event, Failed) and event.permanent):
            sink.set_hash(event.source.name, event.source.scanned, content_hash)
        is_first = self._is_first(content_hash, path) if content_hash else True
        if isinstance(event, Cached) or (not is_first and not isinstance(event, Failed)):
            found.decoded += not isinstance(event, Rows)
        elif isinstance(event, Rows):
            sink.add_rows(content_hash, event.rows)
        elif isinstance(event, Finished):
            self._finish(event, path)
        elif event.permanent:
            sink.skip_content(content_hash, event.reason)
        else:
            if is_first:
                sink.drop_content(content_hash)
            found.failed.append((path, event.reason))
        if not isinstance(event, Rows):
            found.ended += 1
            if is_first and content_hash and not (isinstance(event, Failed) and not event.permanent):
                del self._first[content_hash]
                self._ended.add(_start(content_hash))

    def _is_first(self, content_hash: bytes, path: str) -> bool:
        return _start(content_hash) not in self._ended and self._first.setdefault(content_hash, path) == path

    def _finish(self, event: Finished, path: str) -> None:
        content_hash = event.source.content_hash
        assert content_hash is not None
        silent = sum(count for _, count in event.silent_runs)
        self.found.decoded += 1
        if not event.sums[0]:
            self._sink.skip_content(content_hash, event.silence, silent)
            return
        self.found.channels[event.channels] += 1
        self._sink.finish_content(content_hash, silent, event.sums, event.partial, event.silent_runs)
        self.found.with_offset += [path] if event.levels.offset else []


def _start(content_hash: bytes) -> int:
    return int.from_bytes(content_hash[:8], "little")
