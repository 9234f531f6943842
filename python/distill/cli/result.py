"""Results of commands as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from distill.cli.process import say


def say_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object on one line; paths as text."""
    say(json.dumps(values, default=str))


def reason_entries(pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Return a JSON object with path and reason for each pair of them."""
    return [{"path": path, "reason": reason} for path, reason in pairs]
