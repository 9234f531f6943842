"""What each step of `train` does to the weights, compared with torch's own optimiser and schedule."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.models import ConvVAE
from distill.training import create_complex_data_loaders, train, train_epoch

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def config(brief_config):
    changed = {"kl_warmup_epochs": 4, "kl_weight": 0.5, "if_weight": 0.7, "gradient_clip": 0.05}
    return replace(brief_config, epochs=9, batch_size=3, patience=100, **changed)


@pytest.fixture(scope="module")
def trained(brief_sounds, brief_cache, config, tmp_path_factory):
    """The steps of the optimiser of a run, (learning rate, parameters before, gradients, after) each; its metrics."""
    steps, original = [], torch.optim.AdamW.step

    def step(self, *arguments, **options):
        (group,) = self.param_groups
        values = group["params"]
        gradients = [value.grad.clone() for value in values]
        before = [value.detach().clone() for value in values]
        result = original(self, *arguments, **options)
        steps.append((group["lr"], before, gradients, [value.detach().clone() for value in values]))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        run = train(
            brief_sounds, tmp_path_factory.mktemp("steps") / "run", config, cache_dir=brief_cache, analyze=False
        ).run_dir
    return steps, [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_learning_rate_warms_up_for_50_steps_and_falls_by_a_cosine_to_one_percent(trained, config):
    steps, _ = trained
    assert len(steps) > 60
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=config.learning_rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(steps), eta_min=0.01 * config.learning_rate)
    expected = []
    for number in range(len(steps)):
        expected.append(min(1.0, (number + 1) / 50) * cosine.get_last_lr()[0])
        optimizer.step()
        cosine.step()
    np.testing.assert_allclose([rate for rate, *_ in steps], expected, rtol=1e-6)


def test_the_kl_term_has_a_weight_that_rises_over_the_first_epochs(trained, config):
    _, lines = trained

    def weight(line, part):
        return (line[f"{part}_loss"] - line[f"{part}_magnitude"] - config.if_weight * line[f"{part}_if"]) / line[
            "val_kl" if part == "val" else "kl"
        ]

    expected = 0.5 * np.minimum(np.arange(9) / 4, 1)
    np.testing.assert_allclose([weight(line, "train") for line in lines], expected, atol=1e-4)
    # Epochs are compared by the same loss.
    np.testing.assert_allclose([weight(line, "val") for line in lines], 0.5, atol=1e-4)


def test_weights_decay_as_in_adamw(trained, config):
    steps, _ = trained
    rate, before, gradients, after = steps[0]
    for decay, is_equal in ((config.weight_decay, True), (0.0, False)):
        values = [torch.nn.Parameter(value.clone()) for value in before]
        optimizer = torch.optim.AdamW(values, lr=rate, weight_decay=decay)
        for value, gradient in zip(values, gradients, strict=True):
            value.grad = gradient
        optimizer.step()
        pairs = list(zip(values, after, strict=True))
        assert all(torch.allclose(value, found, rtol=1e-7, atol=0) for value, found in pairs) is is_equal


def test_gradients_with_a_larger_norm_are_scaled_to_the_limit_and_others_are_left(brief_cache, brief_config):
    (first, *_) = create_complex_data_loaders(brief_cache, brief_config)[0]
    torch.manual_seed(0)
    start = ConvVAE(2, 4, n_mels=first.shape[2], n_frames=first.shape[3])

    def gradient(limit: float) -> torch.Tensor:
        """The gradient that a step of plain gradient descent with a rate of 1 used, in one vector."""
        model = copy.deepcopy(start).double()
        torch.manual_seed(1)
        train_epoch(
            model,
            [first.double()],
            torch.optim.SGD(model.parameters(), lr=1.0),
            use_cached_spectrograms=True,
            normalization_stats={"mag_mean": 0.0, "mag_std": 1.0, "if_mean": 0.0, "if_std": 1.0},
            gradient_clip=limit,
        )
        pairs = zip(start.parameters(), model.parameters(), strict=True)
        return torch.cat([(before.double() - after).flatten() for before, after in pairs]).detach()

    free = gradient(1e9)
    norm = free.norm().item()
    assert norm > 0.01
    for limit in (0.1 * norm, 0.9 * norm, 1.1 * norm):
        expected = free * min(1.0, limit / norm)
        assert torch.allclose(gradient(limit), expected, rtol=1e-4, atol=1e-9 * norm)


def test_the_gradient_clip_of_the_configuration_is_used(trained, config):
    norms = [torch.cat([value.flatten() for value in gradients]).norm().item() for _, _, gradients, _ in trained[0]]
    assert max(norms) == pytest.approx(config.gradient_clip, rel=1e-4)
