"""A device that this machine lacks, or that is none, is refused everywhere, with its name and the valid ones."""

from __future__ import annotations

import pytest
import torch

from distill.config import TrainingConfig
from distill.device import resolve_device
from distill.errors import ConfigError, DeviceError
from distill.generate.generation import generate
from distill.generate.reconstruction import reconstruct
from distill.latent.analysis import analyze
from distill.models import load_model
from distill.runs.instrument import Instrument
from instruments import tones, write_run

NO_NAME = [
    "gpu",
    "cuda:",
    "cuda:x",
    "cuda:-1",
    "cuda:00",
    "cuda:²",
    "cuda:1 ",
    "cpu:0",
    "CPU",
    "meta",
    "xla",
    "",
    "auto:0",
]
VALID = "auto, cpu, cuda, cuda:N or mps"


def missing() -> list[str]:
    """Devices with valid names that this machine lacks. A byte of 256 and of 300 would be devices 0 and 44."""
    names = ["cuda:99", "cuda:256", "cuda:300", "cuda:99999"]
    if not torch.backends.mps.is_available():
        names.append("mps")
    return names if torch.cuda.is_available() else ["cuda", "cuda:0", *names]


@pytest.fixture(scope="module")
def tone_run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), tones()[:9], latent_dim=3)


COMMANDS = {
    "generate": ("RUN", "--out", "OUT"),
    "reconstruct": ("RUN", "SOUND", "--out", "OUT"),
    "analyze": ("RUN", "DATASET"),
    "train": ("DATASET", "--out", "OUT"),
    "preprocess": ("DATASET",),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_refuse_devices_with_status_2(run, tone_run, sounds, tmp_path, command):
    places = {"RUN": tone_run, "OUT": tmp_path / "out", "DATASET": sounds, "SOUND": next(sounds.rglob("*.wav"))}
    argv = [places.get(word, word) for word in COMMANDS[command]]
    for name in NO_NAME:
        code, out, err = run(command, *argv, "--device", name)
        assert (code, out) == (2, "")
        assert VALID in err
        assert name in err
    for name in missing():
        code, _, err = run(command, *argv, "--device", name)
        assert code == 2
        assert name in err
        assert "\ntip: " in err
        assert "--device cpu" in err
    assert not (tmp_path / "out").exists()
    assert not (sounds / ".cache").exists()


@pytest.mark.parametrize("name", [*NO_NAME, None, 0, b"cpu"])
def test_functions_refuse_what_is_no_name(name, tone_run, sounds, tmp_path):
    for call in (
        lambda: resolve_device(name),
        lambda: load_model(tone_run, name),
        lambda: Instrument.load(tone_run, name),
        lambda: generate(tone_run, tmp_path / "out", device=name),
        lambda: reconstruct(tone_run, [next(sounds.rglob("*.wav"))], tmp_path / "out", device=name),
        lambda: analyze(tone_run, sounds, device=name),
    ):
        with pytest.raises(DeviceError) as error:
            call()
        assert repr(name) in str(error.value)
        assert VALID in str(error.value)
        assert error.value.tip
    with pytest.raises(ConfigError, match="device="):
        TrainingConfig(device=name)
    assert not (tmp_path / "out").exists()


def test_valid_devices():
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(DeviceError, match="meta"):
        resolve_device(torch.device("meta"))
