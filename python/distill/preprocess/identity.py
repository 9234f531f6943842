"""What rows are for a configuration, and which slot has them. Imports no numpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.cache.slots import slot_formats
from distill.config import TrainingConfig


def row_identity(config: TrainingConfig, expansion: int, versions: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that decides a row besides the file's content; `versions` are those of feature and decoder."""
    return {**config.identity(expansion), **versions}


def chosen_before(config: TrainingConfig, cache_dir: Path, versions: Mapping[str, Any]) -> int | None:
    """Return the number of variants that was chosen for the slot of this configuration, the one last used."""
    for _, rows in slot_formats(cache_dir):
        if rows.expansion_is_chosen and rows.identity == row_identity(config, rows.expansion, versions):
            return rows.expansion
    return None
