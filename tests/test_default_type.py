"""The default type of torch that a caller has set changes nothing that a run computes or writes."""

from __future__ import annotations

import pytest
import torch

from distill.generate.generation import generate
from distill.latent.analysis import analyze
from distill.models import load_model
from distill.training import train

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_run_is_the_same_under_every_default_type(sounds, cache, small_config, tmp_path):
    def made(name: str, dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], list[bytes]]:
        torch.set_default_dtype(dtype)
        try:
            run = train(sounds, tmp_path / name, small_config, cache_dir=cache, analyze=False).run_dir
            analyze(run, device="cpu")
            files = generate(run, tmp_path / f"{name}-out", seed=1, device="cpu").files
            weights = load_model(run).state_dict()
        finally:
            torch.set_default_dtype(torch.float32)
        return weights, [path.read_bytes() for path in [*files, run / "latent" / "analysis.json"]]

    weights, content = made("float32", torch.float32)
    for dtype in (torch.float64, torch.bfloat16):
        other, other_content = made(str(dtype), dtype)
        for name, tensor in weights.items():
            assert other[name].dtype == torch.float32
            assert torch.equal(other[name], tensor), (dtype, name)
        assert other_content[:-1] == content[:-1]
