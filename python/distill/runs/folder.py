"""The run folder: the results of a training run, and all that is needed to resume it. Only checkpoints need torch.

.distill-output      a mark: no dataset includes this folder
config.toml          the complete configuration
run.json             the dataset and its cache
metrics.jsonl        a line for each epoch; now and then with quality figures
model.safetensors    the best weights so far, described by model.json
checkpoints/         step-NNNNNNNNN.pt, the newest few; best.pt
loss.png, quality.png, reconstruction.png
previews/            epoch-NNN: sounds, the originals of reconstructions, and a picture
latent/              the axes of the latent space
tensorboard/         if requested
shelf.json           sounds that were kept while playing: the settings that make them
dropped/             sounds that were dropped on the page, to play from
"""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from distill.cache.lease import Lease, owner_files
from distill.config import TrainingConfig, config_from_dict, config_to_toml
from distill.documents import parse_json, parse_toml, read_document, shown_faults
from distill.errors import ConfigError, RunError, StorageError
from distill.index import Dataset
from distill.runs.lock import LOCK_NAME, locked
from distill.runs.records import METRICS, RUN
from distill.storage import (
    MARK_NAME,
    is_full,
    make_output_folder,
    remove_leftovers,
    storage_error,
    sync_folder,
    write_atomically,
)
from distill.text import counted
from distill.types import PathLike

logger = logging.getLogger(__name__)

# What versions did that had no such settings: a chunk had one latent vector, and all errors had equal weights.
_AS_BEFORE = {"latent_frames": 0, "loud_share": 0.0}
_NAME_A_RUN = "name the folder that was printed at the end of training"


