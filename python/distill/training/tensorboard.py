"""TensorBoard: metrics and previews of a run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import TracebackType
from typing import Any

import soundfile

from distill.errors import ConfigError
from distill.training.previews import Previews

FOLDER = "tensorboard"


def check_tensorboard() -> None:
    """Raise ConfigError if tensorboard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(["tensorboard is not installed"], "pip install tensorboard, or leave out --tensorboard")


class Board:
    """A writer of RUN/tensorboard, and a context manager that closes it.

    Parameters
    ----------
    run_dir : Path
        The run folder.
    first_epoch : int
        Data that was written earlier for this epoch and later ones is discarded.

    Raises
    ------
    OSError
        By every method, if a file cannot be written.
    """

    def __init__(self, run_dir: Path, first_epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra, checked by check_tensorboard

        self._writer = SummaryWriter(str(run_dir / FOLDER), purge_step=first_epoch)

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()

    def add(self, line: dict[str, Any], previews: Previews | None) -> None:
        """Add an epoch's line of metrics.jsonl, and its previews if there are any."""
        epoch = line["epoch"]
        for name, value in line.items():
            if name != "epoch" and value is not None:
                self._writer.add_scalar(f"metrics/{name}", value, epoch)
        if previews:
            for name, path in previews.sounds.items():
                sound, _ = soundfile.read(path, dtype="float32")
                self._writer.add_audio(f"previews/{name}", sound, epoch, previews.sample_rate)
            self._writer.add_image("previews", previews.picture, epoch, dataformats="HWC")
        # The epoch is shown even if the run is killed before the next one.
        self._writer.flush()
