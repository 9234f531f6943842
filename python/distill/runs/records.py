"""What the files of a run folder hold, besides config.toml and model.json."""

from __future__ import annotations

import os
from typing import Any

import torch

from distill.faults import Key, Rule, Table, at_least
from distill.models.store import STATISTICS


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

METRICS = Table(
    {
        "epoch": Key(int, at_least(1)),
        "train_loss": Key(float),
        "val_loss": Key(float),
        "val_magnitude_r2": Key(float | None),
        "val_if_r2": Key(float | None),
    },
    others=Key(float | None),
)
"""A line of metrics.jsonl: figures, None where they are undefined."""


def _is_generator_state(tensor: torch.Tensor) -> bool:
    expected = torch.get_rng_state()
    return (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape)


_COUNT = Key(int, at_least(0))
# Infinity is valid: there is no best loss before the first epoch.
_LOSS = Key(object, Rule(lambda value: type(value) in (int, float) and value == value, "a number"))

STATE = Table(
    {
        "model": Key(dict, Rule(lambda values: all(map(torch.is_tensor, values.values())), "tensors by name")),
        "optimizer": Table({"state": Key(dict), "param_groups": Key(list)}),
        "band_means": Key(torch.Tensor, Rule(lambda tensor: tensor.ndim == 2, "of shape [C, M]")),
        "normalization_stats": STATISTICS,
        "content_key": Key(str),
        **dict.fromkeys(("step", "epoch", "epoch_step", "since_best", "rows"), _COUNT),
        "best_loss": _LOSS,
        "epoch_seconds": Key(float, at_least(0)),
        "sums": Table({}, others=_LOSS),
        "rng": Key(torch.Tensor, Rule(_is_generator_state, "a state of torch's generator")),
        # Not in checkpoints of earlier versions.
        "val_limit": Key(int | None, at_least(0), is_required=False),
        "best_epoch": Key(int, at_least(0), is_required=False),
        "objective": Key(dict, is_required=False),
        "device_rng": Key(dict, is_required=False),
    }
)
"""A checkpoint."""