class RunFolder:
    """The files of a run.

    Parameters
    ----------
    path : path
        The run folder.

    Attributes
    ----------
    path : Path
        The run folder.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self._checkpoints = self.path / "checkpoints"
        self._best = self._checkpoints / "best.pt"
        self._lease: Lease | None = None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of the folder, for all that writes to it; the folder is made if it is missing.

        Raises
        ------
        RunError
            If another process holds it.
        StorageError
            If the folder cannot be written.
        """
        with ExitStack() as held:
            try:
                # Before the lock, because only an empty folder is marked.
                make_output_folder(self.path)
                self._lease = held.enter_context(locked(self.path))
            except OSError as error:
                path = Path(error.filename or self.path)
                raise storage_error(path, error, "make it writable, or use another folder") from error
            try:
                yield
            finally:
                self._lease = None

    def create(self, config: TrainingConfig, dataset: Dataset) -> None:
        """Create the folder of a new run.

        Raises
        ------
        RunError
            If the folder already holds a run, or a part of one.
        StorageError
            If it cannot be written.
        """
        parts = [self.path / name for name in ("run.json", "metrics.jsonl", "model.safetensors")]
        if self.has_state() or any(part.exists() for part in parts):
            other = "choose another --out"
            resume = f"continue it with --resume {shlex.quote(str(self.path))}, or {other}"
            raise RunError(f"{self.path}: already holds a run", resume if parts[0].exists() else other)
        try:
            self._checkpoints.mkdir(parents=True, exist_ok=True)
            self.write_config(config)
            self.write_dataset(dataset)
        except OSError as error:
            raise storage_error(self.path, error, "choose another folder with --out DIR") from error

    def dataset(self) -> Dataset:
        """Read the dataset that the run was created with, or last resumed with.

        Raises
        ------
        RunError
            If the folder holds no run, or its run.json is damaged.
        """
        if not self.path.exists():
            raise RunError(f"{self.path}: no such run folder", _NAME_A_RUN)
        path = self.path / "run.json"
        if not path.exists():
            raise RunError(f"{self.path}: not a run: no run.json in it", _NAME_A_RUN)
        remedy = "copy the file from a run on the same dataset, or start a new run"
        return Dataset.from_record(read_document(path, lambda content: parse_json(content, RUN), remedy))

    def config(self) -> TrainingConfig:
        """Read the configuration of the run.

        Raises
        ------
        RunError
            If it cannot be read.
        """
        return read_document(
            self.path / "config.toml",
            lambda content: config_from_dict(_AS_BEFORE | parse_toml(content)),
            "copy the file from a similar run, or start a new run",
        )

    def write_dataset(self, dataset: Dataset) -> None:
        """Replace run.json."""
        write_atomically(self.path / "run.json", json.dumps(dataset.record(), indent=2).encode())

    def write_config(self, config: TrainingConfig) -> None:
        """Replace config.toml."""
        write_atomically(self.path / "config.toml", config_to_toml(config).encode())

    def save_state(self, state: dict[str, Any], *, keep: int, is_best: bool) -> None:
        """Write a checkpoint, and delete earlier ones until `keep` are left.

        Parameters
        ----------
        state : dict
            The state to resume from, with its "step".
        keep : int
            Checkpoints to keep.
        is_best : bool
            Whether it has the best weights so far; it is then written to best.pt, too.

        Raises
        ------
        StorageError
            If it cannot be written, or another process has taken over the run; earlier checkpoints are kept.
        """
        from distill.runs.state import state_bytes  # noqa: PLC0415 - imports torch; what else a run holds needs it not

        path, content = self._checkpoints / f"step-{state['step']:09d}.pt", state_bytes(state)
        # best.pt first: if the step cannot be written after it, the epoch is trained again on resume.
        for target in ([self._best] if is_best else []) + [path]:
            try:
                self._require_lease()
                write_atomically(target, content)
            except OSError as error:
                raise self.storage_error(error, target) from error
        # Those of later steps were passed over on resume, as they could not be used.
        if superseded := [old for old in self._states() if old.name <= path.name][keep:]:
            # The new one must be on disk under its name first.
            sync_folder(self._checkpoints)
        for old in superseded:
            old.unlink()

    def storage_error(self, error: OSError, path: Path | None = None) -> StorageError:
        """Return the StorageError for an `error` from writing `path` (default: the folder)."""
        remedy = self.remedy(error)
        return storage_error(path or self.path, error, remedy, tip_if_full=remedy)

    def remedy(self, error: BaseException | None) -> str:
        """Return what to do about an error from writing to the folder."""
        first = "make room" if is_full(error) else "fix this"
        return f"{first}, then --resume {shlex.quote(str(self.path))}"

    def _require_lease(self) -> None:
        if self._lease is not None:
            self._lease.renew()

    def _states(self) -> list[Path]:
        return sorted(self._checkpoints.glob("step-*.pt"), reverse=True)

    def load_state(self) -> dict[str, Any] | None:
        """Read the newest checkpoint that is usable, or else that of the best epoch; None if training has not begun.

        Raises
        ------
        RunError
            If training has begun, and there is no usable checkpoint.
        """
        from distill.runs.state import read_state  # noqa: PLC0415 - as in `save_state`

        for folder in (self.path, self._checkpoints):
            remove_leftovers(folder)
        for path in self._states():
            if state := read_state(path):
                return state
        if state := self.load_best():
            return state
        has_checkpoints = self.has_state()
        if has_checkpoints or self.metrics():
            fault = "none of its checkpoints can be read" if has_checkpoints else "its checkpoints are missing"
            raise RunError(
                f"{self.path}: {fault}",
                "the best weights are still in model.safetensors; start a new run to train further",
            )
        return None

    def load_best(self) -> dict[str, Any] | None:
        """Read the checkpoint with the best weights; None if there is none, or it is not usable."""
        from distill.runs.state import read_state  # noqa: PLC0415 - as in `save_state`

        return read_state(self._best) if self._best.exists() else None

    def has_state(self) -> bool:
        """Whether there are checkpoints, readable or not."""
        return bool(self._states()) or self._best.exists()

    def discard(self) -> None:
        """Delete what `lock` and `create` wrote, and the folders if nothing else is in them."""
        for path in (*(self.path / name for name in ("run.json", "config.toml", LOCK_NAME)), *owner_files(self.path)):
            path.unlink(missing_ok=True)
        for folder in (self._checkpoints, self.path):
            if folder.is_dir() and {path.name for path in folder.iterdir()} <= {MARK_NAME}:
                (folder / MARK_NAME).unlink(missing_ok=True)
                folder.rmdir()

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl. When this returns it is on disk, so that a checkpoint may count on it."""
        self._require_lease()
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def metrics(self) -> list[dict[str, Any]]:
        """Read the lines of metrics.jsonl.

        Raises
        ------
        RunError
            If a line is damaged. The last one may be incomplete, after a kill; it is then left out.
        """
        path = self.path / "metrics.jsonl"
        return read_document(path, _metrics, "restore the file, or delete this line") if path.exists() else []

    def drop_metrics_from(self, epoch: int) -> None:
        """Delete the lines of `epoch` and later ones, which a resumed run trains again."""
        kept = [line for line in self.metrics() if line["epoch"] < epoch]
        if lost := epoch - 1 - len({line["epoch"] for line in kept}):
            logger.warning("%s: the lines of %s are missing", self.path / "metrics.jsonl", counted(lost, "epoch"))
        write_atomically(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept).encode())
        # The file itself may be new; lines that are appended later do not sync the folder.
        sync_folder(self.path)


def _metrics(content: bytes) -> list[dict[str, Any]]:
    *lines, incomplete = content.split(b"\n")
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(parse_json(line, METRICS))
        except ConfigError as error:
            raise ConfigError([f"line {number}: {shown_faults(error)}"]) from error
    with suppress(ConfigError):
        found.append(parse_json(incomplete, METRICS))
    return found
