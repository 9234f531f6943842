"""The interpreted Triton kernel against the definition in float64, case by case."""

from __future__ import annotations

import pytest

from definition import make_signal
from parity import DEFAULT, LARGE, MIDDLE, SMALL, Parity, check


class TestTriton(Parity):
    @pytest.fixture
    def computed(self, interpreted):
        return interpreted

    @pytest.mark.parametrize("wave", [32, 64])
    @pytest.mark.parametrize("feature", [DEFAULT, LARGE, MIDDLE, SMALL], ids=["2048", "4096", "1024", "512"])
    def test_plans_for_amd(self, computed, feature, wave):
        check(computed, [make_signal(4_000, seed=seed) for seed in range(2)], feature, backend="hip", wave=wave)
