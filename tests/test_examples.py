"""The programs in examples/ do what they say, on a few sounds."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch

from distill.training import CachedSpectrogramDataset

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def recordings(sounds, tmp_path, monkeypatch, one_thread) -> Path:
    for family, sound in (("bells", "metal/bell"), ("kicks", "drums/kick")):
        (tmp_path / "recordings" / family).mkdir(parents=True)
        for path in sorted(sounds.glob(f"{sound}*.wav")):
            shutil.copy(path, tmp_path / "recordings" / family)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "recordings"


def test_own_model(recordings, capsys):
    torch.manual_seed(0)
    assert load("own_model").main(str(recordings), epochs=20) > 0.9
    assert "epoch 20" in capsys.readouterr().out


def test_features_on_gpu(recordings, capsys):
    features = load("features_on_gpu").main(str(recordings), workers=0)
    assert features.shape[1:] == (2, 128, 94)
    assert features[:, 0].amax(dim=(1, 2)).min() > 1
    assert "seconds of sound a second" in capsys.readouterr().out


@pytest.mark.needs("pytorch_lightning")
# It says that worker processes may be faster, and that it trains on a CPU.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_lightning_module(recordings):
    torch.manual_seed(0)
    error = load("lightning_module").main(str(recordings), epochs=20)
    (cache_dir,) = (recordings / ".cache" / "slots").iterdir()
    rows = CachedSpectrogramDataset(cache_dir, "val")[:]
    # That of a model which gives zeros, the mean of normalised rows.
    assert error < 0.7 * rows.square().mean()
