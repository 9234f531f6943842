"""The run folder: what a run leaves behind, and what it needs to go on after any kind of end.

config.toml          what the run does, with nothing left open
run.json             which dataset and cache it reads
metrics.jsonl        a line an epoch
model.safetensors    the best weights so far; model.json beside it says what they are
checkpoints/         step-NNNNNNNNN.pt, the last few; best.pt
loss.png, quality.png, reconstruction.png
previews/            epoch-NNN: sounds and a picture
latent/              what the axes of the latent space are
tensorboard/         where it was asked for
"""

from __future__ import annotations

import io
import json
import logging
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from distill.config import TrainingConfig, config_from_dict, config_to_toml
from distill.errors import ConfigError, RunError, StorageError
from distill.index import Dataset
from distill.storage import is_full, write_atomically

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

logger = logging.getLogger(__name__)

_STATE_VERSION = 2


class RunFolder:
    """Files of one run.

    Parameters
    ----------
    path : path
        The folder.

    Attributes
    ----------
    path : Path
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._checkpoints = self.path / "checkpoints"

    def create(self, config: TrainingConfig, dataset: Dataset) -> None:
        """Start a new run on a dataset.

        Raises
        ------
        RunError
            If the folder already holds a run.
        StorageError
            If it cannot be written.
        """
        if (self.path / "run.json").exists():
            raise RunError(
                f"{self.path}: already holds a run",
                f"go on with it by --resume {shlex.quote(str(self.path))}, or choose another --out",
            )
        try:
            self._checkpoints.mkdir(parents=True, exist_ok=True)
            self.write_config(config)
            self.write_dataset(dataset)
        except OSError as error:
            tip = "choose another place with --out DIR"
            raise StorageError(f"{self.path}: cannot be written: {error.strerror or error}", tip) from error

    def dataset(self) -> Dataset:
        """Where the run's sounds are: what `create` was given, or the last resume.

        Raises
        ------
        RunError
            If this is no run.
        """
        if not self.path.exists():
            raise RunError(f"{self.path}: no such run folder", "give the folder that a run printed at its end")
        try:
            return Dataset.from_record(json.loads((self.path / "run.json").read_bytes()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{self.path}: not a run: no readable run.json in it", "give the folder that a run printed at its end"
            ) from error

    def config(self) -> TrainingConfig:
        """The configuration of the run.

        Raises
        ------
        RunError
            If it cannot be read.
        """
        try:
            return config_from_dict(tomllib.loads((self.path / "config.toml").read_text("utf-8")))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, ConfigError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise RunError(
                f"{self.path / 'config.toml'}: cannot be read: {reason}", "copy one from a run like it, or start anew"
            ) from error

    def write_dataset(self, dataset: Dataset) -> None:
        """Replace run.json."""
        write_atomically(self.path / "run.json", json.dumps(dataset.record(), indent=2).encode())

    def write_config(self, config: TrainingConfig) -> None:
        """Replace config.toml."""
        write_atomically(self.path / "config.toml", config_to_toml(config).encode())

    def save_state(self, state: dict[str, Any], *, keep: int, is_best: bool) -> None:
        """Save the state to resume from, and drop all but the last `keep`.

        Raises
        ------
        StorageError
            If it cannot be written; earlier states are still there.
        """
        path = self._checkpoints / f"step-{state['step']:09d}.pt"
        # In memory first: torch hides why a file could not be written.
        content = io.BytesIO()
        torch.save({"version": _STATE_VERSION, **state}, content)
        # The best first: an epoch whose state could not be written is done again.
        for target in ([self._checkpoints / "best.pt"] if is_best else []) + [path]:
            try:
                write_atomically(target, content.getbuffer())
            except OSError as error:
                raise self.storage_error(error, target) from error
        for old in self._states()[keep:]:
            old.unlink()

    def storage_error(self, error: OSError, path: Path | None = None) -> StorageError:
        """`error` from writing at `path` (default: the folder), as one that says what to do."""
        return StorageError(f"{path or self.path}: cannot be written: {error.strerror or error}", self.remedy(error))

    def remedy(self, error: BaseException | None) -> str:
        """What to do about an error from writing to the folder."""
        first = "make room" if is_full(error) else "put that right"
        return f"{first}, then --resume {shlex.quote(str(self.path))}"

    def _states(self) -> list[Path]:
        return sorted(self._checkpoints.glob("step-*.pt"), reverse=True)

    def load_state(self) -> dict[str, Any] | None:
        """The newest state that can be read; None if the run had none yet."""
        for path in self._states():
            if state := _read_state(path):
                return state
        if self.has_state():
            raise RunError(
                f"{self.path}: none of its checkpoints can be read",
                "its best weights are still in model.safetensors; train on in a new run",
            )
        return None

    def load_best(self) -> dict[str, Any] | None:
        """The state that had the best weights; None if it cannot be read, or no epoch was completed."""
        path = self._checkpoints / "best.pt"
        return _read_state(path) if path.exists() else None

    def has_state(self) -> bool:
        """Whether there is anything to resume from, readable or not."""
        return bool(self._states())

    def discard(self) -> None:
        """Remove what `create` made, if nothing else has been added."""
        for name in ("run.json", "config.toml"):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self._checkpoints, self.path):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        return list(_whole_lines(path.read_text("utf-8").splitlines()))

    def drop_metrics_from(self, epoch: int) -> None:
        """Drop the lines of epochs that the resumed run does again."""
        kept = [line for line in self.metrics() if line["epoch"] < epoch]
        write_atomically(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept).encode())


def _read_state(path: Path) -> dict[str, Any] | None:
    """A state; None, with a warning, if it cannot be read."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - unpickling damaged bytes raises whatever it comes upon
        logger.warning("%s: cannot be read: %s", path, str(error).split("\n")[0] or type(error).__name__)
        return None
    if isinstance(state, dict) and state.get("version") == _STATE_VERSION:
        return state
    logger.warning("%s: of another version", path)
    return None


def _whole_lines(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the last line of a run that was killed
            return
        if isinstance(entry, dict) and isinstance(entry.get("epoch"), int):
            yield entry
