"""What the files of a run folder hold, besides config.toml and model.json."""

from __future__ import annotations

import os
from typing import Any

import torch

from distill.faults import Key, Rule, Table, at_least, between
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


def _is_generator_state(tensor: torch.Tensor) -> bool:
    expected = torch.get_rng_state()
    return (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape)


def _are_sums(values: dict[str, Any]) -> bool:
    return not values or ("loss" in values and all(type(value) in (int, float) for value in values.values()))


def _is_objective(values: dict[str, Any]) -> bool:
    names = {"batch_size", "free_bits", "if_weight", "kl_weight"}
    # `loud_share` is missing in checkpoints of versions that had no such setting.
    return not values or (
        names <= values.keys() <= names | {"loud_share"}
        and all(type(value) in (int, float) for value in values.values())
    )


def _are_device_states(values: dict[str, Any]) -> bool:
    return values.keys() <= {"cuda", "mps"} and all(
        torch.is_tensor(state) and state.dtype == torch.uint8 for state in values.values()
    )


_COUNT = Key(int, between(0, 10**12))
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
        "sums": Key(dict, Rule(_are_sums, "sums of losses, also of the loss itself")),
        "rng": Key(torch.Tensor, Rule(_is_generator_state, "a state of torch's generator")),
        # Not in checkpoints of earlier versions.
        "val_limit": Key(int | None, between(0, 2**64 - 1), is_required=False),
        "best_epoch": Key(int, between(0, 10**12), is_required=False),
        "objective": Key(dict, Rule(_is_objective, "numbers by name of the setting"), is_required=False),
        "device_rng": Key(dict, Rule(_are_device_states, "states of generators by device"), is_required=False),
    }
)
"""A checkpoint."""
