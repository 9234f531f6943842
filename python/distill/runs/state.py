"""Checkpoints: what a run is resumed from, as bytes and back."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.documents import read_file
from distill.faults import Key, Rule, Table, at_least, between, table_faults
from distill.models.store import STATISTICS

logger = logging.getLogger(__name__)

_VERSION = 2


def _is_generator_state(tensor: Tensor) -> bool:
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

_STATE = Table(
    {
        "model": Key(dict, Rule(lambda values: all(map(torch.is_tensor, values.values())), "tensors by name")),
        "optimizer": Table({"state": Key(dict), "param_groups": Key(list)}),
        "band_means": Key(Tensor, Rule(lambda tensor: tensor.ndim == 2, "of shape [C, M]")),
        "normalization_stats": STATISTICS,
        "content_key": Key(str),
        **dict.fromkeys(("step", "epoch", "epoch_step", "since_best", "rows"), _COUNT),
        "best_loss": _LOSS,
        "epoch_seconds": Key(float, at_least(0)),
        "sums": Key(dict, Rule(_are_sums, "sums of losses, also of the loss itself")),
        "rng": Key(Tensor, Rule(_is_generator_state, "a state of torch's generator")),
        # Not in checkpoints of earlier versions.
        "val_limit": Key(int | None, between(0, 2**64 - 1), is_required=False),
        "best_epoch": Key(int, between(0, 10**12), is_required=False),
        "objective": Key(dict, Rule(_is_objective, "numbers by name of the setting"), is_required=False),
        "device_rng": Key(dict, Rule(_are_device_states, "states of generators by device"), is_required=False),
    }
)


def state_bytes(state: Mapping[str, Any]) -> memoryview:
    """Return a checkpoint as the content of a file."""
    # In memory, because torch.save hides why a file could not be written.
    content = io.BytesIO()
    torch.save({"version": _VERSION, **state}, content)
    return content.getbuffer()


def read_state(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint; return None, with a warning, if that fails."""
    try:
        # Not by torch, which waits for a FIFO.
        state = torch.load(io.BytesIO(read_file(path)), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - unpickling damaged bytes can raise any exception
        logger.warning("%s: cannot be read: %s", path, str(error).split("\n")[0] or type(error).__name__)
        return None
    version = state.get("version") if isinstance(state, dict) else None
    if not isinstance(version, int) or version != _VERSION:
        logger.warning("%s: written by another version of distill", path)
    elif faults := table_faults(state, _STATE):
        logger.warning("%s: damaged: %s", path, faults[0])
    elif not is_finite([state["model"], state["optimizer"]]):
        logger.warning("%s: not used, because its weights are not finite", path)
    else:
        checkpoint: dict[str, Any] = state
        return checkpoint
    return None


def is_finite(values: Any) -> bool:
    """Whether no number and no tensor in nested mappings and lists is NaN or infinite."""
    if isinstance(values, Mapping):
        values = list(values.values())
    if isinstance(values, list):
        return all(is_finite(value) for value in values)
    if isinstance(values, Tensor):
        return bool(values.isfinite().all())
    return not isinstance(values, float) or math.isfinite(values)
