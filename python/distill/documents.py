"""JSON and TOML files that distill wrote and anything may have changed since: read with limits, checked key by key."""

from __future__ import annotations

import json
import math
import os
import stat
import sys
from collections.abc import Callable, Sequence
from errno import EFBIG, EINVAL
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from distill.errors import ConfigError, RunError
from distill.faults import Table, table_faults

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

# Far above the run.json of a million listed files; a file that is larger is something else.
_LARGEST = 512_000_000
# A configuration takes two kilobytes. The time that tomllib takes grows with the square of what a key holds.
_LARGEST_TOML = 100_000
_FAULTS_SHOWN = 10


def read_document(path: Path, parse: Callable[[bytes], T], remedy: str) -> T:
    """Read and parse a file.

    Parameters
    ----------
    path : Path
        The file.
    parse : callable
        Takes the content, and raises ConfigError for its faults.
    remedy : str
        The tip of the error.

    Raises
    ------
    RunError
        If it cannot be read, or has faults. The message names the file, and the faulty keys.
    """
    try:
        return parse(read_file(path, _LARGEST))
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing", remedy) from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}", remedy) from error
    except ConfigError as error:
        raise RunError(f"{path}: damaged: {shown_faults(error)}", remedy) from error


def shown_faults(error: ConfigError) -> str:
    """Return the first faults of an error on one line, and how many more there are."""
    more = len(error.faults) - _FAULTS_SHOWN
    return "; ".join(error.faults[:_FAULTS_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def read_file(path: str | os.PathLike[str], largest: int | None = None) -> bytes:
    """Return the content of a regular file. Opening a FIFO or a device does not block.

    Raises
    ------
    OSError
        If it cannot be read, is not a regular file, or has more than `largest` bytes.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(EINVAL, "not a regular file", os.fspath(path))
        if largest is not None and status.st_size > largest:
            raise OSError(EFBIG, f"{status.st_size} bytes, where at most {largest} are read", os.fspath(path))
        return file.read()


def parse_json(content: bytes, table: Table) -> dict[str, Any]:
    """Return a JSON object that has the keys of `table`.

    Raises
    ------
    ConfigError
        As `load_json`, or if it has other keys or values than `table` says.
    """
    return check_table(load_json(content), table)


def check_table(values: Any, table: Table) -> dict[str, Any]:
    """Return `values`, or raise ConfigError if they are no object with the keys of `table`."""
    faults = table_faults(values, table) if isinstance(values, dict) else ["it holds no object"]
    if faults:
        raise ConfigError(faults)
    table_values: dict[str, Any] = values
    return table_values


def load_json(content: bytes) -> Any:
    """Return the value of a JSON text.

    Raises
    ------
    ConfigError
        If it is no JSON in UTF-8, nested too deeply, repeats a key, or holds a number that is not finite or an
        integer beyond 64 bits.
    """

    def load(text: str) -> Any:
        return json.loads(
            text, object_pairs_hook=_unique, parse_int=_integer, parse_float=_finite, parse_constant=_not_finite
        )

    return _parsed(content, load)


def parse_toml(content: bytes) -> dict[str, Any]:
    """Return the values of a TOML file.

    Raises
    ------
    ConfigError
        If it is no TOML in UTF-8, nested too deeply, or too large to be a configuration.
    """
    if len(content) > _LARGEST_TOML:
        raise ConfigError([f"{len(content)} bytes, where at most {_LARGEST_TOML} are read"])
    return _parsed(content, tomllib.loads)


def _parsed(content: bytes, load: Callable[[str], T]) -> T:
    try:
        return load(content.decode("utf-8"))
    except RecursionError as error:
        raise ConfigError(["nested too deeply"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"byte {error.start} is not UTF-8"]) from error
    except ValueError as error:
        raise ConfigError([str(error) if content else "empty file"]) from error


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for number, key in enumerate(keys) if key in keys[:number])
        raise ValueError(f"key {twice!r:.80} occurs twice")
    return values


def _integer(digits: str) -> int:
    # The length first: Python refuses to convert thousands of digits, or takes long.
    value = int(digits) if len(digits) <= 20 else 1 << 64
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{digits:.20} exceeds 64 bits")
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        _not_finite(digits)
    return value


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text:.40} is not a finite number")
