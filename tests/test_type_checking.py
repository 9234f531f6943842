"""Type checkers see the public interface, and the types of the extension are those that it has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import distill
from distill import _native

ROOT = Path(__file__).parent.parent

MISTAKES = """
import numpy as np
import torch

from distill import ComplexSpectogram  # mistake
from distill.audio import ComplexSpectrogram, load_audio
from distill.models import load_model
from distill.training import TrainingConfig, create_data_loader, train  # mistake

config = TrainingConfig(batch_size=16)
TrainingConfig(epoch=1)  # mistake
print(config.bacth_size)  # mistake
spectrogram = ComplexSpectrogram(config.spectrogram)  # mistake
spectrogram(np.zeros((1, 1, 48_000)))  # mistake
print(spectrogram(torch.zeros(1, 1, 48_000)).shap)  # mistake
load_audio(["one.wav", "two.wav"])  # mistake
print(load_model("run")(torch.zeros(1, 2, 128, 94)).shape)  # mistake
train("recordings", "run", config, epochs=3)  # mistake
"""
CORRECT = """
from typing import Any, Literal

from torch import Tensor
from typing_extensions import assert_type

import distill.audio
from distill import TrainingConfig, load_model
from distill.audio import AudioSpectrogram, ComplexSpectrogram, ComplexSpectrogramConfig, load_audio
from distill.audio.spectrogram import SpectrogramConfig
from distill.models import ConvVAE
from distill.runs import Instrument
from distill.training import (
    CachedSpectrogramDataset,
    ResumableLoader,
    TrainResult,
    create_complex_data_loaders,
    train,
)
from distill.training.dataset import AudioTrainingDataset

config = TrainingConfig(batch_size=16, epochs=3)
assert_type(config.batch_size, int | None)
assert_type(config.complex_spectrogram, ComplexSpectrogramConfig)
assert_type(config.spectrogram, SpectrogramConfig)
waveform = load_audio("one.wav")[None]
assert_type(waveform, Tensor)
spectrogram = ComplexSpectrogram(config.complex_spectrogram, backend="reference")
assert_type(spectrogram(waveform), Tensor)
assert_type(spectrogram.inverse(spectrogram(waveform), length=48_000), Tensor)
assert_type(spectrogram.backend_for(waveform), Literal["fused", "rust", "reference"])
assert_type(AudioSpectrogram()(waveform), Tensor)
model = load_model("run")
assert_type(model, ConvVAE)
assert_type(model(spectrogram(waveform)), tuple[Tensor, Tensor, Tensor])
assert_type(model.decode(model.encode(spectrogram(waveform))[0]), Tensor)
dataset = CachedSpectrogramDataset("cache", "train")
assert_type(dataset[0], Tensor)
assert_type(dataset[:8], Tensor)
assert_type(CachedSpectrogramDataset("cache", transform=lambda row: {"row": row})[0], dict[str, Tensor])
assert_type(distill.audio.denormalize(dataset[:8], dataset.normalization_stats), Tensor)
assert_type(create_complex_data_loaders("cache", config), tuple[ResumableLoader, ResumableLoader])
assert_type(next(iter(create_complex_data_loaders("cache", config)[0])), Tensor)
assert_type(dataset.provenance(0).paths, tuple[str, ...])
assert_type(Instrument.load("run").encode_waveform(waveform[0]), Tensor)
assert_type(AudioTrainingDataset(["one.wav"])[0], Tensor)
assert_type(train("recordings", "run", config, on_event=lambda event: print(event.kind)), TrainResult)
assert_type(distill.load_cache_manifest("cache"), dict[str, Any] | None)
assert_type(distill.__version__, str)
"""


def test_a_type_checker_sees_each_mistake_and_the_types_of_all_results(tmp_path):
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    (tmp_path / "correct.py").write_text(CORRECT)
    # With the settings and the cache of `make lint`: without a cache, mypy reads torch for 20 seconds.
    settings = ["--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".mypy_cache"]
    command = [sys.executable, "-m", "mypy", *settings, tmp_path / "mistakes.py", tmp_path / "correct.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    errors = re.findall(r"(mistakes|correct)\.py:(\d+): error: ", done.stdout)
    marked = [number for number, line in enumerate(MISTAKES.splitlines(), 1) if line.endswith("# mistake")]
    assert errors == [("mistakes", str(number)) for number in marked], done.stdout + done.stderr
    assert len(errors) == 10


def test_the_types_of_the_extension_are_those_that_it_has(tmp_path):
    # Beside an empty package: with the real one, stubtest, which has no cache, would read torch for 20 seconds.
    stubs = tmp_path / "distill"
    stubs.mkdir()
    (stubs / "__init__.py").touch()
    for name in ("_native.pyi", "types.py"):
        shutil.copy(Path(distill.__file__).parent / name, stubs)
    (tmp_path / "allowed").write_text("distill._native.__all__\n")
    command = [sys.executable, "-m", "mypy.stubtest", "distill._native", "--allowlist", tmp_path / "allowed"]
    paths = {"MYPYPATH": str(tmp_path), "PYTHONPATH": str(Path(_native.__file__).parent.parent)}
    done = subprocess.run(command, cwd=tmp_path.parent, env=os.environ | paths, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
