"""Wording of names, numbers and lists in messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def printable(name: str) -> str:
    """Return a file name with control characters escaped, so that printing it cannot control the terminal."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), name)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 file", "2 files"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], limit: int) -> str:
    """Return up to `limit` names on one line, and how many more there are: "a, b and 3 more"."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def reason_lines(entries: Sequence[tuple[str, str]], limit: int = 10) -> str:
    """Return paths with their reasons, one per indented line, and how many more there are; the end of a message."""
    lines = [f"\n  {printable(path)}: {printable(reason)}" for path, reason in entries[:limit]]
    if len(entries) > limit:
        lines.append(f"\n  and {len(entries) - limit} more")
    return "".join(lines)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return each field that differs as "name was A, is B"; nested fields as "table.name"."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name} was {old}, is {new}")
    return found
