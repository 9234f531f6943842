"""Learning rate and KL weight over the steps and epochs of a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from distill.training.schedule import kl_weight, learning_rate


def test_learning_rate_warms_up_linearly_and_decays_by_a_cosine_to_one_percent(small_config):
    config = replace(small_config, learning_rate=0.5)
    found = np.array([learning_rate(config, step, 1000) for step in range(1001)])
    step = np.arange(1001)
    decay = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * step / 1000))
    np.testing.assert_allclose(found, 0.5 * np.minimum((step + 1) / 50, 1) * decay, rtol=1e-12)
    assert found[1000] == pytest.approx(0.005)
    assert learning_rate(config, 2000, 1000) == pytest.approx(0.005)


def test_kl_weight_warms_up_over_epochs_if_configured(small_config):
    config = replace(small_config, kl_weight=0.5, kl_warmup_epochs=4)
    assert [kl_weight(config, epoch) for epoch in range(6)] == [0, 0.125, 0.25, 0.375, 0.5, 0.5]
    assert kl_weight(replace(config, kl_warmup_epochs=0), 0) == 0.5
