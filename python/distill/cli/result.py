"""Results of commands as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from distill.cli.process import say
from distill.types import Reason


def say_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object on one line; paths as text."""
    say(json.dumps(values, default=str))


def reason_entries(pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Return a JSON object with path, reason and the reason's code for each pair of them."""
    return [{"path": path, "reason": reason, "code": Reason.of(reason).code} for path, reason in pairs]
