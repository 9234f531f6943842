"""Continuing a run from its checkpoint, also with another dataset or with other options than before."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

import torch

from distill.config import TrainingConfig
from distill.errors import RunError
from distill.models import ConvVAE, load_model
from distill.runs.folder import RunFolder
from distill.text import differences
from distill.training.data import TrainingData
from distill.training.events import TrainResult
from distill.training.state import TrainingState

logger = logging.getLogger(__name__)

_OBJECTIVE = ("batch_size", "free_bits", "if_weight", "kl_weight", "loud_share")


def objective_of(config: TrainingConfig) -> dict[str, float]:
    """Return the settings that the validation loss depends on, besides those that cannot change when a run is resumed.

    The batch size is one of them: the loss weights frequency by energy, and clamps the KL term, over a batch.
    """
    return {name: getattr(config, name) for name in _OBJECTIVE}


def continued_state(
    run: RunFolder,
    checkpoint: Mapping[str, Any],
    model: ConvVAE,
    optimizer: torch.optim.Optimizer,
    config: TrainingConfig,
    data: TrainingData,
) -> TrainingState:
    """Load a checkpoint into a new model and its optimizer, and return the state to continue from.

    What the dataset or `config` have made void since then is reset, which is logged.

    Raises
    ------
    RunError
        If the checkpoint is of a model of another architecture.
    """
    # The learning rate is set before every step, and the last one is reported.
    own = [{n: value for n, value in group.items() if n not in ("params", "lr")} for group in optimizer.param_groups]
    try:
        state = TrainingState.restore(checkpoint, model, optimizer)
        _check_moments(optimizer)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunError(
            f"{run.path}: its checkpoint does not fit its configuration: {' '.join(str(error).split())}",
            "resume with the configuration that the run was started with",
        ) from error
    # With the moments, the checkpoint restored the settings of that time.
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
    if "best_epoch" not in checkpoint:
        state.best_epoch = _best_epoch(run)
    # Checkpoints of versions without `loud_share` have no such setting: all weights were equal.
    before: dict[str, Any] = {"loud_share": 0.0} | state.objective if state.objective else objective_of(run.config())
    state.objective = objective_of(config)
    if before["batch_size"] not in (None, config.batch_size):
        state.epoch_step = _step_of_row(state.epoch_step * before["batch_size"], data)
    order_before, state.order_key = state.order_key, data.order_key
    if state.content_key != data.content_key:
        logger.warning("the dataset has changed since: the epoch is started again, and early stopping is reset")
        state.content_key = data.content_key
        state.begin_epoch()
        state.forget_best()
    elif changed := _changed_objective(before, state.objective, len(data.val.dataset)):  # type: ignore[arg-type]
        logger.warning(
            "%s: validation losses cannot be compared with earlier ones: the best loss and early stopping are reset",
            "; ".join(changed),
        )
        state.forget_best()
    if order_before != data.order_key and state.epoch_step:
        logger.warning("the order of the rows has changed since: the epoch is started again")
        state.begin_epoch()
    return state


def _check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError if the optimizer has moments that are not those of its parameters, or no learning rate."""
    if not all(type(group["lr"]) is float for group in optimizer.param_groups):
        raise ValueError("the learning rate of the optimizer is not a number")
    for parameter, state in optimizer.state.items():
        moments = [state.get(name) for name in ("exp_avg", "exp_avg_sq")]
        if not all(torch.is_tensor(moment) and moment.shape == parameter.shape for moment in moments):
            raise ValueError("the moments of the optimizer do not have the shapes of the weights")


def _changed_objective(before: Mapping[str, float], now: Mapping[str, float], validation_rows: int) -> list[str]:
    """Return what has changed in words; not a batch size that holds all validation rows before and now."""
    changed = {name: value for name, value in now.items() if before.get(name) not in (None, value)}
    if "batch_size" in changed and min(before["batch_size"], now["batch_size"]) >= validation_rows:
        del changed["batch_size"]
    return differences({name: before[name] for name in changed}, changed)


def _step_of_row(row: int, data: TrainingData) -> int:
    """Return the step of an epoch that begins at a row, or before it so that no row is left out."""
    is_end = row >= len(data.train.dataset)  # type: ignore[arg-type]
    return len(data.sampler) if is_end else row // data.sampler.batch_size


def _best_epoch(run: RunFolder) -> int:
    """Return the epoch whose weights model.safetensors has, for a checkpoint that does not say it."""
    if best := run.load_best():
        epoch: int = best["epoch"]
        return epoch
    return min(run.metrics(), key=lambda line: line["val_loss"], default={"epoch": 0})["epoch"]


def best_line(run: RunFolder, best_epoch: int) -> dict[str, Any]:
    """Return the line of metrics.jsonl of the best epoch; only its number if that is lost; empty if there is none."""
    nothing = {"epoch": best_epoch} if best_epoch else {}
    return next((line for line in run.metrics() if line["epoch"] == best_epoch), nothing)


def unchanged_result(run: RunFolder, checkpoint: Mapping[str, Any] | None) -> TrainResult:
    """Return the result of a training that was interrupted before its first step."""
    if checkpoint is None:
        return TrainResult(run.path, "interrupted", 0, {})
    best_epoch = checkpoint.get("best_epoch", _best_epoch(run))
    return TrainResult(run.path, "interrupted", checkpoint["epoch"], best_line(run, best_epoch))


def lost_weights(run: RunFolder, state: TrainingState) -> ConvVAE | None:
    """Return the model of the best epoch if model.safetensors does not hold it; None if it does."""
    best = run.load_best()
    try:
        found = load_model(run.path).state_dict()
    except RunError as error:
        logger.warning("%s; written again from the checkpoints", error)
    else:
        # A kill between saving the model and the checkpoint leaves the weights of an epoch that is repeated.
        if not best or best["epoch"] != state.best_epoch or _equal(found, best["model"]):
            return None
    model = copy.deepcopy(state.model)
    if best:
        model.load_state_dict(best["model"])
    return model


def _equal(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
