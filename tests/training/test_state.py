"""The state of a run: the fields of a checkpoint, and a round trip through a file."""

from __future__ import annotations

import torch

from distill.models import ConvVAE
from distill.training.epochs import Means
from distill.training.state import TrainingState

# The format of checkpoint files, together with "version".
FIELDS = (
    "model optimizer band_means normalization_stats content_key step epoch epoch_step best_loss since_best rows sums "
    "epoch_seconds rng best_epoch objective device_rng val_limit order_key"
)


def model_and_optimizer(seed: int) -> tuple[ConvVAE, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = ConvVAE(2, 3, n_mels=8, n_frames=8, base_channels=8)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    model(torch.randn(4, 2, 8, 8))[0].square().mean().backward()
    optimizer.step()
    return model, optimizer


def test_a_checkpoint_has_the_fields_of_its_format():
    state = TrainingState(*model_and_optimizer(0), torch.zeros(2, 8), {"mag_mean": 0.5}, "key")
    assert state.checkpoint().keys() == set(FIELDS.split())


def test_a_restored_state_equals_the_saved_one(tmp_path):
    state = TrainingState(
        *model_and_optimizer(0),
        torch.randn(2, 8),
        {"mag_mean": 0.5, "mag_std": 2.0},
        "key",
        order_key="order",
        step=9,
        epoch=2,
        epoch_step=1,
        best_loss=0.25,
        best_epoch=1,
        since_best=1,
        objective={"if_weight": 0.5},
        epoch_seconds=1.5,
        means=Means(4, {"loss": 3.0}),
    )
    torch.save(state.checkpoint(), tmp_path / "state.pt")
    checkpoint = torch.load(tmp_path / "state.pt", weights_only=True)
    restored = TrainingState.restore(checkpoint, *model_and_optimizer(1))
    for name, value in state.model.state_dict().items():
        assert torch.equal(restored.model.state_dict()[name], value)
    moments = state.optimizer.state_dict()["state"]
    for index, found in restored.optimizer.state_dict()["state"].items():
        assert all(torch.equal(found[name], value) for name, value in moments[index].items())
    assert torch.equal(restored.band_means, state.band_means)
    numbers = ("step", "epoch", "epoch_step", "best_loss", "best_epoch", "since_best")
    for name in (*numbers, "normalization_stats", "content_key", "order_key", "objective"):
        assert getattr(restored, name) == getattr(state, name)
    assert (restored.epoch_seconds, restored.means) == (1.5, Means(4, {"loss": 3.0}))


def test_a_new_epoch_resets_its_counters_only():
    state = TrainingState(*model_and_optimizer(0), torch.zeros(2, 8), {}, "key", step=9, epoch=2, epoch_step=1)
    state.means.add({"loss": torch.tensor(3.0)}, 4)
    state.epoch_seconds = 1.5
    state.begin_epoch()
    assert (state.epoch_step, state.epoch_seconds, state.means) == (0, 0.0, Means())
    assert (state.step, state.epoch) == (9, 2)
