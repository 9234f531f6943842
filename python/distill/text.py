"""How names, numbers and lists are worded in messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def printable(name: str) -> str:
    """A file's name with newlines and control characters escaped: a name must not steer a terminal."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), name)


def counted(number: int, noun: str) -> str:
    """A number of things: "1 file", "2 files"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], limit: int) -> str:
    """Names on one line, those beyond `limit` as a number: "a, b and 3 more"."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def reason_lines(entries: Sequence[tuple[str, str]], limit: int = 10) -> str:
    """Paths with their reasons, each on a new, indented line, those beyond `limit` as a number; to end a message."""
    lines = [f"\n  {printable(path)}: {reason}" for path, reason in entries[:limit]]
    if len(entries) > limit:
        lines.append(f"\n  and {len(entries) - limit} more")
    return "".join(lines)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Each field that differs, as "name was A, is B"; nested fields as "table.name"."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name} was {old}, is {new}")
    return found
