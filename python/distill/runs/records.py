"""What run.json and metrics.jsonl hold. Imports no torch."""

from __future__ import annotations

import os
from typing import Any

from distill.faults import Key, Rule, Table, at_least, between


def _is_path(value: Any) -> bool:
    """Whether the system can take a value as a path."""
    try:
        return isinstance(value, str) and value != "" and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


_PATH = Rule(_is_path, "a path")
_PATHS = Rule(lambda values: all(map(_is_path, values)), "a list of paths")

RUN = Table(
    {
        "dataset": Key(str, _PATH),
        "cache_dir": Key(str | None, _PATH),
        "files": Key(list | None, _PATHS),
        "follow_links": Key(bool),
    }
)
"""run.json: `Dataset.record`."""

# Of float32; what draws them takes no larger ones.
_FIGURE = between(-1e38, 1e38)

METRICS = Table(
    {
        "epoch": Key(int, at_least(1)),
        "train_loss": Key(float, _FIGURE),
        "val_loss": Key(float, _FIGURE),
        "val_magnitude_r2": Key(float | None, _FIGURE),
        "val_if_r2": Key(float | None, _FIGURE),
        "val_chunks": Key(int, at_least(1), is_required=False),
    },
    others=Key(float | None, _FIGURE),
)
"""A line of metrics.jsonl: figures, None where they are undefined."""
