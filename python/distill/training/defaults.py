"""What a configuration leaves open, chosen from the size of the dataset."""

from __future__ import annotations

from dataclasses import replace

from distill.config import TrainingConfig

SMALL_ROWS = 2_000
MEDIUM_ROWS = 20_000
_STEPS = 6_000


def batch_size_for(rows: int) -> int:
    """Rows a step: few for a small dataset, whose gradient needs the noise and the steps."""
    return 16 if rows < SMALL_ROWS else 32 if rows < MEDIUM_ROWS else 64


def resolve_training(config: TrainingConfig, rows: int) -> tuple[TrainingConfig, list[str]]:
    """Fill in what is None, for a number of training rows.

    Parameters
    ----------
    config : TrainingConfig
        What the user said.
    rows : int
        Training rows, augmented variants included.

    Returns
    -------
    config : TrainingConfig
        With nothing of the training left open.
    chosen : list of str
        What was chosen here, as "name=value".
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
    chosen = {name: value for name, value in defaults.items() if getattr(config, name) is None}
    return replace(config, **chosen), [f"{name}={value}" for name, value in chosen.items()]
