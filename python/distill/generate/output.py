"""The folder that generated sounds are written to."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from distill.runs.folder import RunFolder
from distill.storage import make_folder
from distill.text import printable
from distill.types import PathLike

logger = logging.getLogger(__name__)


def make_out_folder(out: Path, run_dir: PathLike) -> None:
    """Make the folder, and warn if it is a part of the run's dataset that holds other files.

    A folder that distill made, or that was empty, is marked, and no dataset includes it. A mark in another folder would
    hide the recordings in it.

    Raises
    ------
    StorageError
        If it cannot be made.
    """
    if make_folder(out):
        return
    dataset = os.path.realpath(RunFolder(run_dir).dataset().folder)
    if Path(os.path.realpath(out)).is_relative_to(dataset):
        logger.warning(
            "%s is in the dataset of this run and holds other files: what is written there counts as recordings from "
            "now on; choose a new folder with --out to keep it apart",
            printable(str(out)),
        )
