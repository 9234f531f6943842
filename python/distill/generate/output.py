"""What generated sounds are written to, and what is said of their levels."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

from distill.runs.folder import RunFolder
from distill.storage import make_folder
from distill.text import printable
from distill.types import PathLike

logger = logging.getLogger(__name__)

# A change of level that is less is not heard.
_HELD_SHOWN_DB = 1.0


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


def level_notes(held_db: float, gain: float, limited: float, limited_db: float) -> list[str]:
    """Return in words what was done to the level of a sound; see `Generated` for the figures."""
    notes = [f"level held by {held_db:+.1f} dB"] if abs(held_db) >= _HELD_SHOWN_DB else []
    lowered_db, limited_db = round(-20 * math.log10(gain), 1), round(limited_db, 1)
    if lowered_db > 0:
        notes.append(f"lowered by {lowered_db} dB to avoid clipping")
    if limited_db > 0:
        notes.append(f"peaks limited by up to {limited_db} dB in {100 * limited:.2g} % of the sound")
    return notes
