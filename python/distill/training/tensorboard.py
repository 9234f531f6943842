"""What a run shows in TensorBoard, while it is trained and after."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import TracebackType
from typing import Any

from distill.errors import ConfigError
from distill.training.previews import Previews

FOLDER = "tensorboard"


def check_tensorboard() -> None:
    """Raise ConfigError if there is no tensorboard."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(["tensorboard is not installed"], "pip install tensorboard, or leave out --tensorboard")


class Board:
    """Writes RUN/tensorboard; a context manager, which closes it.

    Parameters
    ----------
    run_dir : Path
        The run folder.
    first_epoch : int
        What an earlier session showed of this epoch and later ones is no longer shown.

    Raises
    ------
    OSError
        By any method, if it cannot be written.
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

    def show(self, line: dict[str, Any], previews: Previews | None) -> None:
        """Show an epoch's line of metrics.jsonl, and its previews if it has some."""
        epoch = line["epoch"]
        for name, value in line.items():
            if name != "epoch" and value is not None:
                self._writer.add_scalar(f"metrics/{name}", value, epoch)
        if previews:
            for name, sound in previews.sounds.items():
                self._writer.add_audio(f"previews/{name}", sound, epoch, previews.sample_rate)
            self._writer.add_image("previews", previews.picture, epoch, dataformats="HWC")
        # A run that is killed from here on resumes behind this epoch.
        self._writer.flush()
