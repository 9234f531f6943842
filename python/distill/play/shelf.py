"""The shelf of a run: sounds that were kept, as the settings that make them again, in RUN/shelf.json."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from distill.documents import check_table, parse_json, shown_faults
from distill.errors import ConfigError, NotFoundError, RunError
from distill.faults import Key, Rule, Table, shown
from distill.play.inside import read_inside
from distill.storage import NO_LOCKS, storage_error, write_atomically

SHELF_NAME = "shelf.json"

_VERSION = 1
_MOST_SOUNDS = 10_000
_LARGEST = 16_000_000
_LONGEST_NAME = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NAME = Rule(
    lambda name: 0 < len(name) <= _LONGEST_NAME and not _CONTROL.search(name),
    f"1 to {_LONGEST_NAME} characters on one line",
)
_DOCUMENT = Table({"version": Key(int, Rule(lambda value: value == _VERSION, str(_VERSION))), "sounds": Key(list)})
_ENTRY = Table(
    {
        "id": Key(str, Rule(lambda value: re.fullmatch("[0-9a-f]{8}", value) is not None, "8 hexadecimal digits")),
        "name": Key(str, _NAME),
        "kept": Key(str),
        "settings": Key(dict),
        "command": Key(str),
    },
    others=None,
)

# The lock of the folder keeps other processes out; where there is none, this keeps at least our own threads in order.
_writing = threading.Lock()


class Shelf:
    """The sounds that were kept of a run.

    A change reads the file, and replaces it atomically, while the folder is locked, so that several pages and processes
    may keep sounds at once. A file that is damaged is an error, and stays as it is.

    Parameters
    ----------
    run_dir : Path
        The run folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self.path = run_dir / SHELF_NAME

    def sounds(self) -> list[dict[str, Any]]:
        """Return the entries, each with id, name, kept (ISO, UTC), settings and command, the oldest first.

        Raises
        ------
        RunError
            If the file is damaged.
        """
        return self._read()

    def add(self, name: str, settings: dict[str, Any], command: str) -> dict[str, Any]:
        """Keep a sound; return its entry.

        Parameters
        ----------
        name : str
            Up to 200 characters, none of them a control character.
        settings : dict
            What makes the sound, as plain JSON values.
        command : str
            The command that makes it.

        Raises
        ------
        ConfigError
            If the name is invalid, or the shelf is full.
        RunError
            If the file is damaged.
        StorageError
            If it cannot be written.
        """
        kept = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self._changing() as entries:
            taken = {entry["id"] for entry in entries}
            while (new := secrets.token_hex(4)) in taken:
                pass
            entry = {"id": new, "name": name, "kept": kept, "settings": settings, "command": command}
            check_table(entry, _ENTRY)
            entries.append(entry)
        return entry

    def rename(self, id: str, name: str) -> dict[str, Any]:
        """Give a sound another name; return its entry.

        Raises
        ------
        NotFoundError
            If there is no sound with this id.
        ConfigError, RunError, StorageError
            As `add`.
        """
        with self._changing() as entries:
            entry = self._find(entries, id)
            check_table(entry | {"name": name}, _ENTRY)
            entry["name"] = name
        return entry

    def remove(self, id: str) -> None:
        """Remove a sound.

        Raises
        ------
        NotFoundError
            If there is no sound with this id.
        RunError, StorageError
            As `add`.
        """
        with self._changing() as entries:
            entries.remove(self._find(entries, id))

    def _find(self, entries: list[dict[str, Any]], id: str) -> dict[str, Any]:
        for entry in entries:
            if entry["id"] == id:
                return entry
        raise NotFoundError(f"{shown(id)}: no sound with this id in {self.path}", "it may have been removed; reload")

    @contextmanager
    def _changing(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the entries, and write them back if the block ends without an error."""
        with _writing, self._locked():
            entries = self._read()
            yield entries
            try:
                content = json.dumps({"version": _VERSION, "sounds": entries}, indent=1, allow_nan=False).encode()
            except (TypeError, ValueError) as error:
                raise ConfigError([f"settings that are no JSON: {error}"]) from error
            if len(entries) > _MOST_SOUNDS or len(content) > _LARGEST:
                full = f"{self.path}: full: at most {_MOST_SOUNDS} sounds and {_LARGEST // 10**6} MB"
                raise ConfigError([full], "remove sounds from the shelf")
            try:
                write_atomically(self.path, content)
            except OSError as error:
                raise self._storage_error(error) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the run folder's descriptor. It is another lock than that of training, which may go on."""
        try:
            descriptor = os.open(self._run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._storage_error(error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise self._storage_error(error) from error
            yield
        finally:
            os.close(descriptor)

    def _storage_error(self, error: OSError) -> Exception:
        return storage_error(self.path, error, "make the run folder writable, or play a copy of the run")

    def _read(self) -> list[dict[str, Any]]:
        remedy = "correct the file, or move it away to begin with an empty shelf"
        if not os.path.lexists(self.path):
            return []
        try:
            return _parse(read_inside(self._run_dir, SHELF_NAME, largest=_LARGEST))
        except NotFoundError as error:
            raise RunError(str(error), remedy) from error
        except ConfigError as error:
            raise RunError(f"{self.path}: damaged: {shown_faults(error)}", remedy) from error


def _parse(content: bytes) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = parse_json(content, _DOCUMENT)["sounds"]
    faults = []
    for number, entry in enumerate(entries, 1):
        try:
            check_table(entry, _ENTRY)
        except ConfigError as error:
            faults += [f"sound {number}: {fault}" for fault in error.faults]
    if not faults and len({entry["id"] for entry in entries}) < len(entries):
        faults.append("an id occurs twice")
    if faults:
        raise ConfigError(faults)
    return entries
