"""Defaults of the training that depend on the size of the dataset."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from distill.config import TrainingConfig

SMALL_ROWS = 2_000
MEDIUM_ROWS = 20_000
_STEPS = 6_000


def batch_size_for(rows: int) -> int:
    """Return the batch size for a number of training rows: small for a small dataset, which gains from more steps."""
    return 16 if rows < SMALL_ROWS else 32 if rows < MEDIUM_ROWS else 64


def resolve_training(config: TrainingConfig, rows: int) -> tuple[TrainingConfig, list[str]]:
    """Return the configuration with batch_size, epochs, weight_decay and dropout set, and a list of those chosen here.

    Parameters
    ----------
    config : TrainingConfig
        The user's configuration; fields that are None are chosen.
    rows : int
        Training rows, augmented variants included.

    Returns
    -------
    config : TrainingConfig
        With none of these fields None.
    chosen : list of str
        The fields that were None, as "name=value".
    """
    is_small = rows < SMALL_ROWS
    batch_size = config.batch_size or batch_size_for(rows)
    steps_per_epoch = -(-rows // batch_size)
    defaults = {
        "batch_size": batch_size,
        "epochs": min(200, max(10, _STEPS // steps_per_epoch)),
        "weight_decay": 0.1 if is_small else 0.01,
        "dropout": 0.1 if is_small else 0.0,
    }
    chosen: dict[str, Any] = {name: value for name, value in defaults.items() if getattr(config, name) is None}
    return replace(config, **chosen), [f"{name}={value}" for name, value in chosen.items()]
