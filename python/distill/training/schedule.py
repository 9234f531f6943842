"""What changes from step to step and from epoch to epoch: the learning rate and the weight of the KL term."""

from __future__ import annotations

import math

from distill.config import TrainingConfig

_WARM_UP_STEPS = 50
_FINAL_SHARE = 0.01


def learning_rate(config: TrainingConfig, step: int, total_steps: int, taken: int | None = None) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine decay to 1 %.

    Parameters
    ----------
    config : TrainingConfig
    step : int
        Position of the step, from 0: the steps that complete epochs have at the present batch size, and those of the
        current one. So a run that is resumed with another batch size stays where it was on the cosine.
    total_steps : int
        Steps of all epochs at the present batch size.
    taken : int, optional
        Steps that the run has really taken, which the warm-up counts. Default: `step`.
    """
    # The warm-up is not shorter in a short run: the first steps must not undo the start from the PCA.
    warm_up = min(1.0, ((step if taken is None else taken) + 1) / _WARM_UP_STEPS)
    cosine = (1 + math.cos(math.pi * min(1.0, step / total_steps))) / 2
    return config.learning_rate * warm_up * (_FINAL_SHARE + (1 - _FINAL_SHARE) * cosine)


def kl_weight(config: TrainingConfig, epoch: int) -> float:
    """Return the weight of the KL term in an epoch, counted from 0: a linear warm-up if one is configured."""
    warm_up = config.kl_warmup_epochs
    return config.kl_weight * (min(1.0, epoch / warm_up) if warm_up else 1.0)
